"""Requests that nobody would write, to a real Triton over gRPC: each is refused or answered, and none ends a process."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]  # its stubs are a package of their own
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bertrec.answers import Options, Recommendation
from bertrec.tensors import EMBED, MATCH, OPTIONS, QUESTIONS, RECOMMEND, TEXT, ModelSpec
from serving.triton import TritonServer
from tests.serving.asking import ask
from tests.serving.processes import members
from tests.tiny import item_text

REQUESTS = 400
TIMEOUT_S = 20.0
DATATYPES = ("BYTES", "INT64", "FP32", "BOOL", "UINT8", "FP16", "BF16", "", "bytes", "\u2603")
REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.OUT_OF_RANGE,
}
"""What HTTP calls 4xx: the request's own fault."""

Fault = Callable[[Any, random.Random], None]


@pytest.fixture
def stub(full_triton: TritonServer) -> Iterator[Any]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(full_triton.grpc_url.partition("://")[2], options) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def good_request(model: ModelSpec = RECOMMEND, options: str = '{"k": 1}') -> Any:
    request = service_pb2.ModelInferRequest(model_name=model.name)
    values = {TEXT: "amber apron", OPTIONS: '{"items": ["3"]}' if model is MATCH else options}
    for wanted in model.inputs:
        tensor = request.inputs.add()
        tensor.name, tensor.datatype = wanted.name, "BYTES"
        tensor.shape.extend([1, 1])
        request.raw_input_contents.append(_packed(values[wanted].encode()))
    return request


def _packed(value: bytes) -> bytes:
    return len(value).to_bytes(4, "little") + value


def wrong_datatype(request: Any, chance: random.Random) -> None:
    chance.choice(request.inputs).datatype = chance.choice(DATATYPES)


def wrong_shape(request: Any, chance: random.Random) -> None:
    tensor = chance.choice(request.inputs)
    del tensor.shape[:]
    tensor.shape.extend(
        chance.choice([[], [1], [0, 1], [-1, 1], [1, 0], [1, 2], [2, 1], [65, 1], [2**62, 4], [1, 1, 1], [2**40, 1]])
    )


def wrong_shapes_alike(request: Any, chance: random.Random) -> None:
    shape = chance.choice([[0, 1], [65, 1], [2, 1], [2**31, 1]])
    for tensor in request.inputs:
        del tensor.shape[:]
        tensor.shape.extend(shape)


def missing_input(request: Any, chance: random.Random) -> None:
    number = chance.randrange(len(request.inputs))
    del request.inputs[number]
    del request.raw_input_contents[number]


def missing_content(request: Any, chance: random.Random) -> None:
    del request.raw_input_contents[chance.randrange(len(request.inputs)) :]


def twice_the_same(request: Any, chance: random.Random) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def unknown_name(request: Any, chance: random.Random) -> None:
    # Triton quotes the name, and of a status beyond 8 KiB gRPC lets some pass and turns some into RESOURCE_EXHAUSTED, by chance.
    chance.choice(request.inputs).name = chance.choice(["", "text", "TEXT ", "\u2603", "A" * 3_000])


def unknown_output(request: Any, chance: random.Random) -> None:
    request.outputs.add().name = chance.choice(["", "answer", "TEXT"])


def unknown_model(request: Any, chance: random.Random) -> None:
    request.model_name = chance.choice(["", "recommended", "../recommend", "\u2603"])


def unknown_version(request: Any, chance: random.Random) -> None:
    request.model_version = chance.choice(["2", "-1", "one", "99999999999999999999"])


def random_bytes(request: Any, chance: random.Random) -> None:
    request.raw_input_contents[chance.randrange(len(request.inputs))] = chance.randbytes(chance.randrange(64))


def not_text(request: Any, chance: random.Random) -> None:
    request.raw_input_contents[chance.randrange(len(request.inputs))] = _packed(b"\xff" + chance.randbytes(chance.randrange(64)))


def wrong_length(request: Any, chance: random.Random) -> None:
    request.raw_input_contents[chance.randrange(len(request.inputs))] = (
        chance.choice([0, 1, 2**31, 2**32 - 1]).to_bytes(4, "little") + b"amber"
    )


def typed_content_too(request: Any, chance: random.Random) -> None:
    request.inputs[0].contents.bytes_contents.append(b"amber")
    if chance.random() < 0.5:
        del request.raw_input_contents[:]


def huge_options(request: Any, chance: random.Random) -> None:
    huge = chance.choice(
        [
            "[" * 100_000,
            '{"k": ' + "9" * 10_000 + "}",
            json.dumps({"exclude": ["x" * 1_000] * 2_000}),
            json.dumps({"filters": {str(number): ["x"] for number in range(20_000)}}),
            json.dumps({"rules": [{}] * 10_000}),
            json.dumps({"unknown" * 10_000: 1}),
            '{"k": 1}' + " " * 2_000_000,
        ]
    )
    request.raw_input_contents[-1] = _packed(huge.encode())


def odd_options(request: Any, chance: random.Random) -> None:
    odd = [
        "null",
        "1",
        '"k"',
        "[]",
        '{"k": 0}',
        '{"k": NaN}',
        '{"k": 1e999}',
        '{"history": [1]}',
        '{"filters": {"a": 1}}',
        '{"diversity": -1}',
        '{"popularity": "1"}',
        '{"rules": [{"if": 1}]}',
        '{"spelling": 1}',
        '{"rerank": true}',
        '{"rerank": "yes"}',
        '{"rerank": true, "k": 200, "diversity": 1}',
        '{"items": []}',
        '{"items": [3]}',
        '{"items": ["3", "3"]}',
        '{"items": ["nobody\'s"]}',
        '{"k": true}',
        "\x00",
    ]
    request.raw_input_contents[-1] = _packed(chance.choice(odd).encode())


def huge_text(request: Any, chance: random.Random) -> None:
    request.raw_input_contents[0] = _packed(
        chance.choice([b"amber " * 500_000, b"a" * 3_000_000, b"\n" * 100_000, b"\xf0\x9f\xa7\xa5" * 99_999])
    )


def odd_parameters(request: Any, chance: random.Random) -> None:
    name = chance.choice(["timeout", "priority", "sequence_id", "triton_x", "sequence_start", *["bertrec_priority"] * 3])
    kind = chance.choice(["int64_param", "string_param", "bool_param"])
    value = {"int64_param": chance.choice([-1, 0, 3, 2**62]), "string_param": "\u2603", "bool_param": True}[kind]
    setattr(request.parameters[name], kind, value)


FAULTS: tuple[Fault, ...] = (
    wrong_datatype,
    wrong_shape,
    wrong_shapes_alike,
    missing_input,
    missing_content,
    twice_the_same,
    unknown_name,
    unknown_output,
    unknown_model,
    unknown_version,
    random_bytes,
    not_text,
    wrong_length,
    typed_content_too,
    huge_options,
    odd_options,
    huge_text,
    odd_parameters,
)


def outcome(send: Callable[..., Any], request: Any) -> tuple[Any, bytes]:
    """The status, and its message or the answer's first output."""
    try:
        answer = send(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return error.code(), str(error.details()).encode()
    return grpc.StatusCode.OK, answer.raw_output_contents[0]


def read(model: ModelSpec, said: bytes) -> None:
    """Raises for what is no answer of the model."""
    if model is EMBED:
        assert abs(np.linalg.norm(np.frombuffer(said, np.float32)) - 1) < 1e-3
    elif model is RECOMMEND:
        Recommendation.from_json(said[4:].decode())
    else:
        assert json.loads(said[4:])["matches" if model is MATCH else "labels"]


@pytest.fixture
def goes_on(full_triton: TritonServer) -> Iterator[None]:
    """Afterwards the same processes answer a good request, rightly."""
    before = members(full_triton.pid)
    yield
    assert members(full_triton.pid) == before
    assert ask(full_triton, "grpc", [item_text(3)], Options(k=1))[0].items[0].item_id == "3"


@pytest.mark.usefixtures("goes_on")
def test_every_malformed_request_is_refused_or_answered(stub: Any) -> None:
    chance, seen, answered = random.Random(0), {fault: Counter[str]() for fault in FAULTS}, Counter[str]()
    for number in range(REQUESTS):
        fault, model = FAULTS[number % len(FAULTS)], QUESTIONS[number // len(FAULTS) % len(QUESTIONS)]
        request = good_request(model)
        fault(request, chance)
        code, said = outcome(stub.ModelInfer, request)
        seen[fault][code.name] += 1
        assert code is grpc.StatusCode.OK or code in REFUSED, (fault.__name__, str(request)[:2_000], code, said)
        if code is grpc.StatusCode.OK and fault is not wrong_shapes_alike:  # which asks for no row at all, or for one
            read(model, said)
            answered[model.name] += 1
    assert not seen[missing_input]["OK"] and not seen[unknown_name]["OK"] and not seen[not_text]["OK"]
    assert seen[huge_text]["OK"] > 0  # cut, and answered
    assert set(answered) == {model.name for model in QUESTIONS}


@pytest.mark.usefixtures("goes_on")
def test_bytes_that_are_no_message_at_all(full_triton: TritonServer) -> None:
    chance = random.Random(0)
    whole = good_request().SerializeToString()
    with grpc.insecure_channel(full_triton.grpc_url.partition("://")[2]) as channel:
        send = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=bytes,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        codes = Counter(outcome(send, chance.randbytes(1 + chance.randrange(200)))[0] for _ in range(50))
        codes += Counter(outcome(send, whole[: chance.randrange(len(whole))])[0] for _ in range(50))
    # gRPC itself says INTERNAL for what it cannot parse, before Triton sees it.
    assert set(codes) <= REFUSED | {grpc.StatusCode.INTERNAL}
