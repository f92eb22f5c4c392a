"""A stand-in for Triton's onnxruntime backend, for a tritonserver that comes without it.

Triton takes a folder ``backends/<name>/model.py`` as a *python-based backend*: it serves every model whose config says
``backend: "<name>"``. So the configs that NVIDIA's container serves with its C++ backend are served as they stand, by the
ONNX Runtime that is installed. The fields read are the C++ backend's, and two that it lacks:

    default_model_filename                       the file in the version's folder; model.onnx if not given
    model_operations op_library_filename         libraries of custom operators; libortextensions.so is onnxruntime-extensions',
                                                 and is taken from the installed package
    parameters intra_op_thread_count             threads inside an operator; 0: one per core
    parameters inter_op_thread_count             threads across operators
    parameters session.intra_op.allow_spinning   "0": threads sleep while they wait (the stand-in only)
    parameters session.force_spinning_stop       "1": they spin inside a run only (the stand-in only)

Requests that the batcher hands over are joined into one run, as the C++ backend does; those of a model whose max_batch_size is 0
are run one by one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

SESSION = ("session.intra_op.allow_spinning", "session.force_spinning_stop")
"""ONNX Runtime's own settings that a configuration may have."""
EXTENSIONS = "libortextensions.so"

Arrays = dict[str, NDArray[Any]]


class TritonPythonModel:
    """What Triton's python backend calls, once for each instance of each model."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the model's file. An error here fails the loading of the model, and is shown in Triton's log."""
        config = json.loads(args["model_config"])
        file = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / file
        if not path.is_file():
            raise pb_utils.TritonModelException(f"{path} is missing")
        try:
            self._session = onnxruntime.InferenceSession(str(path), _options(config), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen classes of its own, none with a common base
            message = " ".join(str(error).split())
            raise pb_utils.TritonModelException(
                f"{path} does not load in onnxruntime {onnxruntime.__version__}: {message}"
            ) from None
        self._batched = int(config.get("max_batch_size", 0)) > 0
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests: Sequence[Any]) -> None:
        """One response for each request; those of equal shape share a run.

        Each is sent by its request. A list that is returned is one message, and a server that was held up (SIGSTOP for a second
        and a half) was seen to take it as the answer to the requests that it handed over next.
        """
        inputs = [self._read(request) for request in requests]
        groups = _groups(inputs).values() if self._batched else [[row] for row in range(len(inputs))]
        for rows in groups:
            for row, response in zip(rows, self._answer([inputs[row] for row in rows]), strict=True):
                requests[row].get_response_sender().send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _answer(self, inputs: Sequence[Arrays]) -> list[Any]:
        """Responses to requests of equal shape: of one run, or of one run each if a bad request among them made it fail."""
        try:
            return self._run(inputs)
        except Exception as error:  # a request must not take the others, or the server, with it
            if len(inputs) > 1:
                return [response for one in inputs for response in self._answer([one])]
            message = f"onnxruntime: {' '.join(str(error).split())}"
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INTERNAL))]

    def _read(self, request: Any) -> Arrays:  # noqa: ANN401  # the backend's classes exist only inside Triton
        return {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}

    def _run(self, inputs: Sequence[Arrays]) -> list[Any]:
        """Run requests of equal shape as one batch and deal the rows out again."""
        joined = inputs[0] if len(inputs) == 1 else {name: np.concatenate([one[name] for one in inputs]) for name in self._inputs}
        outputs = self._session.run(self._outputs, {name: _decoded(values) for name, values in joined.items()})
        if len(inputs) == 1:
            return [pb_utils.InferenceResponse([pb_utils.Tensor(*pair) for pair in zip(self._outputs, outputs, strict=True)])]
        ends = np.cumsum([len(one[self._inputs[0]]) for one in inputs])
        parts = [np.split(output, ends[:-1]) for output in outputs]  # (outputs) lists of (requests) arrays
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(name, part) for name, part in zip(self._outputs, row, strict=True)])
            for row in zip(*parts, strict=True)
        ]


def _options(config: Mapping[str, Any]) -> onnxruntime.SessionOptions:
    given = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(given.get("intra_op_thread_count", "0"))
    options.inter_op_num_threads = int(given.get("inter_op_thread_count", "0"))
    options.log_severity_level = 3
    for name in SESSION:
        if name in given:
            options.add_session_config_entry(name, given[name])
    for library in config.get("model_operations", {}).get("op_library_filename", []):
        options.register_custom_ops_library(_installed_extensions() if library == EXTENSIONS else library)
    return options


def _installed_extensions() -> str:
    try:
        from onnxruntime_extensions import get_library_path  # only models with its operators need it
    except ImportError:
        raise ImportError(f"{EXTENSIONS} comes with onnxruntime-extensions: pip install 'bertrec[onefile]'") from None
    return str(get_library_path())


def _decoded(values: NDArray[Any]) -> NDArray[Any]:
    """Triton hands over strings as bytes; onnxruntime takes str. Raises UnicodeDecodeError, which fails this request alone."""
    if values.dtype != np.object_:
        return values
    return np.asarray([value.decode() for value in values.ravel()], np.object_).reshape(values.shape)


def _groups(inputs: Sequence[Arrays]) -> dict[tuple[tuple[int, ...], ...], list[int]]:
    """The requests by the shapes of their inputs, first (batch) dimension aside."""
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for row, one in enumerate(inputs):
        groups.setdefault(tuple(array.shape[1:] for array in one.values()), []).append(row)
    return groups
