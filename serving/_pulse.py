"""Asks a server now and then, since one that lives may no longer answer: readiness is not asked of the models' processes."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType

from bertrec.answers import Options
from bertrec.errors import BertrecError, Overloaded
from client.backends import connect
from serving.probe import GOLDEN_TEXT, fresh


class Pulse:
    """While entered, asks for a recommendation every so many seconds, from a thread of its own.

    A refusal is a sign of life too: a server that is overloaded must not be taken for one that hangs, and so be started anew.
    """

    def __init__(self, url: str, *, every_s: float) -> None:
        """every_s: also how long each answer is waited for."""
        self._url = url
        self._every_s = every_s
        self._heard_s = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="bertrec-pulse", daemon=True)

    @property
    def silent_s(self) -> float:
        """Seconds since the server's last answer, or since this was made."""
        return time.monotonic() - self._heard_s

    def _ask(self) -> None:
        with contextlib.closing(connect(self._url)) as server:  # no Recommender: it lets a server rest that failed
            while not self._ended.wait(self._every_s):
                try:
                    server.answer([GOLDEN_TEXT], Options(k=1, exclude=(fresh(),)), timeout_s=self._every_s)
                except Overloaded:
                    pass
                except BertrecError:
                    continue
                self._heard_s = time.monotonic()

    def __enter__(self) -> Pulse:
        self._heard_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
