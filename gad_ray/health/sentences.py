"""When a rule holds, in words: made from its typed condition, so that the two cannot differ."""

from __future__ import annotations

from typing import assert_never

from gad_ray.health.conditions import (
    Above,
    AllOf,
    AnyOf,
    Below,
    Comparison,
    Condition,
    DriftBelow,
    Falls,
    GapAbove,
    Known,
    Near,
    Not,
    RatioAbove,
    RatioBelow,
    Rises,
    StaysAbove,
    VariationAbove,
    VariationBelow,
)
from gad_ray.health.phrases import signal_name
from gad_ray.health.rules import Rule
from gad_ray.health.texts import Language, Phrases

_say = Phrases(
    {
        "StaysAbove": {"en": "{a} > {limit} in every step", "zh": "每一步 {a} > {limit}"},
        "near": {"en": "{a} within {tolerance} of {value}", "zh": "{a} 在 {value} ± {tolerance} 之内"},
        "VariationAbove": {"en": "{a} varies by > {limit} × its mean", "zh": "{a} 的变化 > {limit} × 均值"},
        "VariationBelow": {"en": "{a} varies by < {limit} × its mean", "zh": "{a} 的变化 < {limit} × 均值"},
        "DriftBelow": {
            "en": "{a} moves by < {limit} of itself over the window",
            "zh": "{a} 在窗口内的移动 < 自身的 {limit}",
        },
        "Rises": {"en": "{a} rises by > {limit}", "zh": "{a} 上升 > {limit}"},
        "Falls": {"en": "{a} falls by > {limit}", "zh": "{a} 下降 > {limit}"},
        "known": {"en": "{a} is known", "zh": "{a} 已知"},
        "unknown": {"en": "{a} is not known", "zh": "{a} 未知"},
        "not": {"en": "not ({part})", "zh": "并非（{part}）"},
        "and": {"en": " and ", "zh": "，且 "},
        "or": {"en": " or ", "zh": "，或 "},
        "inside": {"en": "({part})", "zh": "（{part}）"},
        "yields": {
            "en": "{condition}, unless a rule that names the cause holds",
            "zh": "{condition}，且没有能指出原因的规则成立",
        },
    }
)


def sentence_of(rule: Rule, language: Language) -> str:
    """When a rule holds."""
    condition = told(rule.condition, language)
    return _say("yields", language, condition=condition) if rule.yields_to else condition


def told(condition: Condition, language: Language) -> str:
    """A condition in words."""
    match condition:
        case AllOf(parts):
            return _say("and", language).join(_inside(part, language) for part in parts)
        case AnyOf(parts):
            return _say("or", language).join(_inside(part, language) for part in parts)
        case Not(Known(signal)):
            return _say("unknown", language, a=signal_name(signal, language))
        case Not(part):
            return _say("not", language, part=told(part, language))
        case _:
            return _compared(condition, language)


def _compared(condition: Comparison, language: Language) -> str:
    a = signal_name(condition.signal, language)
    match condition:
        case Known():
            return _say("known", language, a=a)
        case Above(_, limit):
            return f"{a} > {limit:g}"
        case Below(_, limit):
            return f"{a} < {limit:g}"
        case GapAbove(_, other, limit):
            return f"{a} − {signal_name(other, language)} > {limit:g}"
        case RatioAbove(_, other, limit):
            return f"{a} > {limit:g} × {signal_name(other, language)}"
        case RatioBelow(_, other, limit):
            return f"{a} < {limit:g} × {signal_name(other, language)}"
        case Near(_, value, tolerance):
            return _say("near", language, a=a, value=f"{value:g}", tolerance=f"{tolerance:g}")
        case Rises(_, limit) | Falls(_, limit) | StaysAbove(_, limit) | DriftBelow(_, limit):
            return _say(type(condition).__name__, language, a=a, limit=f"{limit:g}")
        case VariationAbove(_, limit) | VariationBelow(_, limit):
            return _say(type(condition).__name__, language, a=a, limit=f"{limit:g}")
        case _:
            assert_never(condition)


def _inside(part: Condition, language: Language) -> str:
    """A part of a whole: what has parts of its own is put into brackets."""
    text = told(part, language)
    return _say("inside", language, part=text) if isinstance(part, AllOf | AnyOf) else text
