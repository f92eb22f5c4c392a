"""From an ONNX file to an engine file, by TensorRT (10 and 11) or by TensorRT for RTX; both have one API.

Networks are strongly typed: precision is in the graph (casts to float16, QuantizeLinear and DequantizeLinear), as TensorRT 11
wants it. tests/export/test_tensorrt_names.py holds every name that is used here against the bindings of 10.0, 10.16 and 11.4.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bertrec.bundle import Runtime
from bertrec.errors import InvalidInput, MissingDependency
from bertrec.tensors import ModelSpec
from export.tensorrt.graphs import check_graph
from export.tensorrt.settings import COMPILERS, BuildSettings, HardwareCompatibility, Profile
from export.tensorrt.stamps import gpu_capability, make_stamp

log = logging.getLogger(__name__)

EXTRAS = {Runtime.TENSORRT: "tensorrt", Runtime.TENSORRT_RTX: "tensorrt-rtx"}
SECONDS_BETWEEN_LINES = 10.0


def installed_runtime() -> Runtime:
    """TensorRT where it is installed, else TensorRT for RTX. Raises MissingDependency where there is neither."""
    for runtime in COMPILERS:
        if importlib.util.find_spec(runtime.value) is not None:
            return runtime
    raise MissingDependency("tensorrt (or tensorrt_rtx)", EXTRAS[Runtime.TENSORRT])


def build_engine(
    source: Path, engine: Path, *, spec: ModelSpec, profiles: Sequence[Profile], settings: BuildSettings, precision: str = "fp32"
) -> dict[str, Any]:
    """Compile the ONNX file ``source`` into the file ``engine``; returns its stamp, whose source is the file's own name.

    spec: whose tensors it must take and give. precision: of the graph, for the stamp. Logs progress. Raises InvalidInput for a
    graph that TensorRT cannot compile, for TensorRT without a GPU and where the compiler gives up; MissingDependency without
    the compiler.
    """
    check_graph(source, spec)
    trt = _load(settings.runtime)
    if settings.runtime is Runtime.TENSORRT and not gpu_capability():
        raise InvalidInput(
            "TensorRT compiles on the GPU that it compiles for, and there is none here. Run it on the target, in NVIDIA's "
            "container (docs/gpu.md), or use the runtime tensorrt_rtx, which needs no GPU"
        )
    logger, monitor = _logger(trt), _monitor(trt, f"{settings.runtime.value} compiles {source.name}")
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        raise InvalidInput(f"{source} is not understood by {settings.runtime.value} {trt.__version__}: {_first_error(parser)}")
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    _configure(trt, config, settings)
    for one in profiles:
        profile = builder.create_optimization_profile()
        for name, (smallest, usual, largest) in one.shapes.items():
            profile.set_shape(name, smallest, usual, largest)
        if config.add_optimization_profile(profile) < 0:
            raise InvalidInput(f"{settings.runtime.value} refuses the optimisation profile {dict(one.shapes)}")
    _read_timing_cache(config, settings.timing_cache)
    with _ctrl_c_ends(monitor):
        plan = builder.build_serialized_network(network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise InvalidInput(f"{settings.runtime.value} {trt.__version__} cannot compile {source}: {'; '.join(logger.errors)}")
    engine.parent.mkdir(parents=True, exist_ok=True)
    engine.write_bytes(plan)
    _write_timing_cache(config, settings.timing_cache)
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    version = str(trt.__version__)
    return make_stamp(settings, version=version, source=source.name, source_sha256=sha256, precision=precision, profiles=profiles)


def _load(runtime: Runtime) -> Any:  # noqa: ANN401  # a module that need not be installed
    try:
        return importlib.import_module(runtime.value)
    except ImportError as error:
        raise MissingDependency(runtime.value, EXTRAS[runtime]) from error


def _configure(trt: Any, config: Any, settings: BuildSettings) -> None:  # noqa: ANN401
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if not settings.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatibility is not HardwareCompatibility.NONE:
        level = getattr(trt.HardwareCompatibilityLevel, settings.hardware_compatibility.name, None)
        if level is None:
            raise InvalidInput(
                f"TensorRT {trt.__version__} has no hardware compatibility {settings.hardware_compatibility.value}; "
                "use ampere_plus, or a newer TensorRT"
            )
        config.hardware_compatibility_level = level
    if settings.runtime is Runtime.TENSORRT_RTX and settings.target_sm:
        config.num_compute_capabilities = len(settings.target_sm)
        for index, sm in enumerate(settings.target_sm):
            capability = getattr(trt.ComputeCapability, f"SM{sm}", None)
            if capability is None or not config.set_compute_capability(capability, index):
                raise InvalidInput(f"tensorrt_rtx {trt.__version__} cannot compile for {sm}; leave it out of target_sm")


def _first_error(parser: Any) -> str:  # noqa: ANN401
    if not parser.num_errors:
        return "it does not say why"
    error = parser.get_error(0)
    return f"{error.desc()} (node {error.node_name()!r}, operator {error.node_operator()})"


def _read_timing_cache(config: Any, path: Path | None) -> None:  # noqa: ANN401
    """Give the build the times that earlier ones kept; those of another GPU or version are left aside, with a warning."""
    if path is None:
        return
    kept = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(kept)
    if cache is None or not config.set_timing_cache(cache, False):
        log.warning("the timing cache %s is of another GPU or version, or damaged; it is written anew", path)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)


def _write_timing_cache(config: Any, path: Path | None) -> None:  # noqa: ANN401
    if path is None:
        return
    cache = config.get_timing_cache()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(cache.serialize())
    os.replace(partial, path)


def _logger(trt: Any) -> Any:  # noqa: ANN401
    """A logger that passes TensorRT's messages on, and keeps the errors for the exception."""
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.WARNING,
        trt.ILogger.INFO: logging.DEBUG,
        trt.ILogger.VERBOSE: logging.DEBUG,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]  # a base class that need not be installed
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            level = levels[severity]
            if level == logging.ERROR:
                self.errors.append(message)
            if "Int64 binding" in message:  # a reminder; Triton's config says INT64, and the tensors are checked
                level = logging.DEBUG
            log.log(level, "%s: %s", trt.__name__, message)

    return Logger()


def _monitor(trt: Any, label: str) -> Any:  # noqa: ANN401
    """Logs a line every ten seconds, and ends the build when ``interrupted`` is set."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # see above
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._started = self._said = time.monotonic()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps

        def phase_finish(self, phase: str) -> None:
            self._steps.pop(phase, None)

        def step_complete(self, phase: str, step: int) -> bool:
            """Whether to go on."""
            now = time.monotonic()
            if now - self._said >= SECONDS_BETWEEN_LINES:
                self._said = now
                steps = self._steps.get(phase, step + 1)
                log.info("%s: %.0f s, %s %d/%d", label, now - self._started, phase.lower(), step + 1, steps)
            return not self.interrupted

    return Monitor()


@contextmanager
def _ctrl_c_ends(monitor: Any) -> Iterator[None]:  # noqa: ANN401
    """Ctrl-C tells the monitor, which ends the build at its next step: an exception must not pass through C++."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        monitor.interrupted = True

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
