"""A bundle, the same with more items, and threads that ask a server for what the second alone has."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bertrec.answers import Options
from bertrec.bundle import MAPS_FOLDER, Bundle, seal
from export.__main__ import main as export
from serving.triton import TritonServer
from tests.serving.asking import ask
from tests.serving.processes import wait_until
from tests.tiny import ITEMS, WORDS, item_text

THREADS = 4
AFTER = 20
"""Answers of a new state that each thread waits for."""


def new_item(number: int) -> tuple[str, str]:
    """The words of what the second bundle alone has: the colour of one old item and the kind of the next."""
    return WORDS[number], WORDS[ITEMS + (number + 1) % ITEMS]


WISH = " ".join(new_item(3))
"""Answered with new-3 by the second bundle; by the first with one of the items that have one of its words."""
HALVES = ("3", "4")


def with_maps(bundle: Path, folder: Path) -> Path:
    """A copy with maps that take a description as it is, for the vectors of new items."""
    shutil.copytree(bundle, folder)
    (folder / MAPS_FOLDER).mkdir()
    manifest = Bundle.open(bundle).manifest
    for name, scale in {"text": 0.1, "lexical": 10.0, "graph": 1.0, "behaviour": 0.0}.items():
        width = manifest.signals[name]
        np.save(folder / MAPS_FOLDER / f"{name}.npy", scale * np.eye(width + 1, width, dtype=np.float32))
    np.save(folder / MAPS_FOLDER / "prior.npy", np.full((1, 1), -0.1, np.float32))  # less popular than any
    seal(folder, manifest)
    return folder


def with_new_items(bundle: Path, folder: Path) -> Path:
    """The bundle with as many items again, new-0 and so on, as ``export catalogue`` adds them."""
    rows = [{"item_id": f"new-{number}", "text": " ".join(new_item(number))} for number in range(ITEMS)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    added = ["--bundle", str(bundle), "--items", str(folder / "items.jsonl"), "--output", str(folder / "bundle")]
    assert export(["catalogue", *added]) == 0
    return folder / "bundle"


class Load:
    """Threads that ask without a pause for what the new bundle alone has, and hold each answer to be of one bundle."""

    def __init__(self, server: TritonServer, *, old: str, new: str) -> None:
        self._server, self._old, self._new = server, old, new
        self._ending = threading.Event()
        self.seen: list[tuple[str, str]] = []

    def _work(self, number: int) -> None:
        turn = number
        while not self._ending.is_set():
            turn += 1
            number = turn % ITEMS
            before, after = (number - 1) % ITEMS, (number + 1) % ITEMS
            (answer,) = ask(self._server, "grpc", [" ".join(new_item(number))], Options(k=3))
            first, *others = (item.item_id for item in answer.items)
            halves = {str(number), str(after)}
            if answer.bundle == self._old:
                assert {first, others[0]} == halves
                assert not others[1].startswith("new-")
            else:
                assert (answer.bundle, first) == (self._new, f"new-{number}")
                assert set(others) <= {*halves, f"new-{before}", f"new-{after}"}
            (known,) = ask(self._server, "grpc", [item_text(number)], Options(k=1))
            assert known.items[0].item_id == str(number)  # by either: what was there keeps its place
            self.seen.append((answer.bundle, answer.engine))

    def __enter__(self) -> Load:
        self._pool = ThreadPoolExecutor(THREADS)
        self._futures = [self._pool.submit(self._work, number) for number in range(THREADS)]
        self.wait()
        return self

    def wait(self) -> None:
        """Until each thread had the time for some more answers, or one of them failed."""
        more = len(self.seen) + THREADS * AFTER
        wait_until(lambda: len(self.seen) >= more or any(future.done() for future in self._futures))

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._pool.shutdown()
        for future in self._futures:
            future.result()  # raises what a thread raised
