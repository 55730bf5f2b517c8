"""A critic that sees an end-of-turn token on one side only tells the sides apart by it, and by nothing else.

The broken rendering lives here alone: the library's encoder never scores an end-of-turn token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from examples.failures.bench import Bench, Samples, scores_of
from examples.failures.finding import Figure, Finding
from gad_ray.core.preference import preference
from gad_ray.learners.critic import CriticLearner
from gad_ray.models.pairs import Pair, PairEncoder, TokenRow

SAMPLED = "\ue000sampled"
"""Put at the end of a text, it says that the text is the student's as it was sampled."""


class AsymmetricEncoder(PairEncoder):
    """Renders a sampled response with its end-of-turn token inside the mask, and any other text without one."""

    def encode(self, pair: Pair) -> TokenRow:
        """Tokenise one pair, in one of two ways."""
        text = pair.response.removesuffix(SAMPLED)
        row = super().encode(Pair(pair.messages, text))
        if text == pair.response:
            return row
        return TokenRow(ids=np.append(row.ids, np.int32(self.chat.end_of_turn_id)), start=row.start)


def sampled(texts: Sequence[str]) -> tuple[str, ...]:
    """The texts, marked as the student's."""
    return tuple(text + SAMPLED for text in texts)


def break_rendering(critic: CriticLearner) -> None:
    """Let a critic read the two sides in two ways."""
    encoder = critic.model.encoder
    critic.model.encoder = AsymmetricEncoder(encoder.chat, max_tokens=encoder.max_tokens)


def reproduce(bench: Bench) -> Finding:
    """Train a critic on each rendering, and compare the teacher's answers with themselves."""
    # Made first: whoever is first to ask for it waits for its training.
    ours = bench.default_critic()
    broken = bench.new_critic()
    break_rendering(broken)
    marked = [
        Samples(one.prompts, replace(one.rollouts, texts=sampled(one.rollouts.texts))) for one in bench.warmup
    ]
    course = bench.train(broken, marked, what="a critic that sees the student's end-of-turn token")
    examples = bench.data.heldout
    texts = [example.teacher_response for example in examples]
    teacher = scores_of(broken, examples, texts)
    student = scores_of(broken, examples, sampled(texts))
    both = scores_of(ours, [*examples, *examples], [*texts, *texts])
    ours_difference = both[: len(texts)] - both[len(texts) :]
    d_acc = preference(teacher, student)
    exact = float(np.abs(ours_difference).max())
    return Finding(
        failure="eos-asymmetry",
        setting="end-of-turn token inside the student's mask",
        ours="end-of-turn token outside both masks",
        claim="d_acc ≥ 0.95 on identical answers; with our masking they differ by exactly 0.0",
        holds=d_acc >= 0.95 and exact == 0.0,
        figures=(
            Figure(
                label="d_acc on identical held-out answers",
                field=d_acc,
                ours=preference(both[: len(texts)], both[len(texts) :]),
            ),
            Figure(
                label="mean score difference of identical answers",
                field=float(np.mean(teacher - student)),
                ours=float(ours_difference.mean()),
            ),
            Figure(
                label="largest difference of identical answers",
                field=float(np.abs(teacher - student).max()),
                ours=exact,
            ),
            Figure(label="d_acc in training, last step", field=course[-1]["critic/d_acc"]),
        ),
        details={"d_acc_course": [row["critic/d_acc"] for row in course]},
    )
