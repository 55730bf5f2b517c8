"""The table of rules as a page to read."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gad_ray.health.phrases import say
from gad_ray.health.rules import RULES, Rule
from gad_ray.health.sentences import sentence_of
from gad_ray.health.texts import Language, text_of


def rules_page(language: Language) -> str:
    """All rules as a Markdown table: when each fires, how bad that is, what it means, what answers it."""
    columns = ("rule", "condition", "window", "stage", "severity", "meaning", "answer")
    lines = [
        _line(say(f"column-{column}", language) for column in columns),
        _line("---" for _ in columns),
        *(_line(_cells(rule, language)) for rule in RULES),
    ]
    return "\n".join(lines) + "\n"


def _cells(rule: Rule, language: Language) -> list[str]:
    text = text_of(rule.name, language)
    window = say("an-epoch", language) if rule.window == "epoch" else str(rule.window)
    if rule.warmup_grace:
        window += say("after-grace", language, grace=rule.warmup_grace)
    stage = say("both-stages" if len(rule.stages) == 2 else rule.stages[0], language)
    meaning = re.sub(r"\{\w+\}", "…", text.meaning)
    if text.remark:
        meaning += say("space", language) + text.remark
    answers = dict.fromkeys(f"`{item.key}`" for item in rule.advice)
    return [
        f"`{rule.name}`",
        sentence_of(rule, language),
        window,
        stage,
        say(rule.severity.value, language),
        meaning,
        "<br>".join(answers) or "–",
    ]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
