"""Rank advantages, a small learning rate and a heavy penalty: the policy's greedy answers stay as they were."""

from __future__ import annotations

from collections.abc import Sequence

from examples.failures.bench import Bench
from examples.failures.finding import Figure, Finding
from examples.failures.games import Outcome, default_game, play
from examples.failures.settings import POLICY_LR, field_policy


def num_changed(before: Sequence[str], after: Sequence[str]) -> int:
    """Texts that are not what they were."""
    return sum(one != other for one, other in zip(before, after, strict=True))


def reproduce(bench: Bench) -> Finding:
    """Play the same steps with each policy's settings against the warm-up's critic, which stands still."""
    field = play(bench, critic_learns=False, what="as in the field", config=field_policy(bench.config.policy))
    ours = default_game(bench, critic_learns=False)
    before = bench.greedy.rollouts.texts
    changed = [num_changed(before, o.greedy.rollouts.texts) for o in (field, ours)]
    count = len(before)
    num_prompts = bench.game_steps * bench.config.prompts_per_step
    return Finding(
        failure="standing-still",
        setting="rank advantages, lr 5e-6, β 0.15",
        ours=f"grpo advantages, lr {POLICY_LR:g}, β {bench.config.policy.kl.coefficient:g}",
        claim=f"after one pass over {num_prompts} prompts none of {count} greedy held-out answers has changed in the "
        "field's setting, and most have with ours",
        holds=changed[0] == 0 and changed[1] > count / 2,
        figures=(
            Figure(
                label=f"greedy answers changed, of {count}", field=float(changed[0]), ours=float(changed[1])
            ),
            Figure(
                label="KL to the start, k3, last step",
                field=_last(field, "actor/kl_loss"),
                ours=_last(ours, "actor/kl_loss"),
            ),
            Figure(
                label="KL term's share of the gradient, last step",
                field=_last(field, "actor/kl_share"),
                ours=_last(ours, "actor/kl_share"),
            ),
            Figure(
                label="advantage std, last step",
                field=_last(field, "actor/adv_std"),
                ours=_last(ours, "actor/adv_std"),
            ),
            Figure(
                label="critic's mean score of the held-out answers, change",
                field=_gain(field),
                ours=_gain(ours),
            ),
        ),
    )


def _last(outcome: Outcome, name: str) -> float:
    return outcome.course[-1][name]


def _gain(outcome: Outcome) -> float:
    return outcome.after.student - outcome.before.student
