"""What docs/extending shows works, from outside the package."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.extending.hinge_loss import HingeLoss
from examples.extending.positive_loss import PositiveLoss
from examples.extending.sgd_backend import SgdBackendSettings
from examples.extending.worst_pooling import WorstPooling
from gad_ray.batch import PromptBatch, RolloutBatch
from gad_ray.config import OptimizerConfig, RolloutConfig, load_config, to_yaml
from gad_ray.core.discriminator import DISCRIMINATORS, PairScores
from gad_ray.core.policy_loss import POLICY_LOSSES, LossBatch
from gad_ray.core.pooling import POOLINGS, TokenValues
from gad_ray.errors import ConfigError, RolloutError
from gad_ray.models.policy import SequenceRow
from gad_ray.rewards.stage import RewardStage
from gad_ray.rollout.engine import Generation, GenerationRequest, open_engine
from gad_ray.rollout.worker import engine_setup, probe_row
from tests.unit.builders import (
    figures_of,
    gradients_of,
    policy_config,
    policy_learner,
    prompt_batch,
    rollout_batch,
    sampling,
    score_batch,
    weights_of,
)
from tests.unit.learners.variants import NINE_SCORES

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = "examples.extending"
PATH = f"{OUTSIDE}.median_advantage:MedianAdvantage"


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
    ("key", "settings", "told"),
    [
        ("policy.advantage", f"{{name: '{PATH}', scale: 0}}", "greater than 0"),
        ("policy.advantage", f"{{name: '{PATH}', scael: 1.0}}", "scael"),
        ("policy.advantage", "{name: 'no.such:Thing'}", "cannot be imported"),
        ("policy.advantage", "{name: 'json:JSONDecoder'}", "is no GroupAdvantage"),
        ("policy.advantage", "{name: grop}", "no such variant"),
        ("policy.loss", f"{{name: '{OUTSIDE}.hinge_loss:HingeLoss'}}", "is no PolicyLoss"),
        ("critic.loss", f"{{name: '{OUTSIDE}.hinge_loss:HingeLoss', margin: -1.0}}", "greater than 0"),
        (
            "critic.pooling",
            f"{{name: '{OUTSIDE}.worst_pooling:WorstPooling', count: 0}}",
            "greater than or equal",
        ),
        ("critic.frozen", "{name: exporte}", "no such variant. Did you mean 'exported'"),
        ("critic.frozen", "{name: remote, url: 'ftp://x'}", "pattern"),
        (
            "policy.backend",
            f"{{name: '{OUTSIDE}.sgd_backend:SgdBackendSettings', momentum: 1.0}}",
            "less than 1",
        ),
        ("policy.backend", "{name: loca}", "no such variant. Did you mean 'local'"),
        ("rollout.engine", "vlm", "no such engine; take auto, vllm, transformers"),
    ],
)
def test_settings_of_what_comes_from_outside_are_checked(key: str, settings: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        load_config("quickstart", [f"{key}={settings}"])


def test_a_positive_loss_weighs_what_was_better_and_nothing_else() -> None:
    logprobs = torch.log(torch.tensor([[0.5, 0.25], [0.2, 0.9]])).requires_grad_()
    batch = LossBatch(
        old_logprobs=logprobs.detach(),
        advantages=torch.tensor([2.0, -3.0]),
        mask=torch.tensor([[True, True], [True, False]]),
        weights=None,
        num_sequences=2,
        num_tokens=3,
    )
    loss, _ = POLICY_LOSSES.of(PositiveLoss())(logprobs, batch, PositiveLoss())
    # −2 · (log 0.5 + log 0.25) over 3 tokens.
    assert float(loss.detach()) == pytest.approx(1.3862944, abs=1e-6)
    loss.backward()
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-2 / 3, -2 / 3], [0.0, 0.0]]))


def test_a_hinge_costs_what_is_missing_to_its_margin() -> None:
    scores = PairScores(
        teacher=torch.tensor([1.0, 0.0]),
        student=torch.tensor([0.8, -4.0, 1.0]),
        group=torch.tensor([0, 0, 1]),
        temperature=2.0,
        num_prompts=2,
        num_responses=4,
    )
    loss, stats = DISCRIMINATORS.of(HingeLoss())(scores, HingeLoss())
    # Differences 0.2, 5 and −1 by τ = 2: 0.9 + 0 + 1.5 are missing to 1, over the batch's four responses.
    assert float(loss) == pytest.approx(0.6)
    assert float(stats.rank) == pytest.approx(0.6)


def test_the_worst_pooling_takes_the_lowest_values_of_the_response() -> None:
    tokens = TokenValues(
        values=torch.tensor([[-9.0, 3.0, 1.0, 2.0], [5.0, 7.0, float("nan"), 4.0]]),
        mask=torch.tensor([[False, True, True, True], [False, True, False, False]]),
        updates=0,
    )
    settings = WorstPooling(count=2)
    assert POOLINGS.of(settings)(tokens, settings).tolist() == [1.5, 7.0]


def test_a_backend_from_outside_steps_as_its_optimiser_would_and_goes_on_to_the_bit(
    tied_model: Path, prompts: PromptBatch
) -> None:
    config = policy_config(
        tied_model, backend=SgdBackendSettings(momentum=0.9), optimizer=OptimizerConfig(lr=0.5, grad_clip=1e9)
    )
    learner, same = policy_learner(config), policy_learner(config)
    before = weights_of(learner)
    (gradient,) = [gradients_of(same, lambda: same.fit(prompts))]
    learner.fit(prompts)
    for name, weight in weights_of(learner).items():
        torch.testing.assert_close(weight, before[name] - 0.5 * gradient[name])
    same.load_state(*learner.state())
    assert figures_of(same.fit(prompts).metrics) == figures_of(learner.fit(prompts).metrics)


def test_an_engine_from_outside_gives_the_probabilities_that_it_drew_with(tied_model: Path, chat) -> None:
    config = RolloutConfig(
        engine=f"{OUTSIDE}.generate_engine:open_engine", precision="float32", batch_sequences=8
    )
    theirs = open_engine(engine_setup(tied_model, config, chat, max_prompt_tokens=100, seed=0))
    ours = open_engine(
        engine_setup(
            tied_model,
            config.model_copy(update={"engine": "transformers"}),
            chat,
            max_prompt_tokens=100,
            seed=0,
        )
    )
    row = probe_row(chat)
    np.testing.assert_allclose(theirs.probe(row), ours.probe(row), atol=1e-4)
    request = GenerationRequest(prompt_ids=tuple(row.ids[: row.start].tolist()), seed=5)
    (drawn,) = theirs.generate([request], sampling(temperature=1.0))
    assert isinstance(drawn, Generation)
    ids = np.asarray([*request.prompt_ids, *drawn.token_ids], dtype=np.int32)
    given = ours.probe(SequenceRow(ids=ids, start=len(request.prompt_ids)))
    np.testing.assert_allclose(drawn.logprobs, given, atol=1e-4)
    assert theirs.generate([request], sampling(temperature=1.0)) != theirs.generate(
        [GenerationRequest(prompt_ids=request.prompt_ids, seed=6)], sampling(temperature=1.0)
    )


def test_an_engine_that_cannot_be_imported_is_named(tied_model: Path, chat) -> None:
    config = RolloutConfig(engine="no.such:engine", precision="float32")
    with pytest.raises(RolloutError, match=r"no\.such:engine cannot be imported"):
        open_engine(engine_setup(tied_model, config, chat, max_prompt_tokens=100, seed=0))


@pytest.mark.parametrize(
    "page",
    sorted(page for page in (ROOT / "docs" / "extending").glob("*.md") if page.stem != "README"),
    ids=lambda page: page.stem,
)
def test_what_a_page_shows_is_what_its_example_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (example,) = re.findall(r"\[(examples/extending/\w+\.py)\]", text)
    source = [line.strip() for line in (ROOT / example).read_text(encoding="utf-8").splitlines()]
    assert [line for line in map(str.strip, shown.splitlines()) if line and line not in source] == []
    assert page.name in (page.parent / "README.md").read_text(encoding="utf-8")


def test_the_readme_shows_the_step_as_it_is() -> None:
    shown = re.findall(
        r"```python\n(def step.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    source = (ROOT / "gad_ray" / "controller" / "controller.py").read_text(encoding="utf-8")
    start = source.index("    def step(self)")
    step = textwrap.dedent(source[start : source.index("    # -- parts of a step", start)])
    assert shown == [step.rstrip() + "\n"]
    assert len(step.splitlines()) <= 45
