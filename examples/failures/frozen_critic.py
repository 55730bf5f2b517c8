"""A critic that stands still is hacked: its reward rises while a critic that never saw the game is less and less taken in."""

from __future__ import annotations

from examples.failures.bench import Bench, Samples, Verdict
from examples.failures.finding import Figure, Finding
from examples.failures.games import Outcome, default_game
from gad_ray.evaluation.heldout import distinct_n


def fresh_verdict(bench: Bench, outcome: Outcome, *, what: str) -> Verdict:
    """How a critic that learned only from the teacher and this student judges the student's held-out answers."""
    fresh = bench.new_critic()
    bench.train(fresh, outcome.answers, what=f"a fresh critic on the student of the game {what}")
    return bench.judge(fresh, outcome.heldout)


def reproduce(bench: Bench) -> Finding:
    """Play the game with each kind of critic, and let fresh critics judge both students."""
    # A fresh critic for the student as it came is the warm-up's own.
    start = bench.judge(bench.default_critic(), bench.heldout)
    outcomes = (default_game(bench, critic_learns=False), default_game(bench, critic_learns=True))
    verdicts = (
        fresh_verdict(bench, outcomes[0], what="with the critic frozen"),
        fresh_verdict(bench, outcomes[1], what="with the critic learning"),
    )
    risen = outcomes[0].after.student > outcomes[0].before.student
    fallen = [verdict.score_diff > start.score_diff and verdict.auc >= start.auc for verdict in verdicts]
    return Finding(
        failure="frozen-critic",
        setting="critic frozen after the warm-up",
        ours="critic learns at every step",
        claim="with the critic frozen its reward rises while a fresh critic tells the student from the teacher more "
        "easily than before the game; with the critic learning a fresh one does not",
        holds=risen and fallen[0] and not fallen[1],
        figures=(
            *_figures(
                "the game's own critic: mean score of the student, before",
                *(o.before.student for o in outcomes),
            ),
            *_figures(
                "the game's own critic: mean score of the student, after",
                *(o.after.student for o in outcomes),
            ),
            *_figures(
                "fresh critic: score difference teacher − student, before", start.score_diff, start.score_diff
            ),
            *_figures(
                "fresh critic: score difference teacher − student, after", *(v.score_diff for v in verdicts)
            ),
            *_figures("fresh critic: d_acc, before", start.d_acc, start.d_acc),
            *_figures("fresh critic: d_acc, after", *(v.d_acc for v in verdicts)),
            *_figures("fresh critic: AUC over all pairs, before", start.auc, start.auc),
            *_figures("fresh critic: AUC over all pairs, after", *(v.auc for v in verdicts)),
            *_figures("response length after, tokens", *(_length(o.heldout) for o in outcomes)),
            *_figures("distinct-1 after", *(distinct_n(o.heldout.rollouts.texts, 1) for o in outcomes)),
            *_figures("teacher's text after, nats a token", *(o.teacher_nll for o in outcomes)),
        ),
        details={
            "reward_course_frozen": [row["critic/rewards/mean"] for row in outcomes[0].course],
            "reward_course_learning": [row["critic/rewards/mean"] for row in outcomes[1].course],
            "answers_frozen": list(outcomes[0].heldout.rollouts.texts),
            "answers_learning": list(outcomes[1].heldout.rollouts.texts),
            "answers_before": list(bench.heldout.rollouts.texts),
        },
    )


def _figures(label: str, field: float, ours: float) -> tuple[Figure]:
    return (Figure(label=label, field=field, ours=ours),)


def _length(samples: Samples) -> float:
    return float(samples.rollouts.text_lengths.mean())
