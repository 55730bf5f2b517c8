from __future__ import annotations

import pytest

from gad_ray.data.rows import Reason
from gad_ray.data.text import flaw_of

GOOD = [
    "plain ASCII, with\nnewlines\tand tabs\r\n",
    "« Déjà vu », dit-il… « Où ça ? »",
    "il est cassé\u00a0», puis «\u00a0déjà\u00a0», «\u00a0café\u00a0»\u00a0!",  # no-break spaces before guillemets
    "LE CAFÉ», “CAFÉ”, ‘LA FÉÉ’… À «Être» — DÉJÀ–VU",
    "IRMÃ» e “AMANHÃ” — MAÇÃ… NÃO, SÃO, ÂNGULO, VOCÊ",
    "Größe, Spaß“, Fuß… „Österreich“, Straß\u00ade",
    "Když víš… přines náš“ léž”, myslíš… váš“",
    "¿Qué? ¡Olé! Ñandú, AÑO, “ESPAÑ”",
    "Łódź, żółw, Čeština, Žižka, Škoda™",
    "İstanbul, âşık, kâğıt, rüzgâr…",
    "Tiếng Việt: ấm áp, Ấ, Â, Ă",
    "ÅÄÖ Åse, Ærø, Øresund, maður, þú, Ísland",
    "Привет, мир! «Ёлка» — Їжак",
    "你好，世界。“今天”天气很好……《红楼梦》",
    "こんにちは、世界「テスト」ー ｶﾀｶﾅ",
    "안녕하세요 여러분",
    "مرحبا بالعالم؟ שלום עולם नमस्ते สวัสดี Ελληνικά",
    "😀 👩‍👩‍👧‍👦 🇫🇷 ❤️ ✓ → ™ © ® ° ½ × ÷ ± µ §",
    "5 × 3½ = 17½; 2×½; Ø 10 ± 0.1; Ångström Å; π ≈ 3.14; x² + y³; naïveté; résumé²",
    "def f(x: int) -> str:\n    return re.sub(r'[À-ÖØ-öø-ÿ]+', '«»', f'{x!r}…')  # ÀÁÂÃÄÅ àáâãäå",
    "Nestlé®, Citroën©, Beyoncé’s, é¹, É",
    "ünïcödë — “quotes” ‘single’ •bullet‣ †dagger‡",
]


@pytest.mark.parametrize("text", GOOD)
def test_good_text_of_every_kind_has_no_flaw(text: str) -> None:
    assert flaw_of(text) is None


def misread(text: str, *, as_windows: bool) -> str:
    """UTF-8 bytes read as Windows-1252 (its unassigned bytes as controls, as browsers do) or as Latin-1."""
    characters: list[str] = []
    for byte in text.encode():
        try:
            characters.append(bytes([byte]).decode("cp1252" if as_windows else "latin-1"))
        except UnicodeDecodeError:
            characters.append(chr(byte))
    return "".join(characters)


@pytest.mark.parametrize("as_windows", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "naïve café",
        "It’s fine",
        "wait…",
        "a – b",
        "Österreich",
        "voilà",
        "à la carte",
        "25 °C",
        "« oui »",
        "😀",
        "→",
        "✓ done",
        "brand™",
        "Łódź i źdźbło",
        "Привет",
        "Ελληνικά",
        "שלום",
        "مرحبا بالعالم",
        "नमस्ते",
        "สวัสดี",
        "你好，世界",
        "こんにちは",
        "안녕하세요",
        "\ufeffstart",
    ],
)
def test_utf8_that_was_read_as_a_one_byte_encoding_is_mojibake(text: str, as_windows: bool) -> None:
    assert flaw_of(text) is None
    flaw = flaw_of(misread(text, as_windows=as_windows))
    assert flaw is not None
    assert flaw[0] is Reason.MOJIBAKE


@pytest.mark.parametrize(
    "text",
    [
        "caf\ufffd",
        "Ã©",
        "â€™",
        "donâ€™t",
        "锟斤拷烫烫烫",
        misread(misread("é", as_windows=True), as_windows=True),
    ],
)
def test_replaced_characters_and_the_usual_sequences_are_mojibake(text: str) -> None:
    flaw = flaw_of(text)
    assert flaw is not None
    assert flaw[0] is Reason.MOJIBAKE


@pytest.mark.parametrize(
    "control", ["\x00", "\x07", "\x08", "\x0b", "\x0c", "\x1b", "\x1f", "\x7f", "\x80", "\x9f"]
)
def test_a_control_character_is_named_with_its_position(control: str) -> None:
    assert flaw_of(f"ab{control}c") == (Reason.CONTROL_CHARACTERS, f"U+{ord(control):04X} at character 2")


def test_a_lone_surrogate_is_named_with_its_position() -> None:
    assert flaw_of("a\ud83d") == (Reason.LONE_SURROGATE, "U+D83D stands alone at character 1")
