"""Asks a Triton in the plainest way, by NVIDIA's own client, so that the server is tested apart from ours; and the edge."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray

from bertrec.answers import Options, Recommendation
from bertrec.bundle import Bundle
from bertrec.engine import OnnxEngine
from bertrec.pipeline import Pipeline
from bertrec.session_options import SessionOptions
from bertrec.tensors import ANSWER, ENCODER, OPTIONS, RANKER, RECOMMEND, TEXT
from serving.triton import TritonServer

PROTOCOLS = {"grpc": tritonclient.grpc, "http": tritonclient.http}
TIMEOUT_S = 30.0

_clients = threading.local()
"""One client for each thread and server: the HTTP client may not be shared among threads."""


def infer(
    server: TritonServer, protocol: str, model: str, inputs: Mapping[str, tuple[str, NDArray[Any]]], *, version: str = ""
) -> Any:
    """The raw answer of one model, of its newest version if none is named; inputs are name → (Triton's dtype, array)."""
    module = PROTOCOLS[protocol]
    tensors = []
    for name, (dtype, values) in inputs.items():
        tensor = module.InferInput(name, list(values.shape), dtype)
        tensor.set_data_from_numpy(values)
        tensors.append(tensor)
    deadline = {"client_timeout": TIMEOUT_S} if protocol == "grpc" else {}
    return client(server, protocol).infer(model, tensors, model_version=version, **deadline)


def client(server: TritonServer, protocol: str) -> Any:
    url = {"grpc": server.grpc_url, "http": server.http_url}[protocol]
    known = _clients.__dict__.setdefault("by_url", {})
    if url not in known:
        timeouts = {"network_timeout": TIMEOUT_S, "connection_timeout": TIMEOUT_S} if protocol == "http" else {}
        known[url] = PROTOCOLS[protocol].InferenceServerClient(url.partition("://")[2], **timeouts)
    return known[url]


def strings(values: Sequence[str | bytes]) -> tuple[str, NDArray[np.object_]]:
    """(batch, 1) BYTES."""
    return "BYTES", np.asarray([[value.encode() if isinstance(value, str) else value] for value in values], np.object_)


def ask_raw(server: TritonServer, protocol: str, texts: Sequence[str | bytes], options: Sequence[str | bytes]) -> list[str]:
    """The ANSWER tensor's texts for whatever is sent."""
    answer = infer(server, protocol, RECOMMEND.name, {TEXT.name: strings(texts), OPTIONS.name: strings(options)})
    values = answer.as_numpy(ANSWER.name)
    assert values.shape == (len(texts), 1)
    return [value.decode() for value in values[:, 0]]


def ask(server: TritonServer, protocol: str, texts: Sequence[str], options: Options | None = None) -> list[Recommendation]:
    """The recommendations for texts, all with the same options."""
    wanted = (options or Options()).to_json()
    return [Recommendation.from_json(answer) for answer in ask_raw(server, protocol, texts, [wanted] * len(texts))]


def edge(bundle: Bundle, engine: str) -> Pipeline:
    """The same bundle, answered in this process."""
    encoder = OnnxEngine(bundle.engine_path(ENCODER.name, engine), ENCODER, SessionOptions(1))
    ranker = OnnxEngine(bundle.engine_path(RANKER.name, "fp32"), RANKER, SessionOptions(1))
    return Pipeline(bundle, encoder=encoder.run, ranker=ranker.run, engine=engine)


def at_once(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run the jobs at the same time; an exception is returned in place of its job's result."""
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return job()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


def texts_per_execution(server: TritonServer, model: str, before: tuple[int, int] = (0, 0)) -> tuple[tuple[int, int], float]:
    """Triton's own count of (texts, executions) of a model, and their ratio since ``before``."""
    statistics = client(server, "grpc").get_inference_statistics(model).model_stats[0]
    count = int(statistics.inference_count), int(statistics.execution_count)
    return count, (count[0] - before[0]) / max(1, count[1] - before[1])
