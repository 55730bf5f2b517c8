"""What docs/extending shows works, from outside the package."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

from gad_ray.batch import PromptBatch, RolloutBatch
from gad_ray.config import load_config, to_yaml
from gad_ray.errors import ConfigError
from gad_ray.rewards.stage import RewardStage
from tests.unit.builders import prompt_batch, rollout_batch, score_batch
from tests.unit.learners.variants import NINE_SCORES

ROOT = Path(__file__).resolve().parents[2]
PATH = "examples.extending.median_advantage:MedianAdvantage"


@pytest.fixture
def prompts() -> PromptBatch:
    return prompt_batch(3)


@pytest.fixture
def rollouts(chat, prompts: PromptBatch) -> RolloutBatch:
    return rollout_batch(chat, prompts)


def test_an_advantage_from_outside_is_found_by_its_path_and_used(
    rollouts: RolloutBatch, prompts: PromptBatch, tmp_path: Path
) -> None:
    config = load_config("quickstart", [f"policy.advantage={{name: '{PATH}', scale: 2.0}}"])
    stage = RewardStage(config)
    scores = score_batch(NINE_SCORES)
    rewards = stage.rewards(rollouts, scores, stage.format(prompts, rollouts))
    groups = np.split(np.asarray(NINE_SCORES), 3)
    wanted = np.concatenate([(group - np.median(group)) / 2.0 for group in groups])
    np.testing.assert_allclose(stage.train_batch(prompts, rollouts, rewards).advantages, wanted, atol=1e-6)
    # A resumed run reads its settings from the file of the run.
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(str(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (f"{{name: '{PATH}', scale: 0}}", "greater than 0"),
        (f"{{name: '{PATH}', scael: 1.0}}", "scael"),
        ("{name: 'no.such:Thing'}", "cannot be imported"),
        ("{name: 'json:JSONDecoder'}", "is no GroupAdvantage"),
        ("{name: grop}", "no such variant"),
    ],
)
def test_settings_of_an_advantage_from_outside_are_checked(settings: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config("quickstart", [f"policy.advantage={settings}"])


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs" / "extending").glob("*.md")), ids=lambda page: page.stem
)
def test_what_a_page_shows_is_what_its_example_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (example,) = re.findall(r"\[(examples/extending/\w+\.py)\]", text)
    source = [line.strip() for line in (ROOT / example).read_text(encoding="utf-8").splitlines()]
    assert [line for line in map(str.strip, shown.splitlines()) if line and line not in source] == []


def test_the_readme_shows_the_step_as_it_is() -> None:
    shown = re.findall(
        r"```python\n(def step.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    source = (ROOT / "gad_ray" / "controller" / "controller.py").read_text(encoding="utf-8")
    start = source.index("    def step(self)")
    step = textwrap.dedent(source[start : source.index("    # -- parts of a step", start)])
    assert shown == [step.rstrip() + "\n"]
    assert len(step.splitlines()) <= 45
