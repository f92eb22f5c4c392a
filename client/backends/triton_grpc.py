"""Triton over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from grpc.aio import UsageError  # type: ignore[import-untyped]  # its stubs are a package of their own
from tritonclient.grpc import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import InferenceServerException

from bertrec.errors import InvalidAnswer, InvalidInput, Overloaded, Unavailable
from bertrec.questions import Question
from bertrec.tensors import TensorSpec

from ..settings import Tls
from . import NO_HEADERS, REQUEST_ID
from .triton import TritonReader, inputs_of, output_of

_CHANNEL_ARGUMENTS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC's own back-off grows to two minutes, in which a server that is back would stay unused.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # not a pause, whatever its name: what one attempt to connect may take
    # Notices a host that vanished without closing its connections; kept well above the ping rate that Triton tolerates.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # The address is the server's, over gRPC as over HTTP, whatever http_proxy says.
    ("grpc.enable_http_proxy", 0),
]


_CALL_ERRORS = (InferenceServerException, ValueError)
"""ValueError is gRPC's word for a channel that another thread has just closed."""


class _GrpcReader(TritonReader):
    """What the blocking channel and asyncio's have in common."""

    def __init__(self, host: str, port: int, tls: Tls | None) -> None:
        super().__init__("grpc" if tls is None else "grpcs", host, port)
        self._channel: dict[str, object] = {"channel_args": _CHANNEL_ARGUMENTS}
        if tls is not None:
            self._channel |= {"ssl": True, "root_certificates": tls.path("ca")}
            self._channel |= {"private_key": tls.path("key"), "certificate_chain": tls.path("certificate")}

    def _translated(self, error: Exception, timeout_s: float, question: Question) -> InvalidInput | Unavailable:
        if not isinstance(error, InferenceServerException):
            return Unavailable(f"{self._url} cannot answer: {error}")  # the channel was closed meanwhile
        status = str(error.status()).removeprefix("StatusCode.")
        if status == "INVALID_ARGUMENT":
            return InvalidInput(error.message())
        if status == "DEADLINE_EXCEEDED":
            return self._late(timeout_s)
        what = f"{status}, {error.message()}"
        if status == "UNAVAILABLE":  # no connection, shutdown or a full queue; HTTP says 503
            return self._cannot(what)
        if status == "RESOURCE_EXHAUSTED":
            return Overloaded(f"{self._url} cannot answer: {what}")
        return self._failed(what, question)

    def _found(self, result: InferResult, texts: int, question: Question) -> list[Any]:
        output = output_of(question)
        try:
            answers = result.as_numpy(output.name)  # (batch, 1) of bytes, or (batch, n) of numbers
        except Exception as error:  # whatever a length or a shape that does not fit its buffer makes numpy and struct raise
            raise InvalidAnswer(f"{self._url}: the output {output.name} cannot be read ({error})") from None
        if answers is not None and output.dtype == "BYTES":
            answers = answers.ravel()
        return self._read(None if answers is None else list(answers), texts, question)


class GrpcBackend(_GrpcReader):
    """One channel, shared by all threads; gRPC reconnects it by itself."""

    def __init__(self, host: str, port: int, tls: Tls | None = None) -> None:
        super().__init__(host, port, tls)
        self._client = InferenceServerClient(self._authority, **self._channel)

    def answer(
        self, texts: Sequence[str], question: Question, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Any]:
        """See :class:`Backend`."""
        try:
            result = self._client.infer(**_request(texts, question, timeout_s, headers))
        except _CALL_ERRORS as error:
            raise self._translated(error, timeout_s, question) from None
        return self._found(result, len(texts), question)

    def close(self) -> None:
        """Close the channel; calls in flight end as unavailable."""
        self._client.close()


class AsyncGrpcBackend(_GrpcReader):
    """One channel of asyncio's gRPC, opened by the first call, because it belongs to the loop in which it is opened."""

    def __init__(self, host: str, port: int, tls: Tls | None = None) -> None:
        super().__init__(host, port, tls)
        self._client: Any = None
        self._closed = False

    async def answer(
        self, texts: Sequence[str], question: Question, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> list[Any]:
        """See :class:`Backend`."""
        if self._client is None:
            from tritonclient.grpc.aio import InferenceServerClient as AsyncClient

            self._client = AsyncClient(self._authority, **self._channel)
        try:
            result = await self._client.infer(**_request(texts, question, timeout_s, headers))
        except (*_CALL_ERRORS, UsageError) as error:
            raise self._translated(error, timeout_s, question) from None
        except asyncio.CancelledError:
            if self._closed:  # a channel that closes cancels its calls
                raise Unavailable(f"{self._url} cannot answer: the channel was closed") from None
            raise
        return self._found(result, len(texts), question)

    async def close(self) -> None:
        """Close the channel; calls in flight end as unavailable."""
        self._closed = True
        if self._client is not None:
            await self._client.close()


def _request(texts: Sequence[str], question: Question, timeout_s: float, headers: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of both clients' ``infer``."""
    return {
        "model_name": question.model.name,
        "inputs": [_bytes(spec, values) for spec, values in inputs_of(question, list(texts)).items()],
        "client_timeout": timeout_s,
        "request_id": headers.get(REQUEST_ID, ""),
        "headers": dict(headers),
    }


def _bytes(spec: TensorSpec, values: Sequence[str]) -> InferInput:
    """A BYTES input of shape (batch, 1)."""
    tensor = InferInput(spec.name, [len(values), 1], spec.dtype)
    tensor.set_data_from_numpy(np.asarray(values, object).reshape(-1, 1))
    return tensor
