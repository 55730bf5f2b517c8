"""Several runs' policies on the same prompts, with the same settings, by the same measures."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gad_ray.activity import activity
from gad_ray.batch import Example, PromptBatch
from gad_ray.config import RunConfig, load_config
from gad_ray.critics import Critic
from gad_ray.critics.store import open_critic
from gad_ray.data.collect_settings import CollectSettings
from gad_ray.errors import ConfigError
from gad_ray.evaluation.paired import PairedVerdict, paired_verdict
from gad_ray.evaluation.pairwise import Contest, hold_contest
from gad_ray.evaluation.policy_eval import Judgement, judge_apart
from gad_ray.evaluation.scoring import score_texts
from gad_ray.models.run_data import load_run_data
from gad_ray.observability.run_dir import RunDirectory, find_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs side by side.

    Attributes:
        policies: Name → what was measured of it; ``base`` is the model that the first run began with.
        contests: Pairwise verdicts of a judge, where one was named.
        verdicts: Name → what the critic that was named makes of its answers, against the teacher's.
    """

    policies: Mapping[str, Judgement]
    contests: tuple[Contest, ...]
    verdicts: Mapping[str, PairedVerdict] = field(default_factory=dict[str, PairedVerdict])


def compare_runs(
    targets: Sequence[str],
    *,
    output_dir: str,
    out: Path,
    prompts: Path | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    judge: CollectSettings | None = None,
    critic: str | Path | None = None,
) -> Comparison:
    """Answer the same prompts with every run's exported policy, and judge the answers by the same measures.

    Data, sampling and the critic that is trained anew are the first run's.

    Args:
        targets: Names or paths of runs.
        output_dir: Where runs are looked for by name.
        out: Directory for what is written.
        prompts: File of prompts with a teacher's answers; the first run's held-out prompts where None.
        overrides: ``key=value`` for the first run's settings.
        seed: Of the samples and of the fresh critics.
        judge: Endpoint to ask for pairwise verdicts; ``input`` and ``output`` are set here.
        critic: Any critic that is to score the answers too: an export, a checkpoint, or the URL of an endpoint.

    Raises:
        GadError: If a run, its policy, the prompts or the critic cannot be used.
    """
    scorer = None if critic is None else open_critic(critic)
    runs = [find_run(target, output_dir) for target in targets]
    names = _names(runs)
    held = [] if prompts is None else [f"data.heldout={json.dumps([str(prompts)])}"]
    config = load_config(str(runs[0].config_yaml), [*overrides, *held])
    models = {"base": config.policy.model.model}
    models |= {name: _policy_of(run) for name, run in zip(names, runs, strict=True)}
    out.mkdir(parents=True, exist_ok=True)
    judged: dict[str, Judgement] = {}
    for number, (name, model) in enumerate(models.items(), start=1):
        with activity(
            f"measuring policy {number} of {len(models)}, {name}: its answers, and a fresh critic's verdict"
        ):
            judged[name] = judge_apart(_with_policy(config, model), seed=seed, scratch=out)
    if judge is None and scorer is None:
        return Comparison(policies=judged, contests=())
    examples = {
        example.id: example
        for example in load_run_data(config, quarantine_path=out / "quarantine.jsonl").heldout
    }
    verdicts: dict[str, PairedVerdict] = {}
    if scorer is not None:
        with activity(f"scoring the answers with the critic {scorer.where}"):
            verdicts = _verdicts(scorer, judged, tuple(examples.values()), seed=seed)
    contests: list[Contest] = []
    if judge is not None:
        for first, second in itertools.combinations(judged, 2):
            sides = (judged[first].answers, judged[second].answers)
            with activity(f"asking {judge.model} whether {first} or {second} answers better"):
                contests.append(hold_contest((first, second), sides, examples, judge=judge, out=out))
    return Comparison(policies=judged, contests=tuple(contests), verdicts=verdicts)


def _verdicts(
    critic: Critic, judged: Mapping[str, Judgement], examples: tuple[Example, ...], *, seed: int
) -> dict[str, PairedVerdict]:
    """All answers are scored in one call: each teacher's text counts once, and is the same for all policies."""
    answers = [list(one.answers.items()) for one in judged.values()]
    scored = score_texts(critic, PromptBatch(step=0, examples=examples), answers)
    return {
        name: paired_verdict(scores.teacher, scores.student, seed=seed)
        for name, scores in zip(judged, scored, strict=True)
    }


def _names(runs: Sequence[RunDirectory]) -> list[str]:
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1 or name == "base"), None)
    if twice is not None:
        raise ConfigError(
            f"two of the policies are called '{twice}'", hint="rename a run's directory, or leave one out"
        )
    return names


def _policy_of(run: RunDirectory) -> str:
    exported = run.exports / "policy"
    if not exported.is_dir():
        raise ConfigError(
            f"the run {run.name} has exported no policy: there is no {exported}",
            hint="let it end: gad-ray train … --resume auto",
        )
    return str(exported.resolve())


def _with_policy(config: RunConfig, model: str) -> RunConfig:
    settings = config.policy.model.model_copy(update={"model": model})
    return config.model_copy(update={"policy": config.policy.model_copy(update={"model": settings})})
