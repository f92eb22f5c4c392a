"""The peers' environments: made once, and kept for the next run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.catalogue import Environment
from bertrec.errors import BertrecError

CONSTRAINTS = Path(__file__).parent / "constraints"
READY_FILE = "ready"
INSTALL_TIMEOUT_S = 1_800.0


class NotInstalled(BertrecError):
    """A peer's environment cannot be had; the message is the last line of what pip said."""


def environment_python(environment: Environment, folder: Path) -> Path:
    """The interpreter of a peer's environment under ``folder``, which is made where it is not there, or not of these versions.

    Raises NotInstalled with the reason.
    """
    constraints = CONSTRAINTS / f"{environment.name}.txt"
    if not constraints.is_file():
        raise NotInstalled(f"{constraints.name} is missing: nothing is installed without pinned versions")
    home = folder / environment.name
    python, ready = home / "bin" / "python", home / READY_FILE
    wanted = _digest(environment, constraints)
    if not (python.is_file() and ready.is_file() and ready.read_text(encoding="utf-8") == wanted):
        if not python.is_file():
            _run([sys.executable, "-m", "venv", str(home)])
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "install", "--constraint", str(constraints), *environment.requirements])
        if environment.removed:
            _run([*pip, "uninstall", "--yes", *environment.removed])
        ready.write_text(wanted, encoding="utf-8")
    return python


def _digest(environment: Environment, constraints: Path) -> str:
    asked = "\n".join([*environment.requirements, "", *environment.removed, "", constraints.read_text(encoding="utf-8")])
    return hashlib.sha256(asked.encode()).hexdigest()


def _run(command: list[str]) -> None:
    """Run to the end. Raises NotInstalled."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"pip was not finished after {INSTALL_TIMEOUT_S:g} s") from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")]
        raise NotInstalled((errors or lines or [f"exit status {done.returncode}, and nothing was said"])[-1])
