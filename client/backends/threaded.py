"""A blocking backend for asyncio: each request in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from bertrec.questions import Question

from ..threads import in_thread
from . import NO_HEADERS, Backend


class ThreadedBackend:
    """HTTP and the edge. A request that is cancelled ends in its thread, by its deadline, and nobody hears of it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def answer(
        self, texts: Sequence[str], question: Question, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Any]:
        """See :class:`Backend`."""
        backend = self._backend
        return await asyncio.wrap_future(in_thread(lambda: backend.answer(texts, question, timeout_s=timeout_s, headers=headers)))

    async def close(self) -> None:
        """Close the backend."""
        self._backend.close()
