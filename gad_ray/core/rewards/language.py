"""A reward for answering in the prompt's language, as far as its script tells."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

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
    return answered[_foremost(asked)] / answered.total()


def main_script(text: str) -> str | None:
    """The script that most letters of a text are in, as ``same_language`` tells it: LATIN, CJK, JAPANESE and so on.

    None for a text without letters.
    """
    found = _scripts(text)
    return _foremost(found) if found else None


def _foremost(scripts: Counter[str]) -> str:
    """The most frequent script; of those that are equally frequent, the one that comes first in the text."""
    script, _ = scripts.most_common(1)[0]
    return script


def _scripts(text: str) -> Counter[str]:
    """Letters of each script."""
    found: Counter[str] = Counter()
    # Each distinct character is looked up once: texts are long and alphabets short.
    for letter, count in Counter(text).items():
        if letter.isalpha():
            found[_script_of(letter)] += count
    kana = sum(found.pop(script, 0) for script in _JAPANESE)
    if kana:
        found["JAPANESE"] = kana + found.pop("CJK", 0)
    return found


@lru_cache(maxsize=65536)
def _script_of(letter: str) -> str:
    """The first word of a letter's Unicode name: LATIN, CYRILLIC, CJK and so on."""
    words = unicodedata.name(letter, "UNKNOWN").split()
    return words[1] if words[0] in _LETTER_FORMS and len(words) > 1 else words[0]
