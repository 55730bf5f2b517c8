"""Slots of groups that are under way: their states, and what bounds their age."""

from __future__ import annotations

import random

import pytest

from gad_ray.errors import TrainingError
from gad_ray.rollout.work_buffer import Slot, SlotState, WorkBuffer


def opened(buffer: WorkBuffer, count: int = 2) -> list[Slot]:
    step = buffer.next_step
    return buffer.open([(row, f"{step}-{row}") for row in range(count)])


def answer(buffer: WorkBuffer, slots: list[Slot], version: int) -> None:
    for slot in slots:
        slot.move(SlotState.ASKED)
    buffer.answered(slots, {slot.example_id: version for slot in slots})


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
def test_there_are_slots_for_as_many_steps_ahead_as_samples_may_be_versions_old(max_staleness: int) -> None:
    buffer = WorkBuffer(max_staleness=max_staleness)
    for _ in range(max_staleness + 1):
        assert buffer.has_room
        answer(buffer, opened(buffer), version=0)
    assert not buffer.has_room
    with pytest.raises(ValueError, match=f"step {max_staleness + 2} has no slots before step 1 is taken"):
        opened(buffer)
    assert len(buffer.take(policy_version=0)) == 2
    assert buffer.has_room
    assert buffer.next_step == max_staleness + 2


@pytest.mark.parametrize("max_staleness", [0, 1, 2, 5])
def test_whatever_the_order_of_work_no_group_is_older_than_it_may_be(max_staleness: int) -> None:
    """Workers take new weights late, by up to a step, and answer in any order; the policy moves with every step."""
    order = random.Random(max_staleness)
    buffer, waiting = WorkBuffer(max_staleness=max_staleness), list[tuple[Slot, int]]()
    ages = set[int]()
    for version in range(60):
        while buffer.has_room:
            for slot in opened(buffer, count=3):
                slot.move(SlotState.ASKED)
                waiting.append((slot, version))
        order.shuffle(waiting)
        for slot, drawn_by in waiting:
            buffer.answered([slot], {slot.example_id: drawn_by})
        waiting.clear()
        taken = buffer.take(policy_version=version)
        ages |= {version - slot.policy_version for slot in taken if slot.policy_version is not None}
    assert ages <= set(range(max_staleness + 1))
    assert max_staleness in ages


def test_groups_of_several_versions_stand_in_one_step_within_the_bound_and_not_beyond() -> None:
    buffer = WorkBuffer(max_staleness=1)
    first, second = opened(buffer), opened(buffer)
    answer(buffer, first, version=0)
    answer(buffer, second[:1], version=0)
    answer(buffer, second[1:], version=1)
    buffer.take(policy_version=0)
    assert [slot.policy_version for slot in buffer.take(policy_version=1)] == [0, 1]
    answer(buffer, opened(buffer), version=0)
    with pytest.raises(TrainingError, match="step 3 holds samples 2 versions old; max_staleness = 1"):
        buffer.take(policy_version=2)


def test_a_group_without_an_answer_is_left_out_and_may_be_asked_for_again() -> None:
    buffer = WorkBuffer(max_staleness=0)
    one, other = opened(buffer)
    for slot in (one, other):
        slot.move(SlotState.ASKED)
    buffer.answered([one, other], {one.example_id: 4})
    assert (one.state, other.state) == (SlotState.ANSWERED, SlotState.FAILED)
    other.move(SlotState.ASKED)
    buffer.answered([other], {})
    assert buffer.take(policy_version=4) == (one,)


def test_a_step_is_not_taken_before_all_of_its_groups_have_come_to_an_end() -> None:
    buffer = WorkBuffer(max_staleness=0)
    slots = opened(buffer)
    answer(buffer, slots[:1], version=0)
    with pytest.raises(ValueError, match="1-1 of step 1 is drawn still"):
        buffer.take(policy_version=0)
    with pytest.raises(ValueError, match="1-0 of step 1 is answered, not to be asked"):
        slots[0].move(SlotState.ASKED)


def test_a_step_under_way_gets_more_groups_and_another_does_not() -> None:
    buffer = WorkBuffer(max_staleness=0)
    answer(buffer, opened(buffer), version=0)
    more = buffer.open([(7, "more")], step=1)
    answer(buffer, more, version=0)
    assert [slot.row for slot in buffer.take(policy_version=0)] == [0, 1, 7]
    with pytest.raises(ValueError, match="step 1 is not under way"):
        buffer.open([(8, "late")], step=1)


def test_it_goes_on_behind_a_step_with_nothing_under_way() -> None:
    buffer = WorkBuffer(max_staleness=1)
    opened(buffer)
    buffer.begin_after(40)
    assert buffer.next_step == 41
    assert {slot.step for slot in opened(buffer)} == {41}
