"""The critic's values of single tokens, kept for a few responses out of the forward pass that scores them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from gad_ray.batch import Example, Float32, PromptBatch, RolloutBatch, TokenValues
from gad_ray.learners.critic_batch import Group
from gad_ray.models.chat import ChatFormat
from gad_ray.models.pairs import TokenRow


class ValueWatch:
    """Looks on while rows are scored, and keeps the values of those it was asked for. It computes nothing itself.

    Args:
        groups: The groups of fresh responses that are about to be scored.
        count: Responses to keep: one of every group, then a second, and so on.
    """

    def __init__(self, groups: Sequence[Group], *, count: int) -> None:
        places = sorted((k, g) for g, group in enumerate(groups) for k in range(len(group.students)))
        self._chosen = [(groups[g], k) for k, g in places[:count]]
        rows = [group.rows[i] for group, k in self._chosen for i in (group.teacher, group.students[k])]
        # A row is known by its identity: equal texts of other groups are other rows.
        self._wanted = {id(row) for row in rows}
        self._seen: dict[int, Float32] = {}

    def see(self, rows: Sequence[TokenRow], values: Float[Tensor, "batch seq"]) -> None:
        """Take the values of one forward pass; a row's first pass counts, which is the one before any update."""
        for i, row in enumerate(rows):
            if id(row) in self._wanted and id(row) not in self._seen:
                # A copy of the few numbers: the pass's own tensor is not held.
                scored = values[i, row.start : len(row)].detach().float().cpu().numpy()
                self._seen[id(row)] = np.array(scored, dtype=np.float32)

    def collected(
        self, prompts: PromptBatch, rollouts: RolloutBatch, chat: ChatFormat
    ) -> tuple[TokenValues, ...]:
        """What was kept, in the order of the responses.

        Args:
            prompts: The step's prompts.
            rollouts: Its responses.
            chat: Tells where in a text each token ends.
        """
        examples = {example.id: example for example in prompts.examples}
        kept = [self._of(group, k, examples, rollouts, chat) for group, k in self._chosen]
        return tuple(sorted(kept, key=lambda one: one.position))

    def _of(
        self, group: Group, k: int, examples: dict[str, Example], rollouts: RolloutBatch, chat: ChatFormat
    ) -> TokenValues:
        position = group.positions[k]
        teacher = examples[rollouts.example_ids[position]].teacher_response
        teacher_ends, student_ends = chat.response_ends(teacher), chat.response_ends(rollouts.texts[position])
        # An empty response is scored on the prompt's last token: none of its own has a value.
        return TokenValues(
            position=position,
            teacher=self._seen[id(group.rows[group.teacher])][: len(teacher_ends)],
            teacher_ends=np.asarray(teacher_ends, dtype=np.int32),
            student=self._seen[id(group.rows[group.students[k]])][: len(student_ends)],
            student_ends=np.asarray(student_ends, dtype=np.int32),
        )
