"""What a changed final punctuation mark does to a score that is the last token's value, or the mean of all.

The field explains the noise of ``last`` by gradients that do not reach earlier tokens. They do, through attention:
:func:`earlier_share` measures it. What ``mean`` changes is that the last token's value is one of n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from examples.failures.bench import Bench, Verdict, scores_of
from examples.failures.finding import Figure, Finding
from gad_ray.batch import Example, Float32
from gad_ray.core.pooling import POOLINGS, LastPooling, TokenValues
from gad_ray.learners.critic import CriticLearner
from gad_ray.models.critic import CriticModel
from gad_ray.models.pairs import Pair

_SWAPPED = {".": "!", "!": ".", "?": "."}
_MAX_GRADIENT_ROWS = 8


def other_ending(text: str) -> str | None:
    """The text with another final punctuation mark; None if it does not end in ``.``, ``!`` or ``?``."""
    other = _SWAPPED.get(text[-1:])
    return None if other is None else text[:-1] + other


def without_middle_word(text: str) -> str | None:
    """The text without the word in its middle; None if it has fewer than five words."""
    words = text.split(" ")
    middle = len(words) // 2
    return None if len(words) < 5 else " ".join(words[:middle] + words[middle + 1 :])


def earlier_share(model: CriticModel, pair: Pair) -> float:
    """How much of a score's gradient goes to the response tokens before the last.

    Args:
        model: The critic.
        pair: A response of at least two tokens.

    Returns:
        Σ_{t < last} ‖∂s/∂e_t‖ / Σ_t ‖∂s/∂e_t‖ over the response, e_t being the token's input embedding.
    """
    row = model.encoder.encode(pair)
    backbone = cast(Any, model.backbone)
    ids = torch.from_numpy(row.ids.astype(np.int64))[None].to(model.device)
    embedded = backbone.get_input_embeddings()(ids).detach().requires_grad_()
    values = model.head(backbone(inputs_embeds=embedded, use_cache=False).last_hidden_state)
    mask = torch.arange(len(row), device=model.device)[None] >= row.start
    tokens = TokenValues(values=values, mask=mask, updates=model.updates)
    score = POOLINGS.of(model.pooling)(tokens, model.pooling)[0]
    (gradient,) = torch.autograd.grad(score, embedded)
    sizes = gradient[0, row.start :].float().norm(dim=-1)
    return float(sizes[:-1].sum() / sizes.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """[N] |Δ| of scores when answers change a little."""

    by_ending: Float32
    by_word: Float32
    identical: Float32


def moved(critic: CriticLearner, examples: Sequence[Example]) -> Moved:
    """Score the teacher's answers as they are, with another ending, with a word left out, and again."""
    ending = [(e, other) for e in examples if (other := other_ending(e.teacher_response)) is not None]
    word = [(e, other) for e in examples if (other := without_middle_word(e.teacher_response)) is not None]

    def gaps(changed: Sequence[tuple[Example, str]]) -> Float32:
        owners = [e for e, _ in changed]
        before = scores_of(critic, owners, [e.teacher_response for e in owners])
        return np.abs(scores_of(critic, owners, [text for _, text in changed]) - before)

    return Moved(
        by_ending=gaps(ending),
        by_word=gaps(word),
        identical=gaps([(e, e.teacher_response) for e in examples]),
    )


def reproduce(bench: Bench) -> Finding:
    """Train a critic of each pooling on the same samples, and change the ends of held-out answers."""
    mean = bench.default_critic()
    last = bench.new_critic(bench.config.critic.model_copy(update={"pooling": LastPooling()}))
    bench.train(last, bench.warmup, what="a critic with pooling last")
    examples = bench.data.heldout
    found = {name: moved(critic, examples) for name, critic in (("last", last), ("mean", mean))}
    judged = {name: bench.judge(critic, bench.heldout) for name, critic in (("last", last), ("mean", mean))}
    long = [Pair(e.messages, e.teacher_response) for e in examples if " " in e.teacher_response]
    reach = [
        float(np.mean([earlier_share(c.model, p) for p in long[:_MAX_GRADIENT_ROWS]])) for c in (last, mean)
    ]
    ratio = _relative(found["last"].by_ending, judged["last"]) / _relative(
        found["mean"].by_ending, judged["mean"]
    )
    accepted = bool(found["mean"].identical.max() == 0.0 and found["mean"].by_ending.max() < 0.3)
    return Finding(
        failure="last-pooling",
        setting="pooling last",
        ours="pooling mean",
        claim="a changed final punctuation mark moves the score of last by at least twice what it moves that of "
        "mean, relative to the scores' spread; with mean by less than 0.3",
        holds=ratio >= 2.0 and accepted,
        figures=(
            Figure(
                label="|Δ| by another final punctuation mark, mean",
                field=float(found["last"].by_ending.mean()),
                ours=float(found["mean"].by_ending.mean()),
            ),
            Figure(
                label="|Δ| by another final punctuation mark, largest",
                field=float(found["last"].by_ending.max()),
                ours=float(found["mean"].by_ending.max()),
            ),
            Figure(
                label="mean |Δ| / standard deviation of all scores",
                field=_relative(found["last"].by_ending, judged["last"]),
                ours=_relative(found["mean"].by_ending, judged["mean"]),
            ),
            Figure(
                label="|Δ| by a word left out, mean",
                field=float(found["last"].by_word.mean()),
                ours=float(found["mean"].by_word.mean()),
            ),
            Figure(
                label="|Δ| by a word left out, largest",
                field=float(found["last"].by_word.max()),
                ours=float(found["mean"].by_word.max()),
            ),
            Figure(
                label="|Δ| of identical answers, largest",
                field=float(found["last"].identical.max()),
                ours=float(found["mean"].identical.max()),
            ),
            Figure(label="held-out d_acc", field=judged["last"].d_acc, ours=judged["mean"].d_acc),
            Figure(label="share of the gradient on tokens before the last", field=reach[0], ours=reach[1]),
        ),
        details={"answers_with_another_ending": len(found["mean"].by_ending)},
    )


def _relative(gaps: Float32, verdict: Verdict) -> float:
    return float(gaps.mean()) / verdict.std
