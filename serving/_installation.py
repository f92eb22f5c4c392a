"""The tritonserver that comes with the pip package nvidia-pytriton: where it lies, what it needs, whether it can run here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from bertrec.errors import MissingDependency, ServerFailed

BACKENDS = Path(__file__).parent / "backends"
"""The backends that this project adds to the package's own."""

PYTHONS = ((3, 11), (3, 12))
"""Of the Pythons that nvidia-pytriton brings a stub for, those that this project's training and serving run on."""

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

LOADER_FAILED = 127
"""Exit code of a program whose shared libraries are not all found. The stub, started without arguments, says 1 otherwise."""

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Helper libraries that would each start a thread per core in every stub. ONNX Runtime does not read these."""


@dataclass(frozen=True)
class Installation:
    """The files of an installed nvidia-pytriton that serve this Python."""

    server: Path
    libraries: Path
    python_backend: Path
    stub: Path

    @classmethod
    def find(cls) -> Installation:
        """Find it. Raises MissingDependency where it is not installed, ServerFailed where it cannot run, with the reason."""
        _check_python()
        spec = importlib.util.find_spec("pytriton")
        if spec is None or spec.origin is None:
            raise MissingDependency("nvidia-pytriton", "serving")
        if importlib.util.find_spec("onnxruntime") is None:
            raise MissingDependency("onnxruntime", "serving")
        _check_numpy()
        package = Path(spec.origin).parent
        found = cls(
            server=package / "tritonserver/bin/tritonserver",
            libraries=package.parent / "nvidia_pytriton.libs",
            python_backend=package / "tritonserver/backends/python",
            stub=package / "tritonserver/python_backend_stubs" / PYTHON / "triton_python_backend_stub",
        )
        for path in vars(found).values():
            if not path.exists():
                raise ServerFailed(f"{path} is missing from nvidia-pytriton; install it again: pip install 'bertrec[serving]'")
        return found

    def lay_out(self, folder: Path) -> None:
        """Write to ``folder`` what the server is started with: ``backends/``, and ``lib/`` with this Python's library."""
        backend = folder / "backends/python"
        backend.mkdir(parents=True)
        # Copies, not links: Triton refuses a backend library that lies outside of the backend directory.
        for path in (*self.python_backend.glob("*.*"), self.stub):
            shutil.copy(path, backend)
        shutil.copytree(BACKENDS, folder / "backends", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "lib").mkdir()
        library = _python_library()
        if library is not None:
            (folder / "lib" / library.name).symlink_to(library)
        self._check_stub(folder)

    def environment(self, folder: Path) -> dict[str, str]:
        """The environment for a server whose folder was laid out."""
        libraries = [str(folder / "lib"), str(self.libraries), os.environ.get("LD_LIBRARY_PATH", "")]
        return {
            **os.environ,
            "LD_LIBRARY_PATH": ":".join(path for path in libraries if path),
            # The stub runs in the environment of the first python3 that it finds.
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "PYTHONDONTWRITEBYTECODE": "1",  # the repository stays as it was assembled
            "TOKENIZERS_PARALLELISM": "false",
            **dict.fromkeys(ONE_THREAD, "1"),
        }

    def _check_stub(self, folder: Path) -> None:
        """Raises ServerFailed where the stub lacks a library: Triton would wait for it until the time is up."""
        command = [str(folder / "backends/python" / self.stub.name)]
        tried = subprocess.run(command, env=self.environment(folder), capture_output=True, text=True, check=False)
        if tried.returncode == LOADER_FAILED:
            reason = tried.stderr.strip().rpartition("libraries: ")[2]
            raise ServerFailed(
                f"Triton's python backend does not load: {reason}; if that is Python's own library, install "
                f"it (Debian: apt install libpython{PYTHON}; pyenv: build with --enable-shared)"
            )


def _check_python() -> None:
    here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform != "linux" or platform.machine() != "x86_64" or sys.version_info[:2] not in PYTHONS:
        raise ServerFailed(f"the pip-installed Triton runs on Python 3.11 or 3.12 on Linux x86_64; this is {here}")
    python3 = Path(sys.executable).parent / "python3"
    if not python3.exists() or not python3.samefile(sys.executable):
        raise ServerFailed(f"{python3} is not the running {sys.executable}; run from a virtual environment: python -m venv .venv")


def _check_numpy() -> None:
    version = importlib.metadata.version("numpy")
    if int(version.split(".")[0]) >= 2:
        raise ServerFailed(f"numpy {version} crashes Triton 2.51's python backend; install an older one: pip install 'numpy<2'")


def _python_library() -> Path | None:
    """The running Python's shared library, which the stub loads; None where it has none, or the system's loader finds it."""
    folder, name = sysconfig.get_config_vars("LIBDIR", "INSTSONAME")
    path = Path(str(folder), str(name))
    return path if path.suffix != ".a" and path.is_file() else None
