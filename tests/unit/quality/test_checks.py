"""Checks of single texts: what each finds, and what it passes over on purpose."""

from __future__ import annotations

import pytest

from gad_ray.quality.checks import Answer, control_token, invisible, turn_marker, unfinished
from gad_ray.quality.formats import Format, format_of
from gad_ray.quality.samples import SampleBox, shorten

LONG = "The sky is blue because air scatters short waves. That is why the evening sun looks red to anyone who"


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        f"{LONG} watches,",
        "天空是蓝色的。因为空气散射蓝光比红光多得多，所以我们在白天看到的天空",
        "```python\nprint(1)\n",
        '{"a": [1, 2',
        "1. Apples grow on trees in many gardens.\n2. Pears grow on trees in some gardens.\n3. Plums grow on trees in the gardens of",
    ],
)
def test_an_answer_that_stops_short_is_unfinished(text: str):
    assert unfinished(Answer.of("Why?", text)) is not None


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        "",
        f"{LONG} watches.",
        f"{LONG} **watches**",
        "See what the others say about it. It is all written down at https://example.org/a/b/c/d/e",
        "- apples from the old garden behind the house\n- pears from the new one in front of it\n- plums from the shop down the road",
        "Dear reader, this is all that I have to say. Thank you for your time and patience, yours sincerely, Ann",
        "def add(a, b):\n    return a + b",
        "```python\nprint(1)\n```",
        '{"a": [1, 2]}',
        "你好",
    ],
)
def test_an_answer_that_may_end_like_that_is_not(text: str):
    assert unfinished(Answer.of("Why?", text)) is None


def test_an_answer_whose_row_says_that_it_was_cut_is_unfinished_whatever_its_end():
    assert unfinished(Answer.of("Why?", "All is well.", cut=True)) is not None


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"a": 1}', Format.JSON),
        ("| a | b |\n|---|---|\n| 1 | 2 |", Format.TABLE),
        ("Here:\n```python\nx = 1\n```", Format.CODE),
        ("#include <stdio.h>\nint main() {\n    return 0;\n}", Format.CODE),
        ("Fruits:\n1. apples\n2. pears", Format.LIST),
        ("# Title\n\nSome text.", Format.MARKDOWN),
        ("It is **very** blue.", Format.MARKDOWN),
        ("If you ask me, it depends.\nFor most people, from what I know, it is blue.", Format.PLAIN),
        ("1 is a number. {x} is a set.", Format.PLAIN),
        ("", Format.PLAIN),
    ],
)
def test_the_form_of_an_answer_is_that_of_its_most_telling_mark(text: str, form: Format):
    assert format_of(text) is form


def test_control_text_is_found_but_for_what_was_asked_about():
    assert control_token("Fine.<|eot_id|>") == "<|eot_id|>"
    assert control_token("Fine.</s>") == "</s>"
    assert control_token("<p><s>old</s> new</p>") is None
    assert control_token("It ends with <|im_end|>", asked_in="What is <|im_end|> for?") is None
    assert turn_marker("Fine.\n### Response: yes") == "### Response:"
    assert turn_marker("User: hi", asked_in="Write a dialogue of a user and a bot") is None


def test_marks_of_direction_are_at_home_in_text_that_runs_right_to_left():
    assert invisible("abc\u200fdef") == "U+200F at character 3"
    assert invisible("שלום\u200f (abc)") is None
    assert invisible("family 👩\u200d👩\u200d👧") is None


def test_what_cannot_be_seen_is_shown_as_code_points_and_long_text_by_both_ends():
    assert shorten("a\u202eb\x1b[31m\ud800") == "a⟨U+202E⟩b⟨U+001B⟩[31m⟨U+D800⟩"
    shown = shorten("begin " + "x" * 5000 + " end")
    assert shown.startswith("begin ")
    assert shown.endswith(" end")
    assert len(shown) < 300


def test_a_box_keeps_the_same_rows_in_whatever_order_they_come():
    def kept(numbers: list[int]) -> list[str]:
        box = SampleBox()
        for number in numbers:
            box.add(f"file:{number}", "p", "a", "n")
        assert box.count == len(numbers)
        return [sample.place for sample in box.samples]

    numbers = list(range(100))
    assert kept(numbers) == kept(numbers[::-1])
    assert len(kept(numbers)) == 5
