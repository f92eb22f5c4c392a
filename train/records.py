"""Records: written as a whole or not at all, with the commit that they are of. Loads without torch."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

ROOT = Path(__file__).parents[1]
CODE = ("*.py", "*.pbtxt", "*pyproject.toml", "*constraints*.txt")
"""What a run or a measurement depends on, among the checkout's files; results and pages are none of it."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON as a whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def peak_memory_mb() -> float:
    """The most memory that this process has held at once, in MB: with its libraries and data, not only what a method adds."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # bytes
    return round(peak / 1e6, 1)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what has safetensors write ``path``: its errors, a full disk for instance, become the OSError that they are."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error


def source_commit() -> str:
    """The checkout's commit, or ``unknown`` outside of one."""
    return _git("rev-parse", "HEAD").decode().strip() or "unknown"


def source_changes() -> str:
    """A digest of what the checkout's code differs by from its commit, new files included; empty where it does not."""
    digest = hashlib.sha256(_git("diff", "HEAD", "--no-ext-diff", "--binary", "--", *CODE))
    for name in _git("ls-files", "-z", "--others", "--exclude-standard", "--", *CODE).split(b"\0")[:-1]:
        file = ROOT / os.fsdecode(name)
        digest.update(name + b"\0" + (file.read_bytes() if file.is_file() else b""))
    return "" if digest.digest() == hashlib.sha256().digest() else digest.hexdigest()[:12]


def _git(*command: str) -> bytes:
    """What git says about the checkout; nothing where there is none."""
    try:
        return subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, check=False).stdout
    except OSError:
        return b""
