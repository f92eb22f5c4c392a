"""What the classification heads say, and in which columns: labels.json, the contract of training, export, serving and client.

    {"heads": [{"name": "sentiment", "labels": ["negative", "neutral", "positive"]}, …], "encoder": "<64 hex digits>"}

One row of probabilities is the heads' probabilities one after another, in this order; those of each head add up to 1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bertrec.errors import InvalidBundle, InvalidInput

LABELS_FILE = "labels.json"
SENTIMENT = "sentiment"
NEGATIVE, NEUTRAL, POSITIVE = SENTIMENTS = ("negative", "neutral", "positive")
"""The labels of the head ``sentiment``, in their order."""


@dataclass(frozen=True)
class Head:
    """One question about a text, and the answers that exclude each other."""

    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Labels:
    """All heads, in the order of their columns. encoder: fingerprint of the encoder whose vectors the heads read."""

    heads: tuple[Head, ...]
    encoder: str = ""

    def __post_init__(self) -> None:
        names = [head.name for head in self.heads]
        if not names or len(set(names)) < len(names) or "" in names:
            raise InvalidBundle(f"the heads are called {names!r}; accepted are one or more, each of a name of its own")
        for head in self.heads:
            if len(head.labels) < 2 or len(set(head.labels)) < len(head.labels) or "" in head.labels:
                raise InvalidBundle(
                    f"head {head.name!r} has the labels {list(head.labels)!r}; accepted are two or more, all different"
                )

    @property
    def width(self) -> int:
        """Columns of all heads together."""
        return sum(len(head.labels) for head in self.heads)

    @property
    def slices(self) -> dict[str, slice]:
        """Head → its columns."""
        found, start = {}, 0
        for head in self.heads:
            found[head.name] = slice(start, start + len(head.labels))
            start += len(head.labels)
        return found

    def split(self, probabilities: NDArray[np.float32]) -> list[dict[str, dict[str, float]]]:
        """(texts, width) float32 → for each text, head → label → probability.

        Raises InvalidInput for an array of another shape, or with a number that is no probability.
        """
        if probabilities.ndim != 2 or probabilities.shape[1] != self.width:
            raise InvalidInput(f"the probabilities have the shape {probabilities.shape}; accepted is (texts, {self.width})")
        if not np.all((probabilities >= 0) & (probabilities <= 1)):  # a NaN is neither
            raise InvalidInput("the probabilities hold a number that is not between 0 and 1; the heads' output is wrong")
        columns = self.slices
        return [
            {head.name: dict(zip(head.labels, row[columns[head.name]].tolist(), strict=True)) for head in self.heads}
            for row in probabilities
        ]

    def save(self, path: Path) -> Path:
        """Write the file as a whole or not at all."""
        content = {"heads": [{"name": head.name, "labels": list(head.labels)} for head in self.heads], "encoder": self.encoder}
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
        return path

    @classmethod
    def load(cls, path: Path) -> Labels:
        """Read what :meth:`save` wrote. Raises InvalidBundle where the file is missing or is nothing of the kind."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            heads = tuple(_head(entry) for entry in content["heads"])
            encoder = content["encoder"]
            if not isinstance(encoder, str):
                raise TypeError(f"encoder is {encoder!r}; accepted is a string")
            return cls(heads, encoder)
        except (OSError, ValueError, KeyError, TypeError, InvalidBundle) as error:
            raise InvalidBundle(
                f"{path} names no heads and labels ({type(error).__name__}: {error}); accepted is what "
                "`python -m train heads` wrote; make it again"
            ) from None


def _head(entry: object) -> Head:
    if not isinstance(entry, Mapping) or not isinstance(entry["labels"], list):
        raise TypeError(f"a head is {entry!r}; accepted is an object with name and labels")
    if not all(isinstance(text, str) for text in (entry["name"], *entry["labels"])):
        raise TypeError(f"a head is {entry!r}; accepted are strings")
    return Head(entry["name"], tuple(entry["labels"]))
