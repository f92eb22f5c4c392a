"""Triton over gRPC."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import InferenceServerException

from bertrec.errors import DeadlineExceeded, InvalidAnswer, InvalidInput, Unavailable
from bertrec.tensors import ANSWER, OPTIONS, RECOMMEND, TEXT, TensorSpec

from .triton import TritonBackend

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


class GrpcBackend(TritonBackend):
    """One channel, shared by all threads; gRPC reconnects it by itself."""

    def __init__(self, host: str, port: int) -> None:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        super().__init__(f"grpc://{authority}")
        self._client = InferenceServerClient(authority, channel_args=_CHANNEL_ARGUMENTS)

    def close(self) -> None:
        """Close the channel; calls in flight end as unavailable."""
        self._client.close()

    def _infer(self, texts: Sequence[str], options: str, *, timeout_s: float) -> list[str | bytes] | None:
        inputs = [_bytes(TEXT, texts), _bytes(OPTIONS, [options] * len(texts))]
        try:
            result = self._client.infer(RECOMMEND.name, inputs, client_timeout=timeout_s)
        except InferenceServerException as error:
            raise self._translated(error) from None
        except ValueError as error:  # gRPC's word for a channel that another thread has just closed
            raise Unavailable(f"{self._url} cannot answer: {error}") from None
        return self._rows(result)

    def _translated(self, error: InferenceServerException) -> InvalidInput | Unavailable:
        status = str(error.status()).removeprefix("StatusCode.")
        if status == "INVALID_ARGUMENT":
            return InvalidInput(error.message())
        if status == "DEADLINE_EXCEEDED":
            return DeadlineExceeded(self._url)
        return Unavailable(f"{self._url} cannot answer: {status}, {error.message()}")

    def _rows(self, result: InferResult) -> list[str | bytes] | None:
        try:
            answers = result.as_numpy(ANSWER.name)  # (batch, 1) of bytes
        except Exception as error:  # whatever a length or a shape that does not fit its buffer makes numpy and struct raise
            raise InvalidAnswer(f"{self._url}: the output {ANSWER.name} cannot be read ({error})") from None
        return None if answers is None else list(answers.ravel())


def _bytes(spec: TensorSpec, values: Sequence[str]) -> InferInput:
    """A BYTES input of shape (batch, 1)."""
    tensor = InferInput(spec.name, [len(values), 1], spec.dtype)
    tensor.set_data_from_numpy(np.asarray(values, object).reshape(-1, 1))
    return tensor
