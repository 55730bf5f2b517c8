"""A reward for answering in the prompt's language, as far as its script tells."""

from __future__ import annotations

import unicodedata
from collections import Counter

_JAPANESE = {"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}
_LETTER_FORMS = {"FULLWIDTH", "HALFWIDTH", "MODIFIER"}


def same_language(prompt: str, response: str) -> float:
    """Share of the response's letters in the script that most letters of the prompt are in, from 0 to 1.

    A heuristic: it tells Chinese from English, not French from English; Han characters beside kana are Japanese.
    A prompt or a response without letters cannot be told, and gets 1.
    """
    asked, answered = _scripts(prompt), _scripts(response)
    if not asked or not answered:
        return 1.0
    # Of scripts that are equally frequent, the one that comes first in the prompt.
    script, _ = asked.most_common(1)[0]
    return answered[script] / answered.total()


def _scripts(text: str) -> Counter[str]:
    """Letters of each script, by the first word of their Unicode names: LATIN, CYRILLIC, CJK and so on."""
    found: Counter[str] = Counter()
    for letter in text:
        if letter.isalpha():
            words = unicodedata.name(letter, "UNKNOWN").split()
            found[words[1] if words[0] in _LETTER_FORMS and len(words) > 1 else words[0]] += 1
    kana = sum(found.pop(script, 0) for script in _JAPANESE)
    if kana:
        found["JAPANESE"] = kana + found.pop("CJK", 0)
    return found
