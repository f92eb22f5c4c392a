"""The wheel: holds bertrec and nothing else, and answers from a bundle on every Python that it is made for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "bertrec", "client")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
NOT_LOADED = ("torch", "transformers", "tensorrt", "sklearn", "scipy", "pandas", "pyarrow")

ANSWER = f"""
import sys
from bertrec.client import Recommender
heavy = sorted(set(sys.modules) & set({(*NOT_LOADED, "onnxruntime", "tritonclient", "grpc")!r}))
assert not heavy, f"importing bertrec.client loads {{heavy}}"
with Recommender("grpc://127.0.0.1:1", fallback=sys.argv[1]) as recommender:
    answer = recommender.recommend("denim dress", k=1)
assert not set(sys.modules) & set({NOT_LOADED!r})
print(answer.items[0].item_id, answer.served_by, answer.degraded, sys.modules["bertrec"].__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout keeps no build folder; with this environment's setuptools if it is new enough."""
    copy, output = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / name, copy)
    isolation = ["--no-isolation"] if _has_setuptools(77) else []
    _run([sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", str(output), str(copy)], cwd=output)
    [built] = output.glob("*.whl")
    return built


def test_the_wheel_holds_bertrec_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    version = wheel.name.split("-")[1]
    assert {name.split("/")[0] for name in names} == {"bertrec", f"bertrec-{version}.dist-info"}
    modules = {f"bertrec/{path.relative_to(CHECKOUT / 'bertrec').as_posix()}" for path in (CHECKOUT / "bertrec").rglob("*.py")}
    modules |= {f"bertrec/{path.relative_to(CHECKOUT).as_posix()}" for path in (CHECKOUT / "client").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert {"bertrec/py.typed", f"bertrec-{version}.dist-info/licenses/LICENSE"} <= names
    scripts = zipfile.ZipFile(wheel).read(f"bertrec-{version}.dist-info/entry_points.txt").decode()
    assert scripts.split("\n")[:2] == ["[console_scripts]", "bertrec = bertrec.client.__main__:main"]


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_answers_in_a_fresh_environment(version: str, wheel: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    python = _interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on PATH that runs")
    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    # This environment's pip installs into the new one, which saves the new one's own; what is not loaded is not compiled.
    _run([python, "-m", "venv", "--without-pip", str(environment)], cwd=elsewhere)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin/python"), "--quiet", "--disable-pip-version-check"]
    # Wheels only: where a dependency has none for this Python, that is to be known.
    _run([*pip, "install", "--no-compile", "--only-binary=:all:", f"{wheel}[cpu]"], cwd=elsewhere)

    answered = _run([str(environment / "bin/python"), "-c", ANSWER, str(tiny_bundle)], cwd=elsewhere).split()
    assert answered[:3] == ["3", "edge", "True"]
    assert Path(answered[3]).is_relative_to(environment)
    command = [str(environment / "bin/bertrec"), "recommend", "denim dress", "--bundle", str(tiny_bundle), "-k", "1", "--json"]
    record = json.loads(_run(command, cwd=elsewhere))
    assert (record["items"][0]["item_id"], record["served_by"], record["engine"]) == ("3", "edge", "fp32")


def _has_setuptools(major: int) -> bool:
    try:
        return int(metadata.version("setuptools").split(".")[0]) >= major
    except metadata.PackageNotFoundError:
        return False


def _interpreter(version: str) -> str | None:
    """A Python of that version that runs: a name on PATH may be a shim of pyenv's for a Python that is not selected."""
    if (named := shutil.which(f"python{version}")) and _runs(named):
        return named
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return next((str(path) for path in sorted(root.glob(f"versions/{version}.*/bin/python")) if _runs(str(path))), None)


def _runs(python: str) -> bool:
    return subprocess.run([python, "-c", "import venv"], capture_output=True, check=False).returncode == 0


def _run(command: list[str], *, cwd: Path) -> str:
    """The command's output; it sees nothing of this environment or of the checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout
