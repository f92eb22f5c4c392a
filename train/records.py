"""Records: written as a whole or not at all, with the commit that they are of. Loads without torch."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON as a whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what has safetensors write ``path``: its errors, a full disk for instance, become the OSError that they are."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error


def source_commit() -> str:
    """The checkout's commit, or ``unknown`` outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
