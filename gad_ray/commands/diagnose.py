"""``gad-ray diagnose``: what is wrong with a run, why, and which settings mend it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.text import Text

from gad_ray.errors import ConfigError
from gad_ray.findings import Severity, print_finding
from gad_ray.health import Diagnosis, diagnose
from gad_ray.health.diagnosis import Fired
from gad_ray.health.facts import read_facts
from gad_ray.health.page import rules_page
from gad_ray.health.phrases import say
from gad_ray.health.reading import read_history
from gad_ray.health.texts import LANGUAGES, Language

_STAGES = ("warmup", "adversarial")
_FAIL_ON = ("never", Severity.WARNING.value, Severity.CRITICAL.value)
_FIRED = 1


def run_diagnosis(
    source: str | None,
    *,
    lang: str,
    as_json: bool,
    facts: Path | None,
    stage: str | None,
    fail_on: str,
    show_rules: bool,
) -> int:
    """Judge a log and print what was found, or print the rules.

    Args:
        source: A run's name or directory, a metrics file, TensorBoard events, or verl's console log.
        lang: Language of the texts.
        as_json: Print the rules that fired as JSON.
        facts: JSON file with what the log does not tell.
        stage: Stage of all steps, where the log does not tell it.
        fail_on: Least severity of a rule that holds at the end for which the exit code is 1.
        show_rules: Print the table of rules, and judge nothing.

    Returns:
        0 when the log was judged, 1 where ``fail_on`` asks for it.

    Raises:
        GadError: If there is nothing to judge.
    """
    language = cast("Language", _one_of("--lang", lang, LANGUAGES))
    _one_of("--fail-on", fail_on, _FAIL_ON)
    if stage is not None:
        _one_of("--stage", stage, _STAGES)
    if show_rules:
        sys.stdout.write(rules_page(language))
        return 0
    if source is None:
        raise ConfigError("nothing to diagnose was given", hint="give a run, a metrics file or a directory")
    told = None if facts is None else read_facts(facts)
    diagnosis = diagnose(read_history(source, facts=told, stage=stage), language=language)
    if as_json:
        sys.stdout.write(json.dumps(findings_to_json(diagnosis.fired), ensure_ascii=False, indent=2) + "\n")
    else:
        print_diagnosis(diagnosis)
    return exit_code(diagnosis.fired, fail_on=fail_on)


def run_critic_diagnosis(
    critic: Path | None,
    data: str | None,
    *,
    rows: int,
    lang: str,
    as_json: bool,
    fail_on: str,
    others: Mapping[str, object],
) -> int:
    """Judge a critic by itself on one's own data, and print what was found.

    Args:
        critic: An exported critic.
        data: File of rows.
        rows: Rows that are looked at.
        lang: Language of the texts.
        as_json: Print figures and findings as JSON.
        fail_on: Least severity of a finding for which the exit code is 1.
        others: What else was given on the command line, which only a run's log has use for.

    Returns:
        0 when the critic was judged, 1 where ``fail_on`` asks for it.

    Raises:
        GadError: If there is nothing to judge.
    """
    language = cast("Language", _one_of("--lang", lang, LANGUAGES))
    _one_of("--fail-on", fail_on, _FAIL_ON)
    if critic is None or data is None:
        raise ConfigError(
            "--critic and --data go together", hint="give an exported critic, and a file of rows to try it on"
        )
    given = [name for name, value in others.items() if value]
    if given:
        raise ConfigError(
            f"{', '.join(given)} is of a run's log, and --critic judges a critic by itself",
            hint="leave one of the two out",
        )
    from gad_ray.commands.diagnose_critic import diagnose_critic

    return diagnose_critic(critic, data, rows=rows, language=language, as_json=as_json, fail_on=fail_on)


def exit_code(fired: Sequence[Fired], *, fail_on: str) -> int:
    """1 where a finding of the asked-for severity holds at the end, else 0."""
    lasting = [item.finding.severity for item in fired if item.lasting]
    failed = bool(lasting) if fail_on == Severity.WARNING else Severity.CRITICAL in lasting
    return _FIRED if fail_on != "never" and failed else 0


def findings_to_json(fired: Sequence[Fired]) -> list[dict[str, object]]:
    """The rules that fired, as ``--json`` prints them."""
    return [
        {
            "rule": item.finding.rule,
            "severity": item.finding.severity.value,
            "steps": list(item.steps),
            "evidence": {
                "text": item.finding.evidence,
                "figures": dict(item.finding.values),
                "window": item.finding.window,
                "judged_on": item.finding.judged_on,
                "numbers_of_steps": item.finding.numbers,
                "at_the_end": item.lasting,
            },
            "meaning": item.finding.meaning,
            "advice": list(item.finding.overrides),
        }
        for item in fired
    ]


def print_diagnosis(diagnosis: Diagnosis, console: Console | None = None) -> None:
    """Print a diagnosis: the rules that fired, what is well, the verdict, and what to know of the source."""
    out = console or Console(highlight=False)
    language, history = diagnosis.language, diagnosis.history
    out.print(
        Text(
            say(
                "judged",
                language,
                place=history.place,
                kind=say(f"kind-{history.kind}", language),
                count=len(history.rows),
                first=history.rows[0].step,
                last=history.rows[-1].step,
            )
        ),
        soft_wrap=True,
    )
    if diagnosis.fired:
        print_fired(diagnosis.fired, language, out)
    else:
        out.print(Text(say("nothing-fired", language)))
    for line in diagnosis.observations:
        out.print(Text(f"+ {line}", style="green"))
    for line in diagnosis.course:
        out.print(Text(f"· {line}"), soft_wrap=not out.is_terminal)
    for line in diagnosis.notes:
        out.print(Text(f"· {line}", style="dim"), soft_wrap=not out.is_terminal)
    out.print(Text(say("verdict", language, verdict=diagnosis.verdict), style="bold"), soft_wrap=True)


def print_fired(fired: Sequence[Fired], language: Language, out: Console) -> None:
    """The rules that fired, each with its steps, its evidence and what it means, and the overrides below all of them."""
    for item in fired:
        finding = item.finding
        more = [f"{say('column-steps', language)} {_steps(item, language)}"]
        if finding.numbers is not None:
            first, last = finding.numbers
            more.append(say("numbers", language, first=first, last=last))
        severity = say(finding.severity.value, language)
        print_finding(finding, out, severity=severity, more=more, with_overrides=False)
        out.print()
    _print_overrides(fired, language, out)


def _steps(item: Fired, language: Language) -> str:
    held = say("held-on", language, first=item.steps[0], last=item.steps[-1], count=len(item.steps))
    return held if item.lasting else f"{held}; {say('over', language, last=item.steps[-1])}"


def _print_overrides(fired: Sequence[Fired], language: Language, out: Console) -> None:
    """The overrides, each on a line of its own, to be copied; of those that several rules give, the first alone."""
    told: dict[str, list[str]] = {}
    for item in fired:
        for override in item.finding.overrides:
            told.setdefault(override, []).append(item.finding.rule)
    if told:
        out.print(Text(f"{say('column-overrides', language)}:"))
    width = min(60, max((len(_quoted(override)) for override in told), default=0))
    for override, rules in told.items():
        line = Text.assemble(f"  {_quoted(override):<{width}}", (f"  # {', '.join(rules)}", "dim"))
        out.print(line, soft_wrap=True)


def _quoted(override: str) -> str:
    """As a shell takes it."""
    return f"'{override}'" if any(character in override for character in " [{") else override


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ConfigError(f"{option} {value}: no such choice", hint=f"one of: {', '.join(known)}")
    return value
