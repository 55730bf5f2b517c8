"""Asks reward functions of the user's: each response once, several at a time, within a deadline."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt, wait_random_exponential

from gad_ray.config.reward import CustomTerm
from gad_ray.core.rewards import load_reward_function, reward_value

_logger = logging.getLogger(__name__)
_FAILED = float("nan")


class UserFunction:
    """One function of the user's.

    Args:
        term: Names it, and says how it is asked.

    Raises:
        ConfigError: If it cannot be imported.
    """

    def __init__(self, term: CustomTerm) -> None:
        self._term = term
        self._function = load_reward_function(term.function)
        self._is_async = inspect.iscoroutinefunction(self._function)

    def __call__(self, texts: Sequence[tuple[str, str]]) -> list[float]:
        """A value for each prompt and response; NaN, and a line in the log, where the function failed."""
        values: list[float] = []
        for answer in self.answers(texts):
            if isinstance(answer, str):
                _logger.warning(
                    "reward function %s %s; the response is left out", self._term.function, answer
                )
            values.append(_FAILED if isinstance(answer, str) else answer)
        return values

    def answers(self, texts: Sequence[tuple[str, str]]) -> list[float | str]:
        """A value for each prompt and response, or why there is none."""
        return asyncio.run(self._all(texts))

    async def _all(self, texts: Sequence[tuple[str, str]]) -> list[float | str]:
        # A function that is not async may not be safe to call twice at once.
        places = asyncio.Semaphore(self._term.concurrency if self._is_async else 1)
        return list(await asyncio.gather(*(self._one(pair, places) for pair in texts)))

    async def _one(self, pair: tuple[str, str], places: asyncio.Semaphore) -> float | str:
        async with places:
            attempts = AsyncRetrying(
                stop=stop_after_attempt(1 + self._term.retries),
                wait=wait_random_exponential(multiplier=0.2, max=10.0),
                retry=retry_if_result(lambda answer: isinstance(answer, str)),
                retry_error_callback=lambda state: None if state.outcome is None else state.outcome.result(),
            )
            answer: float | str = await attempts(self._attempt, pair)
            return answer

    async def _attempt(self, pair: tuple[str, str]) -> float | str:
        term = self._term
        try:
            async with asyncio.timeout(term.deadline_s):
                if self._is_async:
                    value = await self._function(*pair)  # type: ignore[misc]
                else:
                    value = await _in_thread(self._function, *pair)
        except TimeoutError:
            return f"gave nothing within {term.deadline_s:g} s"
        except Exception as error:  # noqa: BLE001 - a function of the user's may raise anything
            return f"raised {type(error).__name__}: {error}"
        return reward_value(value, low=term.low, high=term.high)


async def _in_thread(function: Callable[[str, str], object], prompt: str, response: str) -> object:
    """Call a function in a thread of its own, which can be left behind where it does not come back."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[object] = loop.create_future()

    def tell(value: object, error: Exception | None) -> None:
        if not done.done():
            done.set_result(value) if error is None else done.set_exception(error)

    def work() -> None:
        try:
            value, error = function(prompt, response), None
        except Exception as raised:  # noqa: BLE001 - carried over to who waits
            value, error = None, raised
        with suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(tell, value, error)

    threading.Thread(target=work, name="reward-function", daemon=True).start()
    return await done
