"""``gad-ray diagnose``: what is wrong with a run or a critic, why, and which settings mend it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from gad_ray.cli.arguments import say
from gad_ray.errors import ConfigError, DataError
from gad_ray.findings import Severity

if TYPE_CHECKING:
    from gad_ray.evaluation.critic_check import CheckedRow
    from gad_ray.health.diagnosis import Fired
    from gad_ray.health.texts import Language

_STAGES = ("warmup", "adversarial")
_FAIL_ON = ("never", Severity.WARNING.value, Severity.CRITICAL.value)


def diagnose(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|FILE|DIR",
            help="A run, a metrics.jsonl, a TensorBoard directory, or verl's console log.",
        ),
    ] = None,
    lang: Annotated[str, typer.Option(metavar="en|zh", help="Language of the answer.")] = "en",
    as_json: Annotated[bool, typer.Option("--json", help="The rules that fired, machine-readable.")] = False,
    facts: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="What a foreign log does not tell; see docs/health.md."),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="warmup|adversarial", help="Stage of a log that does not tell it.")
    ] = None,
    fail_on: Annotated[
        str,
        typer.Option(
            metavar="never|warning|critical", help="Exit with 1 if such a rule holds at the end, as for a CI."
        ),
    ] = "never",
    rules: Annotated[bool, typer.Option("--rules", help="Print the table of all rules and leave.")] = False,
    critic: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Judge this exported critic by itself, on --data.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Rows with a teacher's answer, and a student's if there is one; score records.",
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of --data that are looked at.")] = 200,
) -> None:
    """Say what is wrong with a run or with a critic, what it means, and which settings mend it."""
    from gad_ray.health.page import rules_page
    from gad_ray.health.texts import LANGUAGES

    language = cast("Language", _one_of("--lang", lang, LANGUAGES))
    _one_of("--fail-on", fail_on, _FAIL_ON)
    if critic is not None or data is not None:
        others = {"RUN": source, "--facts": facts, "--stage": stage, "--rules": rules}
        given = [name for name, value in others.items() if value]
        if critic is None or data is None:
            raise ConfigError(
                "--critic and --data go together",
                hint="give an exported critic, and a file of rows to try it on",
            )
        if given:
            raise ConfigError(
                f"{', '.join(given)} is of a run's log, and --critic judges a critic by itself",
                hint="leave one of the two out",
            )
        fired = _judge_critic(critic, data, num_rows=rows, language=language, as_json=as_json)
    elif rules:
        say(rules_page(language), nl=False)
        return
    else:
        if stage is not None:
            _one_of("--stage", stage, _STAGES)
        fired = _judge_run(source, facts, stage=stage, language=language, as_json=as_json)
    lasting = [item.finding.severity for item in fired if item.lasting]
    failed = bool(lasting) if fail_on == Severity.WARNING else Severity.CRITICAL in lasting
    raise typer.Exit(int(fail_on != "never" and failed))


def _judge_run(
    source: str | None, facts: Path | None, *, stage: str | None, language: Language, as_json: bool
) -> Sequence[Fired]:
    """Judge a run's log and print what was found; returns the rules that fired."""
    from gad_ray.health import diagnose
    from gad_ray.health.facts import read_facts
    from gad_ray.health.reading import read_history
    from gad_ray.health.terminal import findings_to_json, print_diagnosis

    if source is None:
        raise ConfigError("nothing to diagnose was given", hint="give a run, a metrics file or a directory")
    told = None if facts is None else read_facts(facts)
    diagnosis = diagnose(read_history(source, facts=told, stage=stage), language=language)
    if as_json:
        say(json.dumps(findings_to_json(diagnosis.fired), ensure_ascii=False, indent=2))
    else:
        print_diagnosis(diagnosis)
    return diagnosis.fired


def _judge_critic(
    directory: Path, data: str, *, num_rows: int, language: Language, as_json: bool
) -> Sequence[Fired]:
    """Is this critic fit to be a reward, on one's own data? Prints what was found; returns the rules that fired."""
    from gad_ray.critics.store import open_value_head
    from gad_ray.evaluation.critic_check import check_critic, fitting_rows
    from gad_ray.health.critic import judge_critic
    from gad_ray.health.terminal import findings_to_json, print_critic_verdict
    from gad_ray.observability.jsonl import json_values

    found, num_unusable = _read(data)
    if not found:
        raise DataError(
            f"holds no usable row: {num_unusable} were refused",
            where=data,
            hint="give rows with content and teacher_response; gad-ray data report says what is wrong with each",
        )
    opened = open_value_head(directory)
    count = min(num_rows, len(found))
    chosen = [found[i * len(found) // count] for i in range(count)]
    fitting = fitting_rows(opened.model, chosen)
    if not fitting:
        raise DataError(
            f"no row is within the critic's limit of {opened.model.encoder.max_tokens} tokens",
            where=data,
            hint="give shorter rows, or a critic of a larger critic.max_tokens",
        )
    left_out = {"unusable": num_unusable, "too_long": len(chosen) - len(fitting)}
    figures = check_critic(opened, fitting)
    verdict = judge_critic(figures, language=language)
    if as_json:
        told = {
            "critic": str(directory),
            "data": data,
            "left_out": left_out,
            "figures": json_values(asdict(figures)),
            "findings": findings_to_json(verdict.fired),
            "verdict": verdict.verdict,
        }
        say(json.dumps(told, ensure_ascii=False, indent=2, allow_nan=False))
    else:
        print_critic_verdict(directory, data, figures, verdict, left_out, language)
    return verdict.fired


def _read(data: str) -> tuple[list[CheckedRow], int]:
    """The usable rows, and how many were not."""
    from gad_ray.data.layout import Layout
    from gad_ray.data.rows import Rejection
    from gad_ray.data.sources import resolve_sources
    from gad_ray.evaluation.critic_check import CheckedRow
    from gad_ray.quality.rows import read_sided_rows

    rows: list[CheckedRow] = []
    num_unusable = 0
    for source in resolve_sources([data]):
        for row in read_sided_rows(source, Layout()):
            if isinstance(row, Rejection):
                num_unusable += 1
            else:
                example = row.example
                rows.append(
                    CheckedRow(
                        messages=example.messages, teacher=example.teacher_response, student=row.student
                    )
                )
    return rows, num_unusable


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ConfigError(f"{option} {value}: no such choice", hint=f"one of: {', '.join(known)}")
    return value
