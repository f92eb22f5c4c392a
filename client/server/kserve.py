"""The KServe v2 inference protocol for the models that clients ask: JSON, and Triton's binary tensors.

https://github.com/kserve/open-inference-protocol and Triton's extension_binary_data.md. Everything raises Refusal (400).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertrec import __version__
from bertrec.tensors import MAX_BATCH_SIZE, OPTIONS, TEXT, ModelSpec, TensorSpec

from .refusal import BAD_REQUEST, Refusal

VERSION = "1"
HEADER_LENGTH = "Inference-Header-Content-Length"
LENGTH_BYTES = 4  # before each string of a BYTES tensor, little-endian


@dataclass(frozen=True)
class InferRequest:
    """What was asked of a model. texts and options: one a row, empty where it has none. binary: whether tensors go as bytes."""

    texts: tuple[str, ...]
    options: tuple[str, ...]
    request_id: str
    binary: bool


def server_metadata() -> dict[str, Any]:
    """The body of GET /v2."""
    return {"name": "bertrec", "version": __version__, "extensions": ["binary_tensor_data", "model_configuration"]}


def model_metadata(model: ModelSpec) -> dict[str, Any]:
    """The body of GET /v2/models/<model>."""
    return {
        "name": model.name,
        "versions": [VERSION],
        "platform": "bertrec_edge",
        "inputs": [_metadata(spec) for spec in model.inputs],
        "outputs": [_metadata(spec) for spec in model.outputs],
    }


def model_config(model: ModelSpec) -> dict[str, Any]:
    """The body of GET /v2/models/<model>/config, as far as clients look at it."""
    return {
        "name": model.name,
        "backend": "bertrec_edge",
        "max_batch_size": MAX_BATCH_SIZE,
        "input": [_config(spec) for spec in model.inputs],
        "output": [_config(spec) for spec in model.outputs],
        "dynamic_batching": {},
    }


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.dtype, "shape": [-1, *_sizes(spec)]}


def _config(spec: TensorSpec) -> dict[str, Any]:
    dtype = "STRING" if spec.dtype == "BYTES" else spec.dtype
    return {"name": spec.name, "data_type": f"TYPE_{dtype}", "dims": [str(size) for size in _sizes(spec)]}


def _sizes(spec: TensorSpec) -> list[int]:
    """Of all dimensions but the batch; -1 for one that the bundle fixes."""
    return [size if isinstance(size, int) else -1 for size in spec.shape[1:]]


def read_request(model: ModelSpec, body: bytes, header_length: str | None) -> InferRequest:
    """Read an inference request; ``header_length`` is the header of that name, which says how much of the body is JSON."""
    length = len(body) if header_length is None else _header_length(header_length, len(body))
    given = read_object(body[:length])
    tail = _Tail(body[length:])
    rows = {}
    accepted = " and ".join(spec.name for spec in model.inputs)
    for tensor in _objects(given, "inputs"):
        spec = next((spec for spec in model.inputs if spec.name == tensor.get("name")), None)
        if spec is None or spec.name in rows:
            raise Refusal(BAD_REQUEST, f"the input {tensor.get('name')!r} is unknown or comes twice; accepted are {accepted}")
        rows[spec.name] = _rows(spec, tensor, tail)
    if missing := [spec.name for spec in model.inputs if spec.name not in rows]:
        raise Refusal(BAD_REQUEST, f"expected {len(model.inputs)} inputs but got {len(rows)}: {', '.join(missing)} is missing")
    tail.check_read()
    rows.setdefault(OPTIONS.name, [""] * len(rows[TEXT.name]))
    if len(rows[TEXT.name]) != len(rows[OPTIONS.name]):
        raise Refusal(
            BAD_REQUEST,
            f"batch size does not match: TEXT has {len(rows[TEXT.name])} rows and OPTIONS {len(rows[OPTIONS.name])}",
        )
    return InferRequest(tuple(rows[TEXT.name]), tuple(rows[OPTIONS.name]), _request_id(given), _wants_binary(given, model))


def write_response(model: ModelSpec, answers: Sequence[Any], request: InferRequest) -> tuple[bytes, dict[str, str]]:
    """The body of a response and its headers; ``answers`` is one a row: a str, or (n,) float32."""
    (spec,) = model.outputs
    width = 1 if spec.dtype == "BYTES" else len(answers[0])
    output: dict[str, Any] = {"name": spec.name, "datatype": spec.dtype, "shape": [len(answers), width]}
    content: dict[str, Any] = {"model_name": model.name, "model_version": VERSION, "outputs": [output]}
    if request.request_id:
        content["id"] = request.request_id
    if not request.binary:
        output["data"] = list(answers) if spec.dtype == "BYTES" else [value for row in answers for value in row.tolist()]
        return _dump(content), {"Content-Type": "application/json"}
    tensor = b"".join(map(_encoded, answers))
    output["parameters"] = {"binary_data_size": len(tensor)}
    header = _dump(content)
    return header + tensor, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}


def _encoded(row: Any) -> bytes:  # noqa: ANN401
    if not isinstance(row, str):
        return bytes(row.astype("<f4").tobytes())
    content = row.encode()
    return len(content).to_bytes(LENGTH_BYTES, "little") + content


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(BAD_REQUEST, f"the body is not JSON ({error})") from None
    if not isinstance(given, dict):
        raise Refusal(BAD_REQUEST, f"the body is a JSON {type(given).__name__}; accepted is an object")
    return given


def _dump(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def _header_length(given: str, most: int) -> int:
    if not (given.isascii() and given.isdigit() and len(given) < 12 and int(given) <= most):
        raise Refusal(BAD_REQUEST, f"{HEADER_LENGTH} is {given!r}; accepted is a number of bytes up to the body's {most}")
    return int(given)


class _Tail:
    """The bytes behind the JSON: the binary tensors, one after another."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._start = 0

    def take(self, size: object, name: str) -> bytes:
        """The next ``size`` bytes, of the tensor ``name``. Raises Refusal where fewer are left."""
        left = len(self._content) - self._start
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= left:
            raise Refusal(BAD_REQUEST, f"binary_data_size of {name} is {size!r}; {left} bytes are left of the body")
        self._start += size
        return self._content[self._start - size : self._start]

    def check_read(self) -> None:
        """Raises Refusal where bytes are left that no tensor took."""
        if left := len(self._content) - self._start:
            raise Refusal(BAD_REQUEST, f"{left} bytes behind the last tensor belong to nothing")


def _rows(spec: TensorSpec, tensor: Mapping[str, Any], tail: _Tail) -> list[str]:
    """The strings of one input of shape (batch, 1)."""
    if tensor.get("datatype") != spec.dtype:
        raise Refusal(BAD_REQUEST, f"the datatype of {spec.name} is {tensor.get('datatype')!r}; accepted is {spec.dtype}")
    shape = tensor.get("shape")
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(size) is int for size in shape) and shape[1] == 1):
        raise Refusal(BAD_REQUEST, f"the shape of {spec.name} is {shape!r}; accepted is [texts, 1]")
    if not 1 <= shape[0] <= MAX_BATCH_SIZE:
        raise Refusal(BAD_REQUEST, f"{spec.name} has {shape[0]} rows; batch-size must be <= {MAX_BATCH_SIZE} and at least 1")
    parameters = _parameters(tensor)
    if "shared_memory_region" in parameters:
        raise Refusal(BAD_REQUEST, f"{spec.name} lies in shared memory, which this server does not read; send it in the body")
    if "binary_data_size" in parameters:
        values = _decoded(spec.name, tail.take(parameters["binary_data_size"], spec.name))
    else:
        values = _flat(spec.name, tensor.get("data"))
    if len(values) != shape[0]:
        raise Refusal(BAD_REQUEST, f"{spec.name} holds {len(values)} strings, and its shape says {shape[0]}")
    return values


def _flat(name: str, data: object) -> list[str]:
    """JSON data, which may be nested as the shape is."""
    rows = data if isinstance(data, list) else [data]
    flat = [row[0] if isinstance(row, list) and len(row) == 1 else row for row in rows]
    values = [value for value in flat if isinstance(value, str)]
    if len(values) != len(flat):
        raise Refusal(BAD_REQUEST, f"data of {name} is not a list of strings, one a row")
    return values


def _decoded(name: str, content: bytes) -> list[str]:
    """The strings of a binary BYTES tensor."""
    values: list[str] = []
    start = 0
    while start < len(content):
        end = start + LENGTH_BYTES + int.from_bytes(content[start : start + LENGTH_BYTES], "little")
        if start + LENGTH_BYTES > len(content) or end > len(content):
            raise Refusal(BAD_REQUEST, f"the binary data of {name} ends within string {len(values)}")
        value = content[start + LENGTH_BYTES : end]
        try:
            values.append(value.decode("utf-8"))
        except UnicodeDecodeError as error:
            message = f"{name} {len(values)} is not UTF-8: byte {error.start} is {value[error.start]:#04x}"
            raise Refusal(BAD_REQUEST, message) from None
        start = end
    return values


def _wants_binary(given: Mapping[str, Any], model: ModelSpec) -> bool:
    if "outputs" not in given:
        return _parameters(given).get("binary_data_output") is True
    binary = False
    (wanted,) = model.outputs
    for output in _objects(given, "outputs"):
        if output.get("name") != wanted.name:
            raise Refusal(BAD_REQUEST, f"the output {output.get('name')!r} is unknown; there is {wanted.name}")
        binary = binary or _parameters(output).get("binary_data") is True
    return binary


def _request_id(given: Mapping[str, Any]) -> str:
    request_id = given.get("id", "")
    if not (isinstance(request_id, str) and request_id.isprintable()):  # a lone surrogate is not printable either
        raise Refusal(BAD_REQUEST, "id is not a printable string")
    return request_id


def _objects(given: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    values = given.get(key)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise Refusal(BAD_REQUEST, f"{key} is missing or not a list of objects")
    return values


def _parameters(given: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = given.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refusal(BAD_REQUEST, "parameters is not an object")
    return parameters
