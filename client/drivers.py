"""Carry out a plan: blocking, or in asyncio. No decision is made here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any

from .steps import Answered, Ask, Pause, Start, Step, Wait
from .threads import in_thread

Plan = Generator[Step, Any, Answered]
Asking = Callable[[Ask], Coroutine[Any, Any, list[Any]]]


def run(plan: Plan, ask: Callable[[Ask], list[Any]], sleep: Callable[[float], None]) -> Answered:
    """Carry out ``plan`` in this thread; what must go on beside it has a thread of its own."""

    def done(step: Step) -> object:
        """What a step comes to, waited for in this thread."""
        match step:
            case Ask():
                return ask(step)
            case Start():
                return in_thread(lambda: ask(step.ask))
            case Wait():
                return wait(step.futures, step.timeout_s, FIRST_COMPLETED).done
            case Pause():
                sleep(step.seconds)
                return None

    try:
        step = next(plan)
        while True:
            try:
                came = done(step)
            except BaseException as error:
                step = plan.throw(error)
            else:
                step = plan.send(came)
    except StopIteration as end:
        answered: Answered = end.value
        return answered


class AsyncDriver:
    """Carries out plans in asyncio. Keeps hold of tasks that outlive their plan, which asyncio itself would forget."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[list[Any]]] = set()

    async def run(self, plan: Plan, ask: Asking) -> Answered:
        """Carry out ``plan`` in this task; what must go on beside it has a task of its own."""
        try:
            step = next(plan)
            while True:
                try:
                    came = await self._done(step, ask)
                except BaseException as error:  # cancellation too: the plan cancels what it began
                    step = plan.throw(error)
                else:
                    step = plan.send(came)
        except StopIteration as end:
            answered: Answered = end.value
            return answered

    async def _done(self, step: Step, ask: Asking) -> object:
        match step:
            case Ask():
                return await ask(step)
            case Start():
                return self._begin(ask(step.ask))
            case Wait():
                return (await asyncio.wait(step.futures, timeout=step.timeout_s, return_when=asyncio.FIRST_COMPLETED))[0]
            case Pause():
                await asyncio.sleep(step.seconds)
                return None

    def _begin(self, coroutine: Coroutine[Any, Any, list[Any]]) -> asyncio.Task[list[Any]]:
        task: asyncio.Task[list[Any]] = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancel what outlived its plan, and see it end."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[list[Any]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # has been seen, so asyncio does not report it
