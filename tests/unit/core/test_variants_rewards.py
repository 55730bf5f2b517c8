import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gad_ray.core.rewards import (
    leaked_control,
    length_window,
    load_reward_function,
    parsed_json,
    required_pattern,
    reward_value,
    same_language,
)
from gad_ray.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "regex", "value"),
    [
        ("so <answer>4</answer>.", r"<answer>\d+</answer>", 1.0),
        ("so <answer>four</answer>", r"<answer>\d+</answer>", 0.0),
        ("4", r"^\d$", 1.0),
        ("4 apples", r"^\d$", 0.0),
        ("", r".", 0.0),
    ],
)
def test_a_pattern_is_found_or_not(text: str, regex: str, value: float):
    assert required_pattern(text, regex=regex) == value


@pytest.mark.parametrize(
    ("text", "keys", "value"),
    [
        ('{"a": 1}', (), 1.0),
        ("  [1, 2]\n", (), 1.0),
        ("3", (), 1.0),
        ('{"a": 1', (), 0.0),
        ('Here: {"a": 1}', (), 0.0),
        ("", (), 0.0),
        ("NaN", (), 0.0),
        ('{"a": Infinity}', (), 0.0),
        ('{"a": 1, "b": null}', ("a", "b"), 1.0),
        ('{"a": 1}', ("a", "b"), 0.0),
        ('["a", "b"]', ("a", "b"), 0.0),
        ("[" * 100_000, (), 0.0),
    ],
)
def test_json_is_json_by_the_standard_with_its_keys(text: str, keys: tuple[str, ...], value: float):
    assert parsed_json(text, required_keys=keys) == value


@pytest.mark.parametrize(
    "text",
    [
        "Hello<|im_end|>",
        "<|start_header_id|>assistant",
        "[INST] more [/INST]",
        "<<SYS>> be kind",
        "<end_of_turn>",
        "At 2024-05-01 12:30:00 the sky was blue.",
        "2024-05-01T12:30 started",
        "[00:12] Hello",
        "(1:02:03.5) and then",
    ],
)
def test_control_text_and_timestamps_are_leaks(text: str):
    assert leaked_control(text) == -1.0


@pytest.mark.parametrize(
    "text",
    ["", "a < b | c > d", "if (a <| b) |> f", "On 2024-05-01 we met at 12:30.", "list[0:12]", "<b>bold</b>"],
)
def test_ordinary_text_is_no_leak(text: str):
    assert leaked_control(text) == 0.0


def test_timestamps_can_be_allowed_and_markers_added():
    assert leaked_control("[00:12] Hello", timestamps=False) == 0.0
    assert leaked_control("Human: hello", markers=("Human:",)) == -1.0


@pytest.mark.parametrize(
    ("length", "value"),
    [(0, -1.0), (1, -0.75), (4, 0.0), (60, 0.0), (70, -0.25), (100, -1.0), (101, -1.0), (9999, -1.0)],
)
def test_the_length_penalty_is_that_worked_out_by_hand(length: int, value: float):
    # Free from 4 to 100 − 40 tokens.
    assert length_window(length, max_tokens=100, soft_tokens=40, min_tokens=4) == pytest.approx(value)


def test_without_a_soft_part_the_penalty_comes_at_once():
    assert [length_window(n, max_tokens=8) for n in (0, 8, 9)] == [0.0, 0.0, -1.0]


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(0, 200), st.integers(0, 200), st.integers(0, 900))
def test_the_length_penalty_stays_within_bounds_and_falls_with_length(
    free: int, soft: int, low: int, length: int
):
    window = {"max_tokens": free + low + soft, "soft_tokens": soft, "min_tokens": low}
    here, longer = (length_window(n, **window) for n in (length, length + 1))
    assert -1.0 <= here <= 0.0
    assert (longer <= here) if length >= low else (longer > here)


@pytest.mark.parametrize(
    ("prompt", "response", "value"),
    [
        ("Why is the sky blue?", "Because.", 1.0),
        ("Why is the sky blue?", "因为空气", 0.0),
        ("为什么天空是蓝色的", "因为air", 0.4),
        ("空はなぜ青いですか", "空気が光を散らすから", 1.0),
        ("Почему?", "Because", 0.0),
        ("1 + 1 = ?", "zwei", 1.0),
        ("Why?", "42", 1.0),
        ("ABC why", "because", 1.0),
    ],
)
def test_the_language_is_judged_by_the_prompts_script(prompt: str, response: str, value: float):
    assert same_language(prompt, response) == pytest.approx(value)


# -- functions of the user's ---------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"rewards_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(
        "NUMBER = 3\ndef length(prompt, response):\n    return len(response) / 10\n"
        "def one(response):\n    return 0.0\n"
        "def three(prompt, response, extra):\n    return 0.0\n"
        "def named(*, prompt, response):\n    return 0.0\n"
        "def free(*texts, weight=1.0):\n    return weight\n",
        encoding="utf-8",
    )
    (tmp_path / f"{name}_broken.py").write_text("raise RuntimeError('no licence')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)
    load_reward_function.cache_clear()


def test_a_function_is_found_by_its_path(module: str):
    assert load_reward_function(f"{module}:length")("?", "four") == 0.4
    assert load_reward_function(f"{module}:free")("?", "four") == 1.0


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("no_such_module_at_all:f", ["no_such_module_at_all", "cannot be imported", "ModuleNotFoundError"]),
        ("{}_broken:f", ["cannot be imported", "RuntimeError: no licence"]),
        ("{}:widht", ["'{}' has no such name"]),
        ("{}:NUMBER", ["has a int of that name"]),
        ("{}:one", ["has the arguments (response)", "two texts"]),
        ("{}:three", ["has the arguments (prompt, response, extra)", "missing a required argument"]),
        ("{}:named", ["has the arguments (*, prompt, response)", "too many positional arguments"]),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_with_its_mend(module: str, path: str, told: list[str]):
    with pytest.raises(ConfigError) as caught:
        load_reward_function(path.format(module))
    for part in told:
        assert part.format(module) in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (1.01, "1.01, which is not between -1.0 and 1.0"),
        (-2, "-2.0"),
        ("0.5", "a str, not a number"),
        (None, "a NoneType"),
        (True, "a bool"),
        ([0.5], "a list"),
        (0.5 + 0j, "a complex"),
    ],
)
def test_a_value_that_cannot_be_used_is_told_by_name(value: object, told: str):
    found = reward_value(value, low=-1.0, high=1.0)
    assert isinstance(found, str)
    assert told in found


@pytest.mark.parametrize("value", [1, 0, -1, 0.25])
def test_a_number_within_the_bounds_is_taken(value: float):
    assert reward_value(value, low=-1.0, high=1.0) == value
