"""The policy learns from pairs: the teacher's text is chosen, the responses of a frozen student are rejected."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gad_ray.batch import Example, Float32, Metrics, RolloutBatch, TrainStats
from gad_ray.config.fit import SodaFit
from gad_ray.core.preference_loss import DpoStats, dpo_loss
from gad_ray.learners.collective import own_share, shared_out
from gad_ray.learners.policy import PolicyLearner
from gad_ray.models.chat import ChatFormat
from gad_ray.models.policy import SequenceRow, rows_of, teacher_row
from gad_ray.models.sequence_packing import plan_group_passes, plan_passes


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceGroup:
    """One prompt: the teacher's response is preferred to each of the student's.

    Attributes:
        chosen: The prompt with the teacher's response and the end of the turn.
        rejected: The prompt with each of the student's responses, as they were sampled.
    """

    chosen: SequenceRow
    rejected: tuple[SequenceRow, ...]

    @property
    def rows(self) -> tuple[SequenceRow, ...]:
        """The chosen row, then the rejected ones."""
        return (self.chosen, *self.rejected)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceLogprobs:
    """log π_ref (nats, summed over the response's tokens) of one group's rows, in their order."""

    values: Float32


def preference_groups(
    chat: ChatFormat, examples: Sequence[Example], responses: RolloutBatch
) -> dict[str, PreferenceGroup]:
    """Example id → its group, for the examples that the student has answered.

    A response cut at the token limit has no end of turn: that the teacher ends its turn is part of what is
    preferred.
    """
    rows = rows_of(responses)
    answers = {responses.example_ids[start]: tuple(rows[start:stop]) for start, stop in responses.groups()}
    return {
        example.id: PreferenceGroup(
            chosen=teacher_row(chat, example, end_of_turn=True), rejected=answers[example.id]
        )
        for example in examples
        if example.id in answers
    }


def reference_logprobs(
    learner: PolicyLearner, groups: Mapping[str, PreferenceGroup]
) -> dict[str, ReferenceLogprobs]:
    """What the policy, as it is, gives to every row; every rank computes its share and has all of the result."""
    rows = [row for group in groups.values() for row in group.rows]

    @torch.no_grad()
    def sums(share: Sequence[SequenceRow]) -> Float32:
        found = np.zeros(len(share), dtype=np.float32)
        budget = learner.config.pass_tokens
        for index in plan_passes(share, max_tokens=budget, packs=learner.model.packs):
            out = learner.model.token_logprobs([share[i] for i in index])
            found[index] = out.logprobs.sum(-1).cpu().numpy()
        return found

    values = shared_out(rows, learner.collective, sums)
    bounds = np.cumsum([len(group.rows) for group in groups.values()])[:-1]
    parts = np.split(values, bounds)
    return {name: ReferenceLogprobs(values=part) for name, part in zip(groups, parts, strict=True)}


def preference_step(
    learner: PolicyLearner,
    groups: Sequence[PreferenceGroup],
    references: Sequence[ReferenceLogprobs],
    config: SodaFit,
) -> TrainStats:
    """One optimiser step of DPO, with a share of cross-entropy on the chosen text if that is asked for.

    Args:
        learner: The policy; every rank gets all groups and trains on its share.
        groups: The step's groups, at least one.
        references: log π_ref of each group's rows.
        config: β, label smoothing and the cross-entropy's weight.

    Returns:
        The step's metrics over the whole batch, the same on every rank.
    """
    started = time.perf_counter()
    num_pairs = sum(len(group.rejected) for group in groups)
    num_tokens = sum(group.chosen.num_response_tokens for group in groups)
    own = own_share(list(zip(groups, references, strict=True)), learner.collective)
    sums, loss_value = torch.zeros(6, dtype=torch.float64), 0.0
    passes = plan_group_passes(
        [group.rows for group, _ in own],
        max_tokens=learner.config.pass_tokens,
        packs=learner.model.packs,
    )
    for index in passes:
        loss, stats, nll = _micro_batch(
            learner, [own[i] for i in index], config, num_pairs=num_pairs, num_tokens=num_tokens
        )
        learner.backend.backward(loss)
        loss_value += float(loss.detach())
        parts = (stats.loss, stats.chosen_reward, stats.rejected_reward, stats.margin, stats.accuracy, nll)
        sums += torch.stack([part.double().cpu() for part in parts])
    result = learner.backend.clip_and_step(loss_value)
    learner.collective.add_up([sums])
    learner.version += 1
    names = ("loss", "chosen_reward", "rejected_reward", "margin", "accuracy")
    metrics: Metrics = {f"dpo/{name}": float(value) for name, value in zip(names, sums, strict=False)}
    metrics |= {
        "dpo/pairs": float(num_pairs),
        "actor/ce_loss": float(sums[-1]),
        "actor/grad_norm": result.grad_norm,
        "actor/grad_norm_before_clip": result.grad_norm_before_clip,
        "actor/lr": result.lr,
    }
    seconds = time.perf_counter() - started
    tokens = sum(len(row) for group in groups for row in group.rows)
    return TrainStats(
        metrics={**metrics, "perf/train_tokens_per_s": tokens / seconds},
        num_steps=1 - result.skipped,
        num_skipped=int(result.skipped),
        seconds=seconds,
    )


def _micro_batch(
    learner: PolicyLearner,
    groups: Sequence[tuple[PreferenceGroup, ReferenceLogprobs]],
    config: SodaFit,
    *,
    num_pairs: int,
    num_tokens: int,
) -> tuple[Tensor, DpoStats, Tensor]:
    """Share of the loss, its figures, and share of the chosen text's mean cross-entropy (detached)."""
    out = learner.model.token_logprobs([row for group, _ in groups for row in group.rows])
    totals = out.logprobs.sum(-1)
    reference = torch.from_numpy(np.concatenate([part.values for _, part in groups])).to(totals.device)
    sizes = [len(group.rejected) for group, _ in groups]
    firsts = np.cumsum([0, *(n + 1 for n in sizes)])[:-1]
    # The chosen response of a group is in as many pairs as it has rejected ones; its row is computed once.
    chosen = torch.from_numpy(np.repeat(firsts, sizes)).to(totals.device)
    rejected = torch.from_numpy(
        np.concatenate([np.arange(1, n + 1) + first for n, first in zip(sizes, firsts, strict=True)])
    ).to(totals.device)
    loss, stats = dpo_loss(
        totals[chosen],
        rejected=totals[rejected],
        reference_chosen=reference[chosen],
        reference_rejected=reference[rejected],
        beta=config.beta,
        label_smoothing=config.label_smoothing,
        num_pairs=num_pairs,
    )
    nll = -totals[torch.from_numpy(firsts).to(totals.device)].sum() / num_tokens
    if config.nll_weight > 0.0:
        loss = loss + config.nll_weight * nll
    return loss, stats, nll.detach()
