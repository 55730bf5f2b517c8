"""What the groups of actors share: their handles, and waiting for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import ray
from ray import ObjectRef
from ray.actor import ActorProxy

from gad_ray.actors.waiting import Waiter

A = TypeVar("A")
T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")


class ActorGroup(Generic[A]):
    """Actors of one kind, rank by rank.

    Args:
        kind: What they are called, before their number.
        waiter: Waits for their results, with a deadline and by name.
    """

    def __init__(self, kind: str, waiter: Waiter) -> None:
        self.kind = kind
        self._waiter = waiter
        self._actors: list[ActorProxy[A]] = []

    def add(self, actor: ActorProxy[A]) -> None:
        """Take an actor that has been started as the next rank."""
        self._waiter.know(actor, f"{self.kind}-{len(self._actors)}")
        self._actors.append(actor)

    def stop(self) -> None:
        """End all actors; safe to call twice."""
        for actor in self._actors:
            ray.kill(cast("Any", actor))
        self._actors = []

    def each(self, call: Callable[[ActorProxy[A]], ObjectRef[T]]) -> list[ObjectRef[T]]:
        """Ask every rank."""
        return [call(actor) for actor in self._actors]

    @property
    def rank_0(self) -> ActorProxy[A]:
        """The rank that answers for the group where all are alike."""
        return self._actors[0]

    def wait(self, refs: Sequence[ObjectRef[T]], *, what: str, deadline_s: float) -> list[T]:
        """The values of references to small results; see :meth:`Waiter.get`."""
        return self._waiter.get(refs, what=what, deadline_s=deadline_s)


def two(refs: ObjectRef[tuple[T, U]]) -> tuple[ObjectRef[T], ObjectRef[U]]:
    """The references of a method with two results, of which Ray's types know one."""
    return cast("Any", refs)


def three(refs: ObjectRef[tuple[T, U, V]]) -> tuple[ObjectRef[T], ObjectRef[U], ObjectRef[V]]:
    """The references of a method with three results."""
    return cast("Any", refs)
