"""ONNX Runtime sessions: one place for their options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bertrec.errors import InvalidBundle, MissingDependency, Unavailable
from bertrec.tensors import ModelSpec

try:
    import onnxruntime
except ImportError:
    onnxruntime = None


class OnnxEngine:
    """One ONNX file that takes and gives the tensors of one ModelSpec. Thread-safe, as ONNX Runtime sessions are."""

    def __init__(self, path: Path, spec: ModelSpec, *, threads: int = 0) -> None:
        """Load ``path`` with ``threads`` intra-op threads (0: one per core, ONNX Runtime's default).

        Raises MissingDependency without onnxruntime, InvalidBundle where the file does not load or has other tensors.
        """
        if onnxruntime is None:
            raise MissingDependency("onnxruntime", "cpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Waiting threads that spin take the core from the other engine, or from the server beside it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen classes of its own, none with a common base
            raise InvalidBundle(f"{path} does not load in onnxruntime {onnxruntime.__version__}: {error}") from error
        self._path = path
        self._outputs = [output.name for output in spec.outputs]
        self._check_names(path, "inputs", [tensor.name for tensor in spec.inputs], self._session.get_inputs())
        self._check_names(path, "outputs", self._outputs, self._session.get_outputs())

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Inputs by name → outputs by name. Raises Unavailable where onnxruntime fails, for want of memory for instance."""
        try:
            outputs = self._session.run(self._outputs, dict(inputs))
        except Exception as error:  # see above
            raise Unavailable(f"{self._path} failed in onnxruntime {onnxruntime.__version__}: {error}") from error
        return dict(zip(self._outputs, outputs, strict=True))

    @staticmethod
    def _check_names(path: Path, kind: str, wanted: list[str], found: list[Any]) -> None:
        names = [tensor.name for tensor in found]
        if sorted(names) != sorted(wanted):
            raise InvalidBundle(f"{path} has the {kind} {names}; accepted are {wanted}. Export the bundle again")
