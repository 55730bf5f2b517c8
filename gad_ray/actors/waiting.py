"""Waiting for actors: every wait has a deadline, names what it waits for, and can be given up."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, OutOfMemoryError, RayError, RayTaskError

from gad_ray.activity import waiting
from gad_ray.actors.process import log_tail
from gad_ray.errors import ActorDiedError, DeadlineError, GadError

_POLL_S = 0.5


class StopSignal(Protocol):
    """Tells a wait that it should be given up."""

    def check(self) -> None:
        """Raise if waiting has no point any more."""
        ...


class Waiter:
    """Waits for object references on behalf of the controller.

    Args:
        logs: Actor name → its log file, quoted when the actor dies.
        stop: Looked at twice a second while waiting.
    """

    def __init__(self, logs: Mapping[str, Path], stop: StopSignal) -> None:
        self._logs = logs
        self._stop = stop
        self._names: dict[Any, str] = {}

    def know(self, actor: Any, name: str) -> None:
        """Remember what an actor is called, to tell whom a wait is for."""
        self._names[actor._actor_id] = name

    def get(self, refs: Sequence[Any], *, what: str, deadline_s: float) -> list[Any]:
        """The values of references to small results.

        Large results are never taken: the method that makes one returns a small receipt beside it.

        Raises:
            DeadlineError: Naming what was waited for.
            ActorDiedError: With the cause and the tail of the actors' logs.
            GadError: What an actor raised, as it raised it.
        """
        deadline = time.monotonic() + deadline_s
        pending = list(refs)
        values: dict[Any, Any] = {}
        with waiting(lambda: self._told(what, pending)):
            while pending:
                self._stop.check()
                done, pending = ray.wait(pending, num_returns=1, timeout=_POLL_S)
                for ref in done:
                    values[ref] = self._take(ref, what)
                if pending and time.monotonic() > deadline:
                    raise DeadlineError(
                        f"{self._told(what, pending)} did not end within {deadline_s:g} s; {len(pending)} of "
                        f"{len(refs)} parts are missing",
                        hint="raise the deadline under limits if the work is really that slow; else read the actors' "
                        "logs: " + ", ".join(str(path) for path in self._logs.values()),
                    )
        return [values[ref] for ref in refs]

    def _told(self, what: str, pending: Sequence[Any]) -> str:
        """What is waited for, and of whom."""
        names = {self._names.get(ref.task_id().actor_id()) for ref in pending}
        known = ", ".join(sorted(name for name in names if name is not None))
        return f"{what} ({known})" if known else what

    def _take(self, ref: Any, what: str) -> Any:
        try:
            return ray.get(ref)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, GadError):
                raise cause from None
            if isinstance(cause, ObjectStoreFullError | OutOfDiskError):
                raise GadError(
                    f"Ray's object store had no room left during {what}, nor may it use the disk: {cause}",
                    hint="free space on the disk of Ray's temporary files ('gad-ray doctor' shows it), or give the store "
                    "more memory (ray start --object-store-memory, docker run --shm-size); then --resume auto",
                ) from error
            raise GadError(f"{what} failed: {error}") from error
        except OutOfMemoryError as error:
            raise ActorDiedError(
                f"the machine's memory was nearly full during {what}, and Ray ended an actor to save the rest\n"
                f"{_memory_users(str(error))}",
                hint="end other programs that are in the list, or make the run smaller: micro_batch_tokens of policy "
                "and critic, rollout.batch_sequences, gradient checkpointing, LoRA; then --resume auto",
            ) from error
        except RayError as error:
            # Actors, nodes and objects are lost in many ways.
            self._raise_death(error, what)

    def _raise_death(self, error: RayError, what: str) -> NoReturn:
        tails = "\n".join(f"--- last lines of {path}\n{log_tail(path)}" for path in self._logs.values())
        raise ActorDiedError(
            f"an actor died during {what}: {error}\n{tails}",
            hint="a killed process is often out of memory: see gad-ray doctor; resume with --resume auto",
        ) from error


def _memory_users(report: str) -> str:
    """What Ray's long report on a full memory says of who used it."""
    _, heading, users = report.partition("Top 10 memory users:")
    if not heading:
        return report.strip()
    return heading + users.partition("Refer to the documentation")[0].rstrip()
