"""Checks of single texts: what is found, in words, or None. Heuristics, each with what it overlooks on purpose."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from gad_ray.core.rewards import control_token_in, no_repetition, parsed_json, same_language, timestamp_in
from gad_ray.data.text import flaw_of
from gad_ray.quality.formats import FENCE, LIST_ITEM, Format, format_of


class Side(StrEnum):
    """Whose text it is."""

    PROMPT = "prompt"
    TEACHER = "teacher"
    STUDENT = "student"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer as the checks see it.

    Attributes:
        prompt: What the user said last.
        text: The answer.
        form: Its form.
        cut: Whether its row says that it was cut at a token limit.
    """

    prompt: str
    text: str
    form: Format
    cut: bool

    @classmethod
    def of(cls, prompt: str, text: str, *, cut: bool = False) -> Answer:
        """An answer with its form."""
        return cls(prompt=prompt, text=text, form=format_of(text), cut=cut)


# --- Control text

# What the reward's own list leaves out, because it can stand in good HTML: only at the ends, or never in any markup.
_END_TOKEN = re.compile(
    r"^\s*<s>|</s>\s*$|<(?:eos|bos|pad|unk|EOS|BOS|PAD|UNK)>|\[(?:EOS|BOS|PAD|UNK|SEP|CLS)\]"
)
_TURN = re.compile(
    r"^[ \t]*(?:#{1,4}[ \t]*)?(Human|User|Assistant|System|AI|Bot|Instruction|Response|用户|助手|人类)[ \t]*[:：]",
    re.MULTILINE,
)


def control_token(text: str, *, asked_in: str = "") -> str | None:
    """A control token of a chat template that is spelled out, unless what was asked has it too."""
    found = control_token_in(text) or ((match := _END_TOKEN.search(text)) and match.group().strip())
    return found if found and found not in asked_in else None


def turn_marker(text: str, *, asked_in: str = "") -> str | None:
    """The beginning of a turn, as ``Human:``, unless what was asked speaks of that role."""
    for match in _TURN.finditer(text):
        if match[1].casefold() not in asked_in.casefold():
            return match.group().strip()
    return None


# --- Characters

# Not the joiners: emoji and Indic and Persian texts need them. Marks of direction belong into texts that run right
# to left, and nowhere else.
_ZERO_WIDTH = re.compile("[\u200b\u2060\ufeff\u180e\u00ad]")
_DIRECTION = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069\u061c]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")


def invisible(text: str) -> str | None:
    """The first zero-width character, or mark of direction in a text of no right-to-left script."""
    if text.isascii():
        return None
    found = _ZERO_WIDTH.search(text)
    if found is None and not _RIGHT_TO_LEFT.search(text):
        found = _DIRECTION.search(text)
    return f"U+{ord(found.group()):04X} at character {found.start()}" if found else None


def broken(text: str) -> str | None:
    """Mojibake, control characters and lone surrogates, as they make a row unusable."""
    flaw = flaw_of(text)
    return None if flaw is None else f"{flaw[0]}: {flaw[1]}"


# --- Form

_MARK = re.compile(r"[.!?。！？…;；\"'”’»)\]}>）】」』*_`~|]$")
_SENTENCE = re.compile(r"[.!?]\s|[。！？]")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_SIGNED = re.compile(
    r"\b(?:sincerely|faithfully|regards|wishes|respectfully|truly|cheers|love|luck|yours)\b[^.!?]{0,60}$",
    re.IGNORECASE,
)
_PROSE_WORDS = 8
_PROSE_CJK = 16
_LONG_WORDS = 30


def unfinished(answer: Answer) -> str | None:
    """Why an answer seems to have been cut off: its row says so, or something open was never closed.

    A heuristic. Short answers and lines, lists and verses without final marks, and names at the end of a letter
    are taken to be whole; so is an answer that was cut right after a sentence.
    """
    if answer.cut:
        return "its row says that it was cut at the token limit"
    body = answer.text.rstrip()
    if len(FENCE.findall(body)) % 2:
        return "a code fence is not closed"
    if body[:1] in {"{", "["} and parsed_json(body) == 0.0 and _open_brackets(body):
        return "a bracket is not closed"
    if answer.form in {Format.CODE, Format.JSON, Format.TABLE} or not body or _MARK.search(body):
        return None
    *others, last = [line.rstrip() for line in body.splitlines() if line.strip()]
    if not (last[-1].isalnum() or last[-1] in ",，、:：-–—(（") or "://" in last.split()[-1]:
        return None
    if not _is_prose(last) or _SIGNED.search(last) or _does_without_marks(last, others):
        return None
    if _SENTENCE.search(body) or len(body.split()) >= _LONG_WORDS:
        return "it ends in the middle of a sentence"
    return None


def _open_brackets(body: str) -> bool:
    return any(body.count(left) > body.count(right) for left, right in ("{}", "[]"))


def _is_prose(line: str) -> bool:
    return len(line.split()) >= _PROSE_WORDS or len(_CJK.findall(line)) >= _PROSE_CJK


def _does_without_marks(last: str, others: list[str]) -> bool:
    """Whether lines of the last one's kind end without a mark: items of a list, verses."""
    if LIST_ITEM.match(last):
        others = [line for line in others if LIST_ITEM.match(line)]
    return len(others) >= 2 and 2 * sum(_MARK.search(line) is None for line in others) >= len(others)


_REPEATED = -0.5
_REPETITION_WORDS = 40
_ECHO_CHARACTERS = 20


def repetitive(text: str) -> str | None:
    """Whether more than half of a long text's word 4-grams have occurred in it before."""
    if len(text) < _REPETITION_WORDS or (len(text.split()) < _REPETITION_WORDS and not _CJK.search(text)):
        return None
    value = no_repetition(text, ngram=4)
    return f"{-value:.0%} of its 4-grams are repetitions" if value < _REPEATED else None


def echo(answer: Answer) -> str | None:
    """Whether an answer begins with the whole prompt."""
    prompt = answer.prompt.strip()
    if len(prompt) >= _ECHO_CHARACTERS and answer.text.lstrip().startswith(prompt):
        return "it begins with the prompt"
    return None


def other_script(answer: Answer) -> str | None:
    """Whether most letters of an answer are of another script than most of the prompt's. Code is passed over."""
    if answer.form is Format.CODE or (share := same_language(answer.prompt, answer.text)) >= 0.5:
        return None
    return f"{share:.0%} of its letters are in the prompt's script"


PROMPT_CHECKS: dict[str, Callable[[str], str | None]] = {
    "control_token": control_token,
    "turn_marker": turn_marker,
    "invisible": invisible,
}
"""Checks of prompts. Broken characters make a row unusable, which is counted elsewhere."""

ANSWER_CHECKS: dict[str, Callable[[Answer], str | None]] = {
    "unfinished": unfinished,
    "control_token": lambda a: control_token(a.text, asked_in=a.prompt),
    "turn_marker": lambda a: turn_marker(a.text, asked_in=a.prompt),
    "timestamp": lambda a: None if timestamp_in(a.prompt) else timestamp_in(a.text),
    "invisible": lambda a: invisible(a.text),
    "broken": lambda a: broken(a.text),
    "repetitive": lambda a: repetitive(a.text),
    "echo": echo,
    "other_script": other_script,
}
"""Checks of answers, of both sides."""
