"""Which encoder something was trained beside: students, matcher and heads are of no use beside another."""

from __future__ import annotations

import hashlib

from train.run import Run


def teacher_fingerprint(run: Run) -> str:
    """sha256 (64 hex digits) over the weights of the run's encoder and its text signal's item vectors."""
    digest = hashlib.sha256()
    for path in (run.encoder_folder / "model.safetensors", run.folder / "items" / "text.npy"):
        digest.update(path.read_bytes())
    return digest.hexdigest()
