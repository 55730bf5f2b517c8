"""A step of the game and a GRPO step of TRL, by turns, with equal prompts, responses, precision and threads.

The game's step does strictly more: a critic is trained on all responses and the teacher's text, and engines get new weights.
"""

from __future__ import annotations

import json
import sys
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from gad_ray import machine
from gad_ray.activity import activity
from gad_ray.batch import Example
from gad_ray.bench.figures import spread, this_machine
from gad_ray.bench.process import exit_code
from gad_ray.bench.shape import Shape
from gad_ray.config import RunConfig, load_config
from gad_ray.config.rollout import ENGINES
from gad_ray.errors import ConfigError, GadError
from gad_ray.models.chat import configured_chat_format
from gad_ray.models.run_data import load_run_data
from gad_ray.models.source import default_cache_dir, resolve_model
from gad_ray.observability.files import write_text
from gad_ray.rollout.engine import choose_engine

TRL = "trl==1.16.0"
"""What is measured beside; other packages are those of this environment wherever they suffice."""

_PARTS = ("rollout", "score", "update_critic", "reward", "update_actor", "sync")
_NOT_COUNTED = 1
"""First steps of a process: memory is taken and kernels are chosen in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Steps of one process, the first left out.

    Attributes:
        seconds: Of each step.
        split: Part of a step → its median seconds.
        tokens: Prompt and response tokens of all rows of these steps.
    """

    seconds: tuple[float, ...]
    split: Mapping[str, float]
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBench:
    """The comparison.

    Attributes:
        recipe: Gives model, data and all settings that are not named here.
        overrides: ``key=value`` for the game.
        shape: Sizes of a step.
        precision: Of all models.
        steps: Steps of each process that count.
        rounds: Processes of each side; the order alternates.
        out: Directory of what is written.
        peer: Python of an environment with TRL; one is set up when None.
    """

    recipe: str
    overrides: tuple[str, ...]
    shape: Shape
    precision: Literal["float32", "bfloat16"]
    steps: int
    rounds: int
    out: Path
    peer: Path | None = None

    def run(self) -> dict[str, Any]:
        """Play and measure; the figures are also in ``step.json``.

        Raises:
            GadError: If one side fails, or the two did not compute the same tokens.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        peer = self.peer or peer_python(default_cache_dir().parent / "peers")
        config = load_config(self.recipe, self.overrides)
        task, engine = self._task(config), choose_engine(config.rollout)
        if engine not in ENGINES:
            raise ConfigError(
                f"responses of {engine!r} cannot be made equally long",
                where="rollout.engine",
                hint=f"take {' or '.join(ENGINES)}",
            )
        rounds: list[dict[str, Any]] = []
        versions: dict[str, str] = {}
        for number in range(self.rounds):
            sides: dict[str, Timed] = {}
            for side in ("game", "trl") if number % 2 == 0 else ("trl", "game"):
                with activity(f"round {number + 1} of {self.rounds}: {self.steps} steps by {side}"):
                    if side == "game":
                        sides[side] = self._play(number, engine=engine)
                    else:
                        sides[side], versions = self._train(peer, task, number)
            rounds.append(compared(sides["game"], sides["trl"]))
        ratios = [one["ratio"] for one in rounds]
        figures = {
            "machine": this_machine(),
            "versions": versions,
            "shape": str(self.shape),
            "precision": self.precision,
            "ratio": spread(ratios),
            "rounds": rounds,
        }
        write_text(self.out / "step.json", json.dumps(figures, indent=1) + "\n")
        return figures

    @property
    def _all_steps(self) -> int:
        return self.steps + _NOT_COUNTED

    @property
    def _rows(self) -> Path:
        return self.out / "rows.jsonl"

    def _task(self, config: RunConfig) -> dict[str, Any]:
        """What TRL is to do; the same rows are written for the game, in the same order."""
        count = self._all_steps * self.shape.prompts
        data = load_run_data(config, quarantine_path=self.out / "quarantine.jsonl", has_critic=True)
        if len(data.train) < count:
            raise ConfigError(
                f"{len(data.train)} prompts do not suffice for {self._all_steps} steps of {self.shape.prompts}",
                where="--steps",
                hint="take fewer steps, or a recipe with more data",
            )
        chosen = data.train[:count]
        write_text(
            self._rows,
            "".join(
                json.dumps(_row(example, i // self.shape.prompts)) + "\n" for i, example in enumerate(chosen)
            ),
        )
        model = config.policy.model
        directory = resolve_model(model.model)
        chat = configured_chat_format(directory, model)
        return {
            "model": str(directory),
            "prompts": [chat.prompt_text(example.messages) for example in chosen],
            "prompts_per_step": self.shape.prompts,
            "responses_per_prompt": self.shape.responses,
            "response_tokens": self.shape.tokens,
            "precision": self.precision,
            "temperature": config.rollout.temperature,
            "threads": machine.share_of_cores(1),
        }

    def _play(self, number: int, *, engine: str) -> Timed:
        name = f"game-{number}"
        settings = {
            "name": name,
            "output_dir": str(self.out / "runs"),
            "data.train": f"[{self._rows}]",
            "data.heldout": "[]",
            "data.heldout_prompts": 0,
            "data.curriculum": "{name: difficulty, column: difficulty}",
            "prompts_per_step": self.shape.prompts,
            "policy.model.compute": self.precision,
            "critic.model.compute": self.precision,
            "rollout.precision": self.precision,
            "rollout.engine": f"gad_ray.bench.step.forced:{engine}",
            "rollout.responses_per_prompt": self.shape.responses,
            "rollout.max_response_tokens": self.shape.tokens,
            # Every response ends at the limit; the critic is to learn from all of them.
            "critic.truncated": "keep",
            "stages.warmup.steps": 0,
            "stages.adversarial.steps": self._all_steps,
            "evaluation.every": 0,
            "checkpoint.every": 0,
            "checkpoint.at_end": "false",
        }
        arguments = [*self.overrides, *(f"{key}={value}" for key, value in settings.items())]
        _run([sys.executable, "-m", "gad_ray", "train", self.recipe, *arguments], self.out / f"{name}.log")
        lines = (self.out / "runs" / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        steps = [json.loads(line) for line in lines][_NOT_COUNTED:]
        rows = self.shape.prompts * self.shape.responses
        tokens = (step["prompt_length/mean"] + step["response_length/mean"] for step in steps)
        return Timed(
            seconds=tuple(step["timing_s/step"] for step in steps),
            split={part: median(step.get(f"timing_s/{part}", 0.0) for step in steps) for part in _PARTS},
            tokens=round(sum(tokens) * rows),
        )

    def _train(self, peer: Path, task: Mapping[str, Any], number: int) -> tuple[Timed, dict[str, str]]:
        given, found = self.out / "task.json", self.out / f"trl-{number}.json"
        write_text(given, json.dumps(task))
        script = Path(__file__).with_name("trl_peer.py")
        _run([str(peer), str(script), str(given), str(found)], self.out / f"trl-{number}.log")
        result: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
        steps = result["steps"][_NOT_COUNTED:]
        timed = Timed(
            seconds=tuple(step["seconds"] for step in steps),
            split={part: median(step[part] for step in steps) for part in ("rollout", "update")},
            tokens=round(sum(step["prompt_tokens"] + step["response_tokens"] for step in steps)),
        )
        return timed, result["versions"]


def compared(game: Timed, trl: Timed) -> dict[str, Any]:
    """Figures of a round.

    Raises:
        GadError: If the two did not compute the same tokens.
    """
    if game.tokens != trl.tokens:
        raise GadError(
            f"the game computed {game.tokens} tokens and TRL {trl.tokens}: they cannot be compared",
            hint="the recipe's chat template or its limits change the prompts",
        )
    return {
        "ratio": median(game.seconds) / median(trl.seconds),
        "game": asdict(game),
        "trl": asdict(trl),
    }


def peer_python(directory: Path) -> Path:
    """Python of an environment with TRL, which is set up there if it is not.

    Raises:
        GadError: If it cannot be set up.
    """
    home = directory / TRL.replace("==", "-")
    python = home / "bin" / "python"
    ready = home / "ready"
    if ready.exists():
        return python
    with activity(f"setting up {TRL} in {home}"):
        venv.create(home, with_pip=True, clear=True)
        (site,) = home.glob("lib/python*/site-packages")
        # What both need, as torch and transformers, is there once and in one version.
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        _run([str(python), "-m", "pip", "install", "--quiet", TRL], directory / "setup.log")
        ready.touch()
    return python


def _row(example: Example, step: int) -> dict[str, Any]:
    return {
        "id": example.id,
        "messages": [{"role": one.role, "content": one.content} for one in example.messages],
        "teacher_response": example.teacher_response,
        "difficulty": step,
    }


def _run(command: Sequence[str], log: Path) -> None:
    code = exit_code(command, log)
    if code != 0:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = said[-1] if said else "it said nothing"
        raise GadError(f"'{Path(command[0]).name} …' ended with {code}: {last}", hint=f"see {log}")


def table(figures: Mapping[str, Any]) -> list[list[str]]:
    """Rows of text, the head first: a round each, the splits last."""
    rows = [["round", "game, s a step", "TRL, s a step", "game / TRL"]]
    for number, one in enumerate(figures["rounds"], 1):
        game, trl = (median(one[side]["seconds"]) for side in ("game", "trl"))
        rows.append([str(number), f"{game:.2f}", f"{trl:.2f}", f"{one['ratio']:.2f}"])
    for side in ("game", "trl"):
        names = figures["rounds"][0][side]["split"]
        split = (
            f"{name} {median(one[side]['split'][name] for one in figures['rounds']):.2f}" for name in names
        )
        rows.append([side, ", ".join(split), "", ""])
    return rows
