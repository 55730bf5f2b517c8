"""What the command line does, from Python: ``from gad_ray import configure, train, evaluate, score, serve``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any

from gad_ray.config import RunConfig, load_config
from gad_ray.errors import ConfigError

if TYPE_CHECKING:
    from gad_ray.evaluation.reevaluate import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that has ended.

    Attributes:
        root: Its directory: configuration, metrics, checkpoints, exports, report.
        exit_code: 0 if it was played to its end, 130 after SIGINT, 143 after SIGTERM.
    """

    root: Path
    exit_code: int

    @property
    def is_finished(self) -> bool:
        """Whether it was played to its end."""
        return self.exit_code == 0

    @property
    def policy(self) -> Path:
        """The student as a Hugging Face directory, which transformers and vLLM load."""
        return self.root / "exports" / "policy"

    @property
    def critic(self) -> Path:
        """The critic as :func:`score` and :func:`serve` take it."""
        return self.root / "exports" / "critic"


def configure(recipe: str | Path, *overrides: str) -> RunConfig:
    """A checked configuration.

    Args:
        recipe: Name of a packaged recipe, or path of a YAML file.
        overrides: ``dotted.key=value``; the value is read as YAML.

    Raises:
        ConfigError: Naming file, key, value and what was probably meant.
    """
    for override in overrides:
        _check(override, str, what="override", hint="write each as 'dotted.key=value'")
    return load_config(str(recipe), overrides)


def train(config: RunConfig, *, resume: str | None = None) -> Run:
    """Play a run to its end, as ``gad-ray train`` does, or go on with an earlier one.

    Call it from the main thread: it takes over SIGINT and SIGTERM. It uses the cluster of ``RAY_ADDRESS``, or starts one.

    Args:
        config: The run.
        resume: None for a new run, ``auto`` for the newest run of the config's name, or a run's name or path.

    Raises:
        GadError: If anything needed cannot be used, or training cannot go on.
    """
    _check(config, RunConfig, what="configuration", hint="configure('quickstart') makes one")
    _check(resume, str | None, what="run to resume", hint="'auto', or a run's name or path")
    from gad_ray.controller.train import train as play
    from gad_ray.observability.run_dir import find_run, latest_run

    code = play(config, resume=resume)
    if resume in {None, "auto"}:
        directory = latest_run(config.output_dir, config.name)
        assert directory is not None
    else:
        directory = find_run(str(resume), config.output_dir)
    return Run(root=directory.root, exit_code=code)


def evaluate(target: str | Path, *, output_dir: str = "runs", step: int | None = None) -> Evaluation:
    """Obtain a run's evaluation once more, with intervals over prompts.

    Args:
        target: Name or path of a run, or path of one of its checkpoints or exported critics.
        output_dir: Where runs are looked for by name.
        step: The evaluation to repeat; the newest critic's where None.

    Raises:
        GadError: If there is no such critic, or its evaluation set cannot be read.
    """
    from gad_ray.evaluation.reevaluate import evaluate_again

    return evaluate_again(str(target), output_dir=output_dir, step=step)


def score(critic: str | Path, rows: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """Score responses with an exported critic; scores compare only within one prompt.

    Args:
        critic: Directory of an exported critic, or URL of an endpoint.
        rows: Mappings with ``content`` (or ``prompt``, ``messages``) and ``response`` (or ``teacher_response``).

    Returns:
        The rows, each with ``score`` and the ``fingerprint`` of the critic.

    Raises:
        DataError: If a row cannot be used.
        ModelError: If the directory holds no critic.
    """
    from gad_ray.evaluation.scoring import score_rows

    _check(critic, str | Path, what="critic", hint="give an exported critic's directory, or a URL")
    given = list(rows)
    for row in given:
        _check(row, Mapping, what="row", hint="give a list of mappings with content and response")
    return list(score_rows(critic, given))


def serve(
    critic: str | Path | None = None,
    *,
    follow: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    **settings: Any,
) -> int:
    """Serve a critic over HTTP until a signal ends it, as ``gad-ray serve`` does.

    Args:
        critic: Directory of a checkpoint or an exported critic.
        follow: Name or path of a run whose newest critic is served; either this or ``critic``.
        host: Address to listen on; other than loopback only with keys.
        port: Port to listen on.
        settings: Fields of :class:`gad_ray.serving.deployment.settings.ServeSettings`.

    Returns:
        The exit code of the command.

    Raises:
        GadError: If the critic cannot be served there.
    """
    from gad_ray.serving.deployment.serve_command import serve_critic

    place = None if critic is None else Path(critic)
    return serve_critic(place, follow, host=host, port=port, settings=settings)


def _check(given: object, kind: type | UnionType, *, what: str, hint: str) -> None:
    if not isinstance(given, kind):
        raise ConfigError(f"{given!r} is no {what}", hint=hint)
