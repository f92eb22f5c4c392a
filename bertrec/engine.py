"""ONNX Runtime sessions: one place for their options."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bertrec.errors import InvalidBundle, InvalidInput, MissingDependency, Unavailable
from bertrec.session_options import Device, SessionOptions
from bertrec.tensors import ModelSpec

try:
    import onnxruntime
except ImportError:
    onnxruntime = None

log = logging.getLogger(__name__)

CPU_PROVIDER = "CPUExecutionProvider"
COMPILED_SUFFIXES = (".plan", ".rtx")
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
"""Both bring the folder ``onnxruntime``: the second overwrites the first, and uninstalling one takes files of the other."""

GPU_PROVIDERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("TensorrtExecutionProvider", {}),
    # TF32 rounds the inputs of fp32 products to 10 bits, and the order of items hangs on the last digits.
    ("CUDAExecutionProvider", {"use_tf32": "0"}),
)
"""What device gpu asks for, best first, each with its options; the CPU comes last."""


class OnnxEngine:
    """One ONNX file that takes and gives the tensors of one ModelSpec. Thread-safe, as ONNX Runtime sessions are.

    provider: the execution provider that it got, such as ``CPUExecutionProvider``.
    """

    def __init__(self, path: Path, spec: ModelSpec, session: SessionOptions | None = None) -> None:
        """Load ``path``. Logs a warning where the GPU was asked for and its best provider is not to be had.

        Raises MissingDependency without onnxruntime or where it is not whole, InvalidBundle where the file does not load or has
        other tensors, InvalidInput for an engine that TensorRT compiled.
        """
        session = session or SessionOptions()
        if not hasattr(onnxruntime, "InferenceSession"):  # a folder that an uninstalled package left is imported, and is empty
            if installed := _installed():
                raise MissingDependency("onnxruntime", advice=f"{installed} cannot be imported whole: {_anew(session.device)}")
            raise MissingDependency("onnxruntime", Device(session.device).value)
        if path.suffix in COMPILED_SUFFIXES:
            raise InvalidInput(f"{path} is compiled by TensorRT, and this runs ONNX files; choose an engine that is one")
        self._path = path
        self._session = _session(path, session)
        self.provider: str = self._session.get_providers()[0]
        if session.device is Device.GPU and self.provider != GPU_PROVIDERS[0][0]:
            log.warning(
                "%s runs on %s; the GPU was asked for, best by %s. %s", path, self.provider, GPU_PROVIDERS[0][0], _advice()
            )
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


def _session(path: Path, session: SessionOptions) -> Any:  # noqa: ANN401  # onnxruntime need not be installed
    """A session on the best provider that starts. Raises InvalidBundle where the file does not even load on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = session.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = session.memory_arena
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(session.allow_spinning)))
    if session.affinity:  # onnxruntime counts cores from 1
        cores = ";".join(str(core + 1) for core in session.affinity)
        options.add_session_config_entry("session.intra_op_thread_affinities", cores)
    there = onnxruntime.get_available_providers()
    wanted = [one for one in GPU_PROVIDERS if one[0] in there] if session.device is Device.GPU else []
    for first in range(len(wanted)):
        try:  # without onnxruntime's own fallback, which prints to stdout
            return _start(path, options, [*wanted[first:], (CPU_PROVIDER, {})])
        except Exception as error:  # onnxruntime raises a dozen classes of its own, none with a common base
            log.warning("%s does not start on %s: %s", path, wanted[first][0], error)
    try:
        return _start(path, options, [(CPU_PROVIDER, {})])
    except Exception as error:  # see above
        raise InvalidBundle(f"{path} does not load in onnxruntime {onnxruntime.__version__}: {error}") from error


def _start(path: Path, options: Any, providers: list[tuple[str, dict[str, str]]]) -> Any:  # noqa: ANN401
    return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)


def _advice() -> str:
    if GPU_PROVIDERS[0][0] in onnxruntime.get_available_providers():
        return "It needs a GPU, and the libraries of CUDA, cuDNN and TensorRT on the library path"
    installed = _installed()
    wrong = f"{installed} overwrite each other's files" if " and " in installed else "This onnxruntime has no such provider"
    return f"{wrong}: {_anew(Device.GPU)}"


def _installed() -> str:
    """The packages that brought the folder onnxruntime, by what pip recorded; empty where none did."""
    found = []
    for name in DISTRIBUTIONS:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return " and ".join(found)


def _anew(device: Device | str) -> str:
    return f"pip uninstall {' '.join(DISTRIBUTIONS)}, then pip install 'bertrec[{Device(device).value}]'"
