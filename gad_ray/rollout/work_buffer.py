"""What is under way between the prompts and the step that trains on them: a slot for every group, with a state.

::

    drawn ─► asked ─┬─► answered ─► taken by its step
                    └─► failed ───► left out of its step

A step's slots are opened when its prompts are drawn, and only once the step ``max_staleness + 1`` before it has been taken.
So no policy can have moved on further than ``max_staleness`` versions when a group is trained on: there is no place where an
older one could wait. Within that bound, groups of several versions may stand in one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from gad_ray.errors import TrainingError


class SlotState(Enum):
    """How far a group has come."""

    DRAWN = "drawn"
    ASKED = "asked"
    ANSWERED = "answered"
    FAILED = "failed"


_MAY_FOLLOW = {
    SlotState.DRAWN: {SlotState.ASKED},
    SlotState.ASKED: {SlotState.ANSWERED, SlotState.FAILED},
    SlotState.ANSWERED: set[SlotState](),
    SlotState.FAILED: {SlotState.ASKED},
}


@dataclass(slots=True)
class Slot:
    """One group: a prompt, and the responses to it once they are there.

    Attributes:
        step: The step that trains on it.
        row: Place of the prompt in the training data.
        example_id: The prompt's id.
        state: How far it has come.
        policy_version: Oldest version that drew one of its responses; None before they are there.
    """

    step: int
    row: int
    example_id: str
    state: SlotState = SlotState.DRAWN
    policy_version: int | None = None

    def move(self, state: SlotState) -> None:
        """Go on to a state.

        Raises:
            ValueError: If it does not follow on the present one.
        """
        if state not in _MAY_FOLLOW[self.state]:
            raise ValueError(
                f"{self.example_id} of step {self.step} is {self.state.value}, not to be {state.value}"
            )
        self.state = state


class WorkBuffer:
    """The slots of the steps that are under way.

    Args:
        max_staleness: Versions that a group may be older than the policy that is trained on it.
    """

    def __init__(self, *, max_staleness: int) -> None:
        self._max_staleness = max_staleness
        self._slots: dict[int, list[Slot]] = {}
        self._taken = 0

    @property
    def next_step(self) -> int:
        """The step whose slots are opened next."""
        return max(self._slots, default=self._taken) + 1

    @property
    def has_room(self) -> bool:
        """Whether they may be opened now."""
        return self.next_step <= self._taken + 1 + self._max_staleness

    def begin_after(self, step: int) -> None:
        """Go on after a step that was trained on; whatever was under way is forgotten."""
        self._slots.clear()
        self._taken = step

    def open(self, prompts: Iterable[tuple[int, str]], *, step: int | None = None) -> list[Slot]:
        """Slots for groups.

        Args:
            prompts: Place in the data and id of each prompt.
            step: A step under way that gets more of them; the next one when None.

        Raises:
            ValueError: If there is no room for another step, or that step is not under way.
        """
        if step is None:
            if not self.has_room:
                raise ValueError(
                    f"step {self.next_step} has no slots before step {self._taken + 1} is taken: max_staleness = "
                    f"{self._max_staleness}"
                )
            step = self.next_step
            self._slots[step] = []
        elif step not in self._slots:
            raise ValueError(f"step {step} is not under way")
        opened = [Slot(step=step, row=row, example_id=example_id) for row, example_id in prompts]
        self._slots[step] += opened
        return opened

    def answered(self, slots: Sequence[Slot], versions: Mapping[str, int]) -> None:
        """Note what came of groups that were asked for.

        Args:
            slots: The groups.
            versions: Prompt's id → oldest version that drew one of its responses; one without any is not in it.
        """
        for slot in slots:
            version = versions.get(slot.example_id)
            slot.move(SlotState.FAILED if version is None else SlotState.ANSWERED)
            slot.policy_version = version

    def take(self, *, policy_version: int) -> tuple[Slot, ...]:
        """The answered groups of the oldest step under way, which ends for the buffer.

        Args:
            policy_version: Version of the policy that is to be trained on them.

        Raises:
            TrainingError: If one is older than it may be: a worker has not taken the weights that it was given.
            ValueError: If one of them is on its way still.
        """
        step = self._taken + 1
        slots = self._slots[step]
        waiting = [slot for slot in slots if slot.state in (SlotState.DRAWN, SlotState.ASKED)]
        if waiting:
            raise ValueError(f"{waiting[0].example_id} of step {step} is {waiting[0].state.value} still")
        taken = tuple(slot for slot in slots if slot.policy_version is not None)
        oldest = min((slot.policy_version or 0 for slot in taken), default=policy_version)
        if policy_version - oldest > self._max_staleness:
            raise TrainingError(
                f"step {step} holds samples {policy_version - oldest} versions old; max_staleness = "
                f"{self._max_staleness}"
            )
        del self._slots[step]
        self._taken = step
        return taken
