"""Short games in one process, and what came of them."""

from __future__ import annotations

from dataclasses import dataclass

from examples.failures.bench import Bench, Samples, Verdict
from gad_ray.batch import Metrics
from gad_ray.config.policy import PolicyConfig
from gad_ray.learners.critic import CriticLearner
from gad_ray.learners.policy import PolicyLearner


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The student at the end of a game.

    Attributes:
        course: Metrics of the policy's updates, with the mean reward of their samples.
        before: How the game's critic judged the held-out answers of the policy as it came.
        after: How the same critic, as it now is, judges those of the policy as it now is.
        heldout: One answer to every held-out prompt, sampled as in training.
        greedy: The same, greedy.
        answers: Responses to the warm-up's prompts, for a fresh critic to learn from.
        teacher_nll: Mean negative log-likelihood (nats a token) of the teacher's held-out answers.
    """

    course: tuple[Metrics, ...]
    before: Verdict
    after: Verdict
    heldout: Samples
    greedy: Samples
    answers: tuple[Samples, ...]
    teacher_nll: float


def default_game(bench: Bench, *, critic_learns: bool) -> Outcome:
    """The game with our policy's defaults; played once for each kind of critic."""
    what = f"with the critic {'learning' if critic_learns else 'frozen'}"
    return bench.once(what, lambda: play(bench, critic_learns=critic_learns, what=what))


def play(bench: Bench, *, critic_learns: bool, what: str, config: PolicyConfig | None = None) -> Outcome:
    """Play a game from the end of the warm-up.

    Args:
        bench: The workplace.
        critic_learns: Whether the critic goes on learning; otherwise it stays as the warm-up left it.
        what: Which game this is, for whoever waits.
        config: The policy's settings; the bench's when None.
    """
    critic, policy = bench.default_critic(), bench.new_policy(config)
    bench.load_engine(policy)
    before = bench.judge(critic, bench.heldout)
    bench.tell(f"playing {bench.game_steps} steps {what}")
    course = tuple(
        _step(bench, policy, critic, step, critic_learns=critic_learns)
        for step in range(bench.warmup_steps + 1, bench.warmup_steps + bench.game_steps + 1)
    )
    heldout = bench.answer_heldout()
    return Outcome(
        course=course,
        before=before,
        after=bench.judge(critic, heldout),
        heldout=heldout,
        greedy=bench.answer_heldout(greedy=True),
        answers=bench.answers(bench.warmup_steps),
        teacher_nll=float(policy.teacher_nll(bench.data.heldout).mean()),
    )


def _step(
    bench: Bench, policy: PolicyLearner, critic: CriticLearner, step: int, *, critic_learns: bool
) -> Metrics:
    (prompts,) = bench.prompts(1, first_step=step)
    samples = bench.sample(prompts)
    if critic_learns:
        scores, _ = critic.score_and_update(samples.prompts, samples.rollouts)
    else:
        scores = critic.score_batch(samples.prompts, samples.rollouts)
    metrics = dict(policy.update(bench.train_batch(samples, scores)).metrics)
    bench.load_engine(policy)
    # The reward is the score alone: there are no format terms here.
    return {**metrics, "critic/rewards/mean": float(scores.student.mean())}
