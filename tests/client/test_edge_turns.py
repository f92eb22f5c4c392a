"""The edge computes for as many callers at once as there are cores, and the others wait their turn."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bertrec.answers import Options
from bertrec.session_options import SessionOptions
from client.backends.edge import EdgeBackend
from tests.serving.asking import at_once
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
