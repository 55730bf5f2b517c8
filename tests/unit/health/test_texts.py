"""Every rule and phrase in every language, saying the same."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from gad_ray.health.conditions import (
    Above,
    Below,
    DriftBelow,
    Falls,
    GapAbove,
    Near,
    RatioAbove,
    RatioBelow,
    Rises,
    StaysAbove,
    VariationAbove,
    comparisons_of,
)
from gad_ray.health.diagnosis import OBSERVATIONS
from gad_ray.health.page import rules_page
from gad_ray.health.phrases import say, signal_name
from gad_ray.health.rules import RULES, Rule
from gad_ray.health.sentences import sentence_of
from gad_ray.health.signals import Signal
from gad_ray.health.texts import LANGUAGES, TEXTS, text_of

PAGE = Path(__file__).resolve().parents[3] / "docs" / "health.md"
ALL_RULES = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def figures(text: str) -> list[str]:
    return sorted(re.findall(r"\d+(?:\.\d+)?", text))


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def limits(rule: Rule) -> Iterator[float]:
    for comparison in comparisons_of(rule.condition):
        match comparison:
            case Above(_, limit) | Below(_, limit) | StaysAbove(_, limit):
                yield limit
            case GapAbove(_, _, limit) | RatioAbove(_, _, limit) | RatioBelow(_, _, limit):
                yield limit
            case VariationAbove(_, limit) | DriftBelow(_, limit) | Rises(_, limit) | Falls(_, limit):
                yield limit
            case Near(_, value, tolerance):
                yield from (value, tolerance)
            case _:
                pass


def test_the_texts_are_those_of_the_rules() -> None:
    assert set(TEXTS) == {rule.name for rule in RULES}


@ALL_RULES
def test_every_rule_speaks_every_language_and_says_the_same_figures(rule: Rule) -> None:
    english, chinese = (text_of(rule.name, language) for language in LANGUAGES)
    for there, here in (
        (sentence_of(rule, "en"), sentence_of(rule, "zh")),
        (english.meaning, chinese.meaning),
        (english.remark, chinese.remark),
    ):
        assert figures(there) == figures(here)
        assert places(there) == places(here)
        assert bool(there) == bool(here)
    assert english.meaning.endswith(".")
    assert chinese.meaning.endswith("。")
    assert not re.search(r"[一-鿿]", sentence_of(rule, "en") + english.meaning + english.remark)
    assert re.search(r"[一-鿿]", chinese.meaning)
    assert bool(english.remark) == (rule.remark is not None)


@ALL_RULES
def test_a_condition_in_words_names_the_limits_of_the_condition(rule: Rule) -> None:
    said = re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?", sentence_of(rule, "en"))
    told = [float(figure) for figure in said]
    for limit in limits(rule):
        assert any(abs(limit - figure) < 1e-9 for figure in told), (limit, told)


def test_a_condition_is_said_with_its_parts_in_brackets_and_its_exception() -> None:
    known = {rule.name: rule for rule in RULES}
    assert sentence_of(known["critic-overconfident"], "en") == (
        "(d_acc > 0.9 and (score_diff > 5 or mean sigmoid(d/τ) > 0.98)) or d_acc > 0.95"
    )
    assert sentence_of(known["critic-blind"], "en") == "d_acc < 0.6 and not (eval/teacher_nll falls by > 0.1)"
    assert sentence_of(known["scores-too-far-apart"], "en").endswith(
        ", unless a rule that names the cause holds"
    )
    assert sentence_of(known["policy-runs-away"], "zh") == "每一步 相对参考策略的 KL > 1"


@pytest.mark.parametrize("phrase", say.texts)
def test_every_phrase_speaks_every_language_with_the_same_places(phrase: str) -> None:
    english, chinese = (say.texts[phrase][language] for language in LANGUAGES)
    assert places(english) == places(chinese)
    assert figures(english) == figures(chinese)
    assert not re.search(r"[一-鿿]", english)


def test_every_observation_has_its_phrase() -> None:
    assert {observation.name for observation in OBSERVATIONS} <= set(say.texts)


def test_signals_keep_the_names_of_metrics_and_formulas_in_every_language() -> None:
    assert signal_name(Signal.D_ACC, "zh") == "d_acc"
    assert signal_name(Signal.RESPONSE_LENGTH, "zh") == "回答长度"
    for language in LANGUAGES:
        assert len({signal_name(signal, language) for signal in Signal}) == len(Signal)


def test_the_page_of_the_rules_is_what_the_table_says() -> None:
    assert rules_page("en") in PAGE.read_text(encoding="utf-8"), "gad-ray diagnose --rules prints it anew"


def test_the_page_can_be_had_in_chinese() -> None:
    page = rules_page("zh")
    assert page.count("\n") == len(RULES) + 2
    assert "| `critic-blind` |" in page
    assert "触发条件" in page
