from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gad_ray.config import RunConfig
from gad_ray.config.load import validate
from gad_ray.errors import ConfigError
from gad_ray.health import HealthMonitor
from gad_ray.health.answers import Answers, Change

TAU = "critic.loss.temperature.value"
UPDATES = "critic.updates_per_step"
KL = "policy.kl.coefficient"


def game(
    *,
    tau: Any = 2.0,
    updates: int = 1,
    kl: dict[str, Any] | None = None,
    adaptive: dict[str, Any] | None = None,
) -> RunConfig:
    temperature = tau if isinstance(tau, dict) else {"name": "fixed", "value": tau}
    return validate(
        {
            "name": "game",
            "prompts_per_step": 4,
            "data": {"train": ["rows.jsonl"]},
            "policy": {"model": {"model": "student"}, "kl": kl or {}},
            "critic": {
                "model": {"model": "critic"},
                "loss": {"temperature": temperature},
                "updates_per_step": updates,
            },
            "rollout": {"responses_per_prompt": 2},
            "stages": {"warmup": {"steps": 2}, "adversarial": {"steps": 3}},
            "health": {"adaptive": {} if adaptive is None else adaptive},
        },
        where="test",
    )


def play(answers: Answers, *steps: Sequence[str], first: int = 1) -> list[Change]:
    """What changes when these rules hold, step by step."""
    changes: list[Change] = []
    for step, held in enumerate(steps, start=first):
        changes += answers.observe(step=step, held=held)
    return changes


def said(changes: Sequence[Change]) -> list[tuple[int, str, float, float]]:
    return [(c.step, "undone" if c.undone else "applied", c.before, c.after) for c in changes]


OVERCONFIDENT, BLIND, HACKED = ["critic-overconfident"], ["critic-blind"], ["reward-hacking"]


def test_a_rule_changes_its_setting_when_it_begins_to_hold() -> None:
    answers = Answers(game())
    assert play(answers, [], OVERCONFIDENT) == [
        Change(step=2, rules=("critic-overconfident",), key=TAU, before=2.0, after=5.0, undone=False)
    ]
    assert answers.config.value_at(TAU) == 5.0
    assert len(answers) == 1


def test_nothing_else_of_the_settings_changes() -> None:
    answers = Answers(game())
    play(answers, OVERCONFIDENT)
    changed, own = answers.config.model_dump(), game().model_dump()
    changed["critic"]["loss"]["temperature"]["value"] = 2.0
    assert changed == own


def test_a_rule_that_goes_on_changes_further_only_when_the_last_change_has_had_its_time() -> None:
    answers = Answers(game(adaptive={"patience_steps": 7}))
    assert said(play(answers, *[OVERCONFIDENT] * 16)) == [
        (1, "applied", 2.0, 5.0),
        (8, "applied", 5.0, 7.0),
        (15, "applied", 7.0, 10.0),
    ]


def test_patience_is_never_shorter_than_the_window_of_the_rule() -> None:
    answers = Answers(game(adaptive={"patience_steps": 1}))
    # critic-overconfident looks at the mean of five steps, reward-hacking at the course of twenty.
    assert [c.step for c in play(answers, *[OVERCONFIDENT] * 7)] == [1, 6]
    answers = Answers(game(adaptive={"patience_steps": 1}))
    assert [c.step for c in play(answers, *[HACKED] * 22)] == [1, 21]


def test_an_epoch_long_rule_waits_for_an_epoch() -> None:
    answers = Answers(game(kl={"coefficient": 0.15}), steps_per_epoch=30)
    assert [c.step for c in play(answers, *[["policy-stands-still"]] * 32)] == [1, 31]


def test_changes_end_at_their_bounds() -> None:
    answers = Answers(game(adaptive={"temperature": {"lo": 1.0, "hi": 4.0}, "patience_steps": 1}))
    assert said(play(answers, *[OVERCONFIDENT] * 30)) == [(1, "applied", 2.0, 4.0)]
    answers = Answers(game(adaptive={"updates_per_step": {"lo": 1, "hi": 3}, "patience_steps": 1}))
    assert said(play(answers, *[HACKED] * 60)) == [(1, "applied", 1, 2), (21, "applied", 2, 3)]


def test_a_change_is_undone_when_its_cause_has_been_gone_long_enough() -> None:
    answers = Answers(game(adaptive={"calm_steps": 3}))
    changes = play(answers, OVERCONFIDENT, [], [], OVERCONFIDENT, [], [], [], [])
    assert said(changes) == [(1, "applied", 2.0, 5.0), (7, "undone", 5.0, 2.0)]
    assert changes[-1].rules == ("critic-overconfident",)
    assert answers.config == game(adaptive={"calm_steps": 3})
    assert len(answers) == 0


def test_it_is_not_undone_while_another_rule_asks_for_the_same() -> None:
    answers = Answers(game(adaptive={"calm_steps": 2, "patience_steps": 50}))
    both = ["critic-overconfident", "loss-saturated"]
    changes = play(answers, both, *[["loss-saturated"]] * 5, [], [])
    assert said(changes) == [(1, "applied", 2.0, 5.0), (8, "undone", 5.0, 2.0)]
    assert changes[-1].rules == ("critic-overconfident", "loss-saturated")


def test_a_rule_that_asks_for_the_opposite_first_undoes_a_change_whose_cause_is_gone() -> None:
    answers = Answers(game())
    assert said(play(answers, OVERCONFIDENT, BLIND, BLIND)) == [
        (1, "applied", 2.0, 5.0),
        (2, "undone", 5.0, 2.0),
        (3, "applied", 2.0, 1.2),
    ]


def test_rules_that_ask_for_opposites_at_once_do_not_pull_to_and_fro() -> None:
    answers = Answers(game(adaptive={"patience_steps": 1, "temperature": {"hi": 5.0}}))
    assert said(play(answers, *[[*OVERCONFIDENT, *BLIND]] * 20)) == [(1, "applied", 2.0, 5.0)]


def test_advice_that_cannot_be_followed_while_a_run_goes_is_left_alone() -> None:
    # Its learning rate, batch normalisation, data: no rule but one about τ, updates or KL changes anything.
    answers = Answers(game())
    assert play(answers, ["gradient-explosion", "scores-indistinct", "no-spread-in-groups", "stalled"]) == []


def test_a_rule_whose_first_advice_does_not_apply_here_takes_the_next() -> None:
    answers = Answers(game(kl={"coefficient": 0.1}))
    # policy-stands-still would rather have a higher learning rate.
    assert said(play(answers, ["policy-stands-still"])) == [(1, "applied", 0.1, 0.05)]


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (game(tau={"name": "adaptive", "preset": "sharp"}), "critic-overconfident"),
        (game(kl={"coefficient": 0.0}), "length-collapse"),
        (game(kl={"coefficient": 0.1, "adaptive": {"target": 0.1}}), "kl-drowns-the-loss"),
        (game(adaptive={"temperature": None}), "critic-overconfident"),
        (game(adaptive={"updates_per_step": None}), "reward-hacking"),
        (game(kl={"coefficient": 0.1}, adaptive={"kl_coefficient": None}), "kl-drowns-the-loss"),
    ],
    ids=["tau-adapts-itself", "no-kl", "kl-adapts-itself", "no-tau", "no-updates", "kl-left-alone"],
)
def test_what_answers_may_not_move_stays(config: RunConfig, rule: str) -> None:
    answers = Answers(config)
    assert play(answers, *[[rule]] * 30) == []
    assert answers.config == config


def test_a_resumed_run_goes_on_with_what_was_in_force() -> None:
    settings = {"patience_steps": 4, "calm_steps": 3}
    rules = [OVERCONFIDENT, HACKED, [], HACKED, OVERCONFIDENT, *[[]] * 6]
    unbroken = Answers(game(adaptive=settings))
    whole = play(unbroken, *rules)
    for cut in range(1, len(rules)):
        begun = Answers(game(adaptive=settings))
        before = play(begun, *rules[:cut])
        resumed = Answers(game(adaptive=settings))
        resumed.load_state(begun.state())
        assert resumed.config == begun.config
        assert before + play(resumed, *rules[cut:], first=cut + 1) == whole


def test_what_a_resumed_run_may_no_longer_move_is_the_runs_own_again() -> None:
    begun = Answers(game())
    play(begun, [*OVERCONFIDENT, *HACKED])
    resumed = Answers(game(adaptive={"temperature": None}))
    resumed.load_state(begun.state())
    assert resumed.config.value_at(TAU) == 2.0
    assert resumed.config.value_at(UPDATES) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tau": 12.0}, ["critic.loss.temperature.value = 12", "1 to 10", "health.adaptive.temperature"]),
        ({"updates": 8}, ["critic.updates_per_step = 8", "1 to 4", "health.adaptive.updates_per_step"]),
        ({"kl": {"coefficient": 1.0}}, ["policy.kl.coefficient = 1", "health.adaptive.kl_coefficient"]),
        ({"adaptive": {"temperature": {"lo": 5.0, "hi": 1.0}}}, ["temperature.lo 5", "temperature.hi 1"]),
    ],
    ids=["tau", "updates", "kl", "swapped"],
)
def test_bounds_that_leave_out_where_the_run_starts_are_refused(
    settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        game(**settings)
    for word in words:
        assert word in str(refused.value)


def test_a_monitor_judges_and_advises_from_the_settings_in_force() -> None:
    config = game()
    monitor = HealthMonitor(config)
    far = {"critic/score_diff": 6.0, "critic/d_acc": 0.99}
    found = [f for step in range(1, 6) for f in monitor.observe(step=step, stage="warmup", metrics=far)]
    overconfident = next(f for f in found if f.rule == "critic-overconfident")
    assert f"{TAU}=5.0" in overconfident.overrides
    answers = Answers(config)
    play(answers, OVERCONFIDENT)
    monitor.take_settings(answers.config)
    monitor.observe(step=6, stage="warmup", metrics=far)
    held = next(f for f in monitor.held if f.rule == "critic-overconfident")
    assert f"{TAU}=7.0" in held.overrides
