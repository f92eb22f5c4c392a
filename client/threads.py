"""One thread for one call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from bertrec.errors import Transient

Result = TypeVar("Result")


def in_thread(call: Callable[[], Result]) -> Future[Result]:
    """Start ``call`` in a thread of its own; its result or error is the future's.

    Not a pool: while a server hangs its threads are all taken, and the edge would wait in the queue behind them. A thread costs
    some 50 µs, and being a daemon holds no process at its end. Raises Transient where the system gives no more threads.
    """
    future: Future[Result] = Future()

    def run() -> None:
        """Carries out the call, unless it was cancelled before."""
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    try:
        threading.Thread(target=run, daemon=True, name="bertrec-call").start()
    except RuntimeError as error:
        raise Transient(f"this process gets no more threads ({error}); raise its limit, or make fewer calls at once") from error
    return future
