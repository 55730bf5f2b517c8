"""What makes a text unfit to learn from: lone surrogates, control characters, mojibake. Nothing is repaired."""

from __future__ import annotations

import re

from gad_ray.data.rows import Reason

_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

# Mojibake is UTF-8 that was read as Latin-1 or Windows-1252: a letter that stands for a lead byte, followed by
# characters that stand for continuation bytes (0x80-0xBF). The trouble is that such pairs also occur in good text,
# as in `CAFÉ»`, `déjà »` with a no-break space, or Czech `víš…`. What follows tells the two apart by characters
# that do not come after an accented letter in any language.

_C1 = "\x80-\x9f"
_CP1252 = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
"""What Windows-1252 has for the bytes 0x80 to 0x9F."""

_CONTINUATION = f"[{_C1}\xa0-\xbf{_CP1252}]"
_UNNATURAL = f"[{_C1}ƒ†‡ˆ‰˜¡¢¤¥¦§¨¬¯´µ¶¸¼½¾¿]"
"""Continuations that do not follow a letter in good text: no quotes, dashes, spaces, superscripts, letters."""

_CERTAIN = re.compile(
    "|".join(
        (
            "\ufffd",  # a decoder has already put this where it met a broken byte
            "锟斤拷",  # the same, read as GBK
            "\xef\xbb\xbf|\xef\xbf\xbd",  # ï»¿ and ï¿½: the byte order mark, and U+FFFD
            f"[Â-ô][{_C1}]",  # a letter and a control: Latin-1 reading of almost anything
            "â€",  # quotes, dashes, ellipsis: â€™
            "ðŸ",  # emoji
            "â„¢",  # ™
            f"â[œšžŸƒˆ˜‚†‡‰Š]{_CONTINUATION}",  # arrows, ticks, mathematical signs
            f"Â[{_C1}\xa0-\xac\xae-\xbf]",  # signs of Latin-1: Â°, Â«; but not before a soft hyphen
            f"Ã[{_C1}\xa1-\xaa\xac\xae-\xba\xbc-\xbfŠŒŽšœžŸƒˆ‰˜€†‡™]",  # accented letters: Ã©; but not Ã before a quote
            "Ã[–—„“”…‘’‚](?=[a-z])",  # accented capitals: Ã–sterreich
            f"(?<=[a-z])Ã{_CONTINUATION}|(?<!\\w)Ã\xa0",  # an à: Ã and a no-break space, where no word ends in capitals
        )
    )
)

_SUSPECT = re.compile(
    "|".join(
        (
            f"[ÄÅÎÏÐÑØÙÚÛ]{_UNNATURAL}",  # Latin Extended, Greek, Cyrillic, Arabic
            "×[\x90-\xaa‘’“”•–—˜™š›œžŸ](?=×)",  # Hebrew
            f"[à-ï](?:{_UNNATURAL}{_CONTINUATION}|{_CONTINUATION}{_UNNATURAL})",  # Indic, Thai, CJK, Hangul
        )
    )
)
_SUSPECTS_NEEDED = 2
"""A single suspect may be a list of characters or a part number; two are a text."""


def flaw_of(text: str) -> tuple[Reason, str] | None:
    """The first reason why a text is unfit, with the place and the characters; None if it is fit.

    Fit are all assigned characters of any script, emoji, and the controls newline, tab and carriage return.
    """
    if found := _SURROGATE.search(text):
        return Reason.LONE_SURROGATE, f"U+{ord(found.group()):04X} stands alone at character {found.start()}"
    if found := _mojibake(text):
        return Reason.MOJIBAKE, f"{found.group()!r} at character {found.start()}"
    if found := _CONTROL.search(text):
        return Reason.CONTROL_CHARACTERS, f"U+{ord(found.group()):04X} at character {found.start()}"
    return None


def _mojibake(text: str) -> re.Match[str] | None:
    if text.isascii():
        return None
    if certain := _CERTAIN.search(text):
        return certain
    suspects = list(_SUSPECT.finditer(text))
    return suspects[0] if len(suspects) >= _SUSPECTS_NEEDED else None
