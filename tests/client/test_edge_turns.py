"""The edge computes for as many callers at once as there are cores, and the others wait their turn."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bertrec.answers import Options
from bertrec.session_options import SessionOptions
from client.backends.edge import EdgeBackend
from client.backends.turns import Turns
from tests.serving.asking import at_once
from tests.serving.processes import wait_until
from tests.tiny import ITEMS, item_text

CALLERS = 12


def test_no_more_compute_at_once_than_there_are_cores(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = EdgeBackend(tiny_bundle, session=SessionOptions(1))
    lock, running, most = threading.Lock(), 0, 0
    service = edge._services["recommend"]
    compute = service.answer

    def watched(queries: Sequence[Any]) -> list[Any]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)  # long enough for all that may to be inside
        try:
            return compute(queries)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(service, "answer", watched)

    def ask(number: int) -> str:
        (found,) = edge.answer([item_text(number)], Options(k=1), timeout_s=5)
        return str(found.items[0].item_id)

    found = at_once([lambda number=number: ask(number) for number in range(CALLERS)])  # type: ignore[misc]
    assert found == [str(number % ITEMS) for number in range(CALLERS)]
    assert most == min(CALLERS, len(os.sched_getaffinity(0)))


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    turns, came = Turns(1), list[str]()

    def wait(name: str) -> None:
        with turns:
            came.append(name)

    threads = [threading.Thread(target=wait, args=(str(number),)) for number in range(CALLERS)]
    with turns:
        for number, thread in enumerate(threads):
            thread.start()
            wait_until(lambda number=number: len(turns._waiting) == number + 1)  # type: ignore[misc]
    wait("who was there before")  # and has not stopped running, as a caller in a loop has not
    for thread in threads:
        thread.join(10)
    assert came == [*map(str, range(CALLERS)), "who was there before"]


@pytest.mark.parametrize("comes_meanwhile", [False, True])
def test_who_is_interrupted_while_waiting_leaves_the_turn_to_the_others(comes_meanwhile: bool) -> None:
    turns = Turns(1)

    def interrupt(*_: object) -> None:
        if comes_meanwhile:
            turns.__exit__()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        turns.__enter__()
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            turns.__enter__()
    finally:
        signal.signal(signal.SIGALRM, before)
    if not comes_meanwhile:
        turns.__exit__()
    with turns:
        assert turns._free == 0
    assert (turns._free, len(turns._waiting)) == (1, 0)
