"""Write the names that TensorRT's Python bindings have, one ``class.member`` a line, into the text files beside this one.

    python -m tests.export.tensorrt_names.regenerate

Needs pip, gcc and Linux x86-64, and no GPU: the wheels of the bindings install without NVIDIA's libraries, and load when empty
libraries of the same names are there. Only names are kept, nothing of NVIDIA's text.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
VERSIONS = {
    "10.0": "tensorrt_cu12_bindings==10.0.1",
    "10.16": "tensorrt_cu12_bindings==10.16.1.11",
    "11.4": "tensorrt_cu13_bindings==11.4.0.106",
}
"""The oldest that the extra ``tensorrt`` accepts, the last 10, and the newest."""
CLASSES = (
    *("Builder", "BuilderFlag", "HardwareCompatibilityLevel", "IBuilderConfig", "ILogger", "INetworkDefinition"),
    *("IOptimizationProfile", "IProgressMonitor", "ITimingCache", "MemoryPoolType", "NetworkDefinitionCreationFlag"),
    *("OnnxParser", "ParserError"),
)
PRINT_NAMES = """
import ctypes, os, pathlib, sys
bindings, empty, classes = sys.argv[1:]
for library in pathlib.Path(empty).iterdir():
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
sys.setdlopenflags(os.RTLD_LAZY)  # what the libraries have besides is looked for when it is called, which is never
sys.path.insert(0, bindings)
import tensorrt_bindings
for name in classes.split(","):
    for member in dir(getattr(tensorrt_bindings, name)):
        if not member.startswith("_"):
            print(f"{name}.{member}")
"""


def main() -> None:
    """Write one file a version."""
    for version, requirement in VERSIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            names = _names(requirement, Path(folder))
        (HERE / f"{version}.txt").write_text(names, encoding="utf-8")


def _names(requirement: str, folder: Path) -> str:
    _run(sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), requirement)
    (wheel,) = folder.glob("*.whl")
    bindings, empty = folder / "bindings", folder / "empty"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(bindings)
    empty.mkdir()
    library = bindings / "tensorrt_bindings" / "tensorrt.so"
    source = folder / "empty.c"
    source.write_text("".join(f"void *{function}(void) {{ return 0; }}\n" for function in _wanted(library)))
    for name in sorted(set(re.findall(rb"libnv\w+\.so\.\d+", library.read_bytes()))):
        soname = name.decode()
        _run("gcc", "-shared", "-fno-builtin", str(source), "-o", str(empty / soname), f"-Wl,-soname,{soname}")
    return _run(sys.executable, "-c", PRINT_NAMES, str(bindings), str(empty), ",".join(CLASSES))


def _wanted(library: Path) -> list[str]:
    """The C functions that the bindings look for in NVIDIA's libraries."""
    symbols = [line.split()[-1] for line in _run("nm", "--dynamic", "--undefined-only", str(library)).splitlines()]
    return [name for name in symbols if re.match(r"(createInfer|createNv|get|initLib)\w*(?!.*@)$", name)]


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
