"""A peer's process: reads commands from standard input, one JSON object a line, and answers each with one on standard output.

    {"do": "load", "setup": {…}}                  → {"threads": 2, "versions": {…}}
    {"do": "warm_up", "texts": […]}               → {}
    {"do": "singly", "texts": […]}                → {"encode_s": […], "total_s": […], "uncounted_s": 0.1}
    {"do": "together", "texts": […], "save": "…"} → {"encode_s": […], "total_s": […], "uncounted_s": 0.1}

encode_s: text → vector, null where the peer has no such step; total_s: text → ten items; of each text singly, of each pass over
all of them together; uncounted_s: of reading some of the texts before. What fails is answered with {"error": "…"}, the last line
of the exception. What libraries print goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.setup import BATCH, ITEMS_FILE, Loaded, Setup, best_items, longest_first

PACKAGE = "benchmarks.peers.encoders"
WARM_UP, WARM_TOGETHER = 6, 64
"""Texts that are read singly, at least, and at once, before any count, in every round: they find the caches full of another's."""
WARM_S = 0.3
"""Singly for so long, too: a process that slept is not half as fast as it becomes when 26 requests have taken it 50 ms."""
DIGITS = 7
"""Of seconds, as they are kept: a fast peer answers ten thousand times, and what is below 100 ns is the clock's own."""
LEAST_S = 1.0
"""Texts are read again until so much time has passed, singly and together."""


class Worker:
    """One peer, once it is loaded."""

    def __init__(self, setup: Setup) -> None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setup.threads])
        Path(setup.own).mkdir(parents=True, exist_ok=True)
        self._items: NDArray[np.float32] = np.load(Path(setup.material) / ITEMS_FILE, allow_pickle=False)  # (items, hidden)
        self.loaded: Loaded = importlib.import_module(f"{PACKAGE}.{setup.module}").load(setup)
        self._encode = longest_first(self.loaded.encode) if setup.sort and self.loaded.encode else self.loaded.encode

    def about(self) -> dict[str, Any]:
        """Threads as the library says, and versions."""
        versions = {"python": platform.python_version(), **{name: version(name) for name in self.loaded.packages}}
        return {"threads": self.loaded.threads, "versions": versions}

    def warm_up(self, texts: Sequence[str]) -> dict[str, Any]:
        """Read some texts of all lengths, singly and in batches."""
        for text in texts[:WARM_UP]:
            self._ask([text])
        for start in range(0, len(texts), BATCH):
            self._ask(texts[start : start + BATCH])
        self._ask(texts)
        return {}

    def singly(self, texts: Sequence[str]) -> dict[str, Any]:
        """One request a text; all of them again until they took long enough."""
        warm = self._repeated(texts[:WARM_UP], WARM_S)
        asked = self._repeated(texts, LEAST_S)
        return _seconds([encode for encode, _ in asked], [total for _, total in asked], sum(total for _, total in warm))

    def _repeated(self, texts: Sequence[str], least_s: float) -> list[tuple[float | None, float]]:
        """Seconds of each request: all texts one by one, again and again until ``least_s`` have passed."""
        asked: list[tuple[float | None, float]] = []
        began = time.perf_counter()
        while not asked or time.perf_counter() - began < least_s:
            asked += [self._ask([text])[:2] for text in texts]
        return asked

    def together(self, texts: Sequence[str], save: str) -> dict[str, Any]:
        """All texts handed over at once, again and again; ``save`` gets the vectors and the items."""
        uncounted = self._ask(texts[:WARM_TOGETHER])[1]
        passes, began = [self._ask(texts)], time.perf_counter()
        while time.perf_counter() - began + passes[0][1] < LEAST_S:
            passes.append(self._ask(texts))
        *_, vectors, top = passes[-1]
        np.savez(save, top=top, **({} if vectors is None else {"vectors": vectors}))
        return _seconds([encode for encode, *_ in passes], [total for _, total, *_ in passes], uncounted)

    def _ask(self, texts: Sequence[str]) -> tuple[float | None, float, NDArray[np.float32] | None, NDArray[np.int64]]:
        began = time.perf_counter()
        if self.loaded.rank is not None:
            top = self.loaded.rank(texts)
            return None, time.perf_counter() - began, None, top
        assert self._encode is not None
        vectors = self._encode(texts)  # (texts, hidden)
        encoded = time.perf_counter()
        top = best_items(vectors, self._items)
        return encoded - began, time.perf_counter() - began, vectors, top


def _seconds(encode: Sequence[float | None], total: Sequence[float], uncounted: float) -> dict[str, Any]:
    encode_s = [round(one, DIGITS) for one in encode if one is not None]
    return {
        "encode_s": encode_s if len(encode_s) == len(total) else None,
        "total_s": [round(one, DIGITS) for one in total],
        "uncounted_s": round(uncounted, DIGITS),
    }


def last_line(text: str) -> str:
    """The last line that says something: a letter at least."""
    lines = [line.strip() for line in text.splitlines() if any(letter.isalpha() for letter in line)]
    return lines[-1] if lines else text.strip()


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker: Worker | None = None
    for line in sys.stdin:
        command = json.loads(line)
        what = command.pop("do")
        try:
            if what == "load":
                worker = Worker(Setup(**command["setup"]))
            assert worker is not None
            answer: dict[str, Any] = worker.about() if what == "load" else getattr(worker, what)(**command)
        except Exception as error:  # whatever a library raises is what is to be reported
            traceback.print_exc()
            answer = {"error": last_line("".join(traceback.format_exception_only(error)))}
        print(json.dumps(answer), file=answers, flush=True)  # noqa: T201  # the protocol
    os._exit(0)  # without waiting for what threads and servers a library left


if __name__ == "__main__":
    main()
