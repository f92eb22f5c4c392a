"""Triton's ``recommend``, ``match``, ``classify`` and ``embed``: texts in, answers out. One file, which all four are.

Business logic scripting: it tokenises, asks the models ``encoder``, ``ranker``, ``matcher`` and ``heads`` of the same server and
version, and turns numbers into answers. Everything but the asking is :mod:`bertrec.services`, the very code that the edge runs.

Beside this file lie, written by ``python -m serving assemble``: ``bertrec/`` (the package), ``bundle/`` (a bundle without its
engine files) and ``engine.txt`` (the name of the encoder engine). Runs on Python 3.10 and newer.
"""

from __future__ import annotations

import json
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Before anything that is installed: each version of the model brings the package that its bundle was assembled with.
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

from bertrec.answers import Options  # noqa: E402
from bertrec.bundle import Bundle  # noqa: E402
from bertrec.encoding import RunModel, Tensors  # noqa: E402
from bertrec.errors import InvalidAnswer, InvalidInput, Unavailable  # noqa: E402
from bertrec.questions import Classifying, Embedding, Pairing, Question  # noqa: E402
from bertrec.services import open_service  # noqa: E402
from bertrec.tensors import (  # noqa: E402
    ATTENTION_MASK,
    CLASSIFY,
    EMBED,
    ENCODER,
    MATCH,
    MATCHER,
    MAX_BATCH_SIZE,
    OPTIONS,
    QUESTIONS,
    RECOMMEND,
    TEXT,
    ModelSpec,
    TensorSpec,
)

MOST_CHARACTERS = 1000
"""Of an error's message, which may quote what was sent; gRPC refuses to carry more than 8 KiB of it."""

MOST_WAITING = "most_waiting_texts"
"""The configuration's parameter: so many texts may wait; whoever comes behind them is told at once. Without it, all may."""

CACHE_VARIABLE = "BERTREC_CACHE_MB"
"""How many MiB of answers to keep; 0, or not set: none."""

PRIORITY = "bertrec_priority"
"""A request's own parameter: 1, the default, or more for work that may wait. Triton's own ``priority`` needs a queue policy.

0 is a liveness probe's: it goes before all that waits, in a batch of its own, and so is not refused for what others sent.
"""

MIB = 2**20

COUNTERS = {
    "texts": "Texts that were answered",
    "refused_texts": "Texts that were refused, for as many waited as may",
    "cache_hits": "Texts that were answered from the cache",
    "truncated_texts": "Texts that were longer than the encoder reads",
    "tokens": "Tokens that the encoder read, or the matcher for match, padding aside",
    "padded_tokens": "Tokens that it computed, padding included",
}

READ: dict[str, Callable[[str], Question]] = {
    RECOMMEND.name: Options.from_json,
    MATCH.name: Pairing.from_json,
    CLASSIFY.name: lambda _: Classifying(),
    EMBED.name: lambda _: Embedding(),
}
"""Model → how its OPTIONS are read; "" where it has none."""

Key = tuple[str, str]
"""A text and its options, as they were sent."""


@dataclass(frozen=True)
class Asked:
    """One request of the batch: its texts with their options, and the answers that the cache had, or queries, or an error."""

    keys: list[Key]
    cached: list[bytes] | None = None
    queries: Sequence[Any] = ()
    error: Exception | None = None


class Full(Exception):
    """More wait than may."""


class Cache:
    """Answers by what was asked, the ones used last kept. It belongs to one version of one bundle, and ends with it.

    Triton's own response cache (2.51) keeps errors too, and gives them again as answers without outputs.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._answers: OrderedDict[Key, bytes] = OrderedDict()

    def get(self, keys: Sequence[Key]) -> list[bytes] | None:
        """The answers to all of a request's texts, or None."""
        if not self._most_bytes or any(key not in self._answers for key in keys):
            return None
        for key in keys:
            self._answers.move_to_end(key)
        return [self._answers[key] for key in keys]

    def put(self, keys: Sequence[Key], answers: Sequence[bytes]) -> None:
        """Keep answers; the oldest go when there is no room."""
        for key, answer in zip(keys, answers, strict=True):
            size = _size(key, answer)
            if size > self._most_bytes or key in self._answers:
                continue
            self._answers[key] = answer
            self._bytes += size
            while self._bytes > self._most_bytes:
                self._bytes -= _size(*self._answers.popitem(last=False))


def _size(key: Key, answer: bytes) -> int:
    """Bytes that an entry takes, at most 4 a character, and those of its objects."""
    return 4 * (len(key[0]) + len(key[1])) + len(answer) + 400


class Counters:
    """The metrics of one version of a model, beside Triton's: ``bertrec_…_total`` at the metrics endpoint."""

    def __init__(self, model: str, version: int) -> None:
        self._labels = {"model": model, "version": str(version)}
        self._families = {
            name: pb_utils.MetricFamily(f"bertrec_{name}_total", text, pb_utils.MetricFamily.COUNTER)
            for name, text in COUNTERS.items()
        }
        self._buckets = pb_utils.MetricFamily(
            "bertrec_bucket_texts_total", "Texts by the length that they were padded to", pb_utils.MetricFamily.COUNTER
        )
        self._all = {name: family.Metric(labels=self._labels) for name, family in self._families.items()}
        self._by_bucket: dict[int, Any] = {}

    def add(self, name: str, number: int) -> None:
        """Count so many of one of ``COUNTERS``."""
        self._all[name].increment(number)

    def read(self, mask: Any) -> None:  # noqa: ANN401
        """Count a batch of the encoder, or of the matcher, by its attention mask, (batch, tokens)."""
        rows, length = mask.shape
        if length not in self._by_bucket:
            self._by_bucket[length] = self._buckets.Metric(labels={**self._labels, "tokens": str(length)})
        self._by_bucket[length].increment(rows)
        self.add("tokens", int(mask.sum()))
        self.add("padded_tokens", mask.size)


class TritonPythonModel:
    """What Triton's python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle. The version of the engines to ask is this model's own, so that a rolling update never mixes two."""
        version = int(args["model_version"])
        self._spec = next(spec for spec in QUESTIONS if spec.name == args["model_name"])
        given = json.loads(args["model_config"])["parameters"].get(MOST_WAITING, {})
        self._most_waiting = int(given.get("string_value", sys.maxsize))
        self._counters = Counters(self._spec.name, version)
        self._cache = Cache(int(os.environ.get(CACHE_VARIABLE) or 0) * MIB if self._spec is RECOMMEND else 0)
        self._service = open_service(
            Bundle.open(HERE / "bundle", engines=False),
            self._spec,
            run=lambda spec: self._counted(spec, self._model(spec, version)),
            engine=(HERE / "engine.txt").read_text(encoding="utf-8").strip(),
        )

    def execute(self, requests: Sequence[Any]) -> None:
        """Answer all that waits, as soon as each is known: what is beyond the bound is refused at once, the rest runs in batches.

        Triton hands over everything that waits, since the configuration's max_batch_size is beyond what can wait here. Each
        response is sent by its request: a list that is returned is one message, and a server that was held up (SIGSTOP for a
        second and a half) was seen to take it as the answer to the requests that it handed over next.
        """
        waiting = sorted((request for request in requests if not _gave_up(request)), key=_priority)
        taken, beyond = _bounded(waiting, self._most_waiting)
        for request in beyond:
            self._counters.add("refused_texts", _texts(request))
            _send(request, _refuse(Full(f"{self._spec.name} lets {self._most_waiting} texts wait")))
        for batch in taken:
            self._trace = batch[0].trace()  # a run of the encoder has one trace, whoever else is in it
            for request, response in zip(batch, self._answers([self._read(request) for request in batch]), strict=True):
                _send(request, response)

    def _answers(self, asked: Sequence[Asked]) -> list[Any]:
        """One response for each request: all that can be answered run as one batch, the others get an error of their own."""
        queries = [query for one in asked for query in one.queries]
        try:
            answers = iter(self._service.answer(queries) if queries else [])
        except Exception as error:  # whatever it was, every request is answered and the server goes on
            return [self._answer(one.cached) if one.cached else _refuse(one.error or error) for one in asked]
        return [self._respond(one, answers) for one in asked]

    def _read(self, request: Any) -> Asked:  # noqa: ANN401  # the backend's classes exist only inside Triton
        try:
            texts = _strings(request, TEXT.name)
            options = _strings(request, OPTIONS.name) if OPTIONS in self._spec.inputs else [""] * len(texts)
            if len(texts) > MAX_BATCH_SIZE:
                raise InvalidInput(f"{len(texts)} texts in one request; accepted are at most {MAX_BATCH_SIZE}")
            keys = list(zip(texts, options, strict=True))
            if cached := self._cache.get(keys):
                return Asked(keys, cached)
            return Asked(keys, queries=self._service.queries(texts, [READ[self._spec.name](text) for text in options]))
        except Exception as error:  # a request that nobody thought of must not hurt those beside it
            return Asked([], error=error)

    def _respond(self, one: Asked, answers: Iterator[Any]) -> Any:  # noqa: ANN401
        if one.error:
            return _refuse(one.error)
        self._counters.add("texts", len(one.keys))
        if one.cached:
            self._counters.add("cache_hits", len(one.keys))
            return self._answer(one.cached)
        found = [next(answers) for _ in one.queries]
        if self._spec is EMBED:
            return self._answer(found)
        written = [answer.to_json().encode() for answer in found]
        self._cache.put(one.keys, written)
        self._counters.add("truncated_texts", sum(answer.truncated for answer in found))
        return self._answer(written)

    def _answer(self, rows: Sequence[Any]) -> Any:  # noqa: ANN401
        (output,) = self._spec.outputs
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(output.name, _tensor(output, rows))])

    def _counted(self, spec: ModelSpec, run: RunModel) -> RunModel:
        """The same; where it is what reads this model's texts, with what it reads counted."""
        if spec is not (MATCHER if self._spec is MATCH else ENCODER):
            return run

        def counted(inputs: Tensors) -> Tensors:
            self._counters.read(inputs[ATTENTION_MASK.name])
            return run(inputs)

        return counted

    def _model(self, spec: ModelSpec, version: int) -> RunModel:
        """A function that has this server run one of its models."""

        def run(inputs: Tensors) -> Tensors:
            request = pb_utils.InferenceRequest(
                model_name=spec.name,
                model_version=version,
                requested_output_names=[output.name for output in spec.outputs],
                inputs=[pb_utils.Tensor(name, values) for name, values in inputs.items()],
                trace=self._trace,
            )
            response = request.exec()
            if response.has_error():
                raise Unavailable(f"model {spec.name}, version {version}: {response.error().message()}")
            outputs = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
            if missing := [output.name for output in spec.outputs if output.name not in outputs]:
                raise InvalidAnswer(f"model {spec.name}, version {version} answered without {', '.join(missing)}")
            return outputs

        return run


def _bounded(requests: Sequence[Any], most_waiting: int) -> tuple[list[list[Any]], list[Any]]:
    """The requests, the first in order first, in batches of at most ``MAX_BATCH_SIZE`` texts; and those beyond the bound.

    What is urgent, of a priority below 1, shares no batch with the rest, which would take longer.
    """
    batches: list[list[Any]] = []
    beyond, waiting, room, urgent = [], 0, 0, False
    for request in requests:
        texts, before = _texts(request), urgent
        urgent = _priority(request) < 1
        if waiting and waiting + texts > most_waiting:
            beyond.append(request)
            continue
        if texts > room or urgent != before or not batches:
            batches.append([])
            room = MAX_BATCH_SIZE
        batches[-1].append(request)
        room -= texts
        waiting += texts
    return batches, beyond


def _texts(request: Any) -> int:  # noqa: ANN401
    return len(pb_utils.get_input_tensor_by_name(request, TEXT.name).as_numpy())


def _priority(request: Any) -> int:  # noqa: ANN401
    """Which requests go first: the smaller number. What is not a number is of priority 1."""
    given = json.loads(request.parameters() or "{}").get(PRIORITY, 1)
    return given if isinstance(given, int) else 1


def _gave_up(request: Any) -> bool:  # noqa: ANN401
    """Whether nobody waits for the answer any more; then it is refused, for Triton wants one for each request."""
    if not request.is_cancelled():
        return False
    _send(request, pb_utils.InferenceResponse(error=pb_utils.TritonError("cancelled", pb_utils.TritonError.CANCELLED)))
    return True


def _send(request: Any, response: Any) -> None:  # noqa: ANN401
    request.get_response_sender().send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _tensor(output: TensorSpec, rows: Sequence[Any]) -> Any:  # noqa: ANN401
    """(batch, 1) of bytes, or (batch, n) float32."""
    return np.asarray([[row] for row in rows], np.object_) if output.dtype == "BYTES" else np.stack(rows)


def _strings(request: Any, name: str) -> list[str]:  # noqa: ANN401
    """The texts of one BYTES input, (batch, 1). Raises InvalidInput, naming the row, where one is not UTF-8."""
    texts = []
    for row, value in enumerate(pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)):
        try:
            texts.append(value.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{name} {row} is not UTF-8: byte {error.start} is {value[error.start]:#04x}") from None
    return texts


def _refuse(error: Exception) -> Any:  # noqa: ANN401
    codes = pb_utils.TritonError
    if isinstance(error, InvalidInput):
        code, message = codes.INVALID_ARG, str(error)
    else:
        code = codes.UNAVAILABLE if isinstance(error, Unavailable | Full) else codes.INTERNAL
        message = f"Exceeds maximum queue size: {error}" if isinstance(error, Full) else f"{type(error).__name__}: {error}"
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message[:MOST_CHARACTERS], code))
