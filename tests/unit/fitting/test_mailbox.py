"""Requests are taken in their order, and each asker gets its own answer."""

from __future__ import annotations

import asyncio

from gad_ray.fitting.mailbox import Doing, Mailbox, SaveRequest


def test_each_asker_gets_its_own_answer_whatever_the_order_of_answering():
    async def talk() -> tuple[str, str]:
        box = Mailbox()
        first = asyncio.create_task(box.ask(SaveRequest(step=1)))
        second = asyncio.create_task(box.ask(SaveRequest(step=2)))
        ((one, asked),) = await box.take(5.0)
        ((other, _),) = await box.take(5.0)
        assert asked == SaveRequest(step=1)
        await box.answer(other, "second")
        await box.answer(one, "first")
        return await first, await second

    assert asyncio.run(talk()) == ("first", "second")


def test_nothing_is_lost_when_nobody_asks_in_time():
    async def talk() -> None:
        box = Mailbox()
        assert await box.take(0.0) == []
        asker = asyncio.create_task(box.ask(Doing(what="waiting")))
        ((number, request),) = await box.take(5.0)
        assert request == Doing(what="waiting")
        assert await box.take(0.0) == []
        await box.answer(number, None)
        assert await asker is None

    asyncio.run(talk())


def test_an_answer_to_an_asker_that_has_gone_harms_nobody():
    async def talk() -> None:
        box = Mailbox()
        lost = asyncio.create_task(box.ask(SaveRequest(step=1)))
        ((number, _),) = await box.take(5.0)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        await box.answer(number, "too late")
        asker = asyncio.create_task(box.ask(SaveRequest(step=2)))
        ((number, _),) = await box.take(5.0)
        await box.answer(number, "in time")
        assert await asker == "in time"

    asyncio.run(talk())
