"""What a student is called, how it is trained, and the folder that it leaves in its run.

students/<name>/student.json        settings, the teacher it imitates, what was measured on validation; written last
students/<name>/encoder/            a BERT's weights and configuration, as save_pretrained writes them; or
students/<name>/static.safetensors  the tables of a static student; a hybrid one has both
students/margins-*.npz              what the matcher says of the texts, for students that learn from it

Its token ids are those of the run's tokenizer, and its vectors lie in the space of the run's item vectors.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bertrec.errors import InvalidInput, InvalidRun
from train.encoder import Encoder
from train.fingerprint import teacher_fingerprint
from train.run import Run
from train.students.hybrid import HybridEncoder
from train.students.static import StaticEncoder

STUDENTS_FOLDER = "students"
STUDENT_FILE = "student.json"
STATIC_FILE = "static.safetensors"
DISTIL_COMMAND = "python -m train distil --run runs/NAME --student layers-2"
STATIC = "static"
MATCHED = "matched"
WITH_STATIC = "-with-static"
_NAME = re.compile(
    r"static|matched|(?=[lp])(layers-(?P<layers>[1-9][0-9]*))?((^|-)pruned-(?P<percent>[1-9][0-9]?))?(?P<hybrid>-with-static)?"
)


@dataclass(frozen=True)
class StudentSettings:
    """How a student is trained.

    name: ``layers-N`` keeps N layers of the run's BERT, ``pruned-P`` drops P percent of the heads and of the feed-forward units
    of every layer, ``layers-N-pruned-P`` does so with the run's student ``layers-N``, ``static`` has no attention at all,
    ``…-with-static`` is one of the former and ``static``, their vectors added, ``matched`` is all of the run's BERT, and learns
    from the matcher.
    crops: parts of each training text that are learned from beside it.
    embedding_weight, label_weight: of 1 − cosine to the teacher's vector, and of the right item's cross-entropy, beside the
    divergence from the teacher's distribution over the items. bigrams: pairs of tokens that a static student has vectors of.
    token_dropout: the share of a text's tokens that the student does not see, others in every pass.
    margin_weight: of the squared difference from the matcher's margins, between the chosen item and ``wrong_items`` wrong ones of
    each text; 0: the matcher is not asked.
    """

    name: str
    seed: int = 0
    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 3e-4
    crops: int = 1
    embedding_weight: float = 10.0
    label_weight: float = 0.3
    bigrams: int = 16_000
    token_dropout: float = 0.0
    max_minutes: float | None = None
    margin_weight: float = 0.0
    wrong_items: int = 2

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidInput(
                f"student is {self.name!r}; accepted are static, layers-N (N layers kept), pruned-P (P percent removed), "
                "layers-N-pruned-P, each of them with -with-static behind it (the static student's vectors added), "
                "matched (the whole BERT, taught by the matcher)"
            )
        for name in ("epochs", "batch_size", "wrong_items"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; accepted is 1 or more")
        if not 0 <= self.token_dropout < 1:
            raise InvalidInput(f"token_dropout is {self.token_dropout}; accepted is 0 to below 1")
        if not 0 <= self.margin_weight < math.inf:
            raise InvalidInput(f"margin_weight is {self.margin_weight}; accepted is 0 or more")
        if self.name == MATCHED and not self.margin_weight:
            raise InvalidInput("matched has only the matcher's margins to learn; give them a weight above 0 (--margins 0.1)")
        if self.hybrid and self.margin_weight:
            raise InvalidInput(f"{self.name} learns nothing, so no margins either; give them to {self.begins_with[0]}")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise InvalidInput(f"max_minutes is {self.max_minutes}; accepted is a number above 0")

    @property
    def layers(self) -> int | None:
        """The N of ``layers-N`` and ``layers-N-pruned-P``."""
        return self._number("layers")

    @property
    def percent(self) -> int | None:
        """The P of ``pruned-P`` and ``layers-N-pruned-P``."""
        return self._number("percent")

    @property
    def hybrid(self) -> bool:
        """Whether two finished students are joined, and nothing is trained."""
        return self.name.endswith(WITH_STATIC)

    @property
    def begins_with(self) -> tuple[str, ...]:
        """The finished students that this one is made of, where it is not the run's BERT alone."""
        if self.hybrid:
            return (self.name.removesuffix(WITH_STATIC), STATIC)
        return (f"layers-{self.layers}",) if self.layers and self.percent else ()

    def _number(self, part: str) -> int | None:
        found = _NAME.fullmatch(self.name)
        return int(found[part]) if found and found[part] else None


DEFAULTS = {
    "layers": StudentSettings("layers-2"),
    "pruned": StudentSettings("pruned-50"),
    # Its tables are wide and shallow: larger batches and steps, and a pass takes seconds.
    STATIC: StudentSettings(STATIC, epochs=6, batch_size=256, learning_rate=3e-3),
    # It knows what to imitate already, and moves with small steps.
    MATCHED: StudentSettings(MATCHED, epochs=2, learning_rate=5e-5, margin_weight=0.1, embedding_weight=1.0),
}
"""Settings by the kind that a student's name begins with."""


@dataclass(frozen=True)
class Student:
    """A finished student of a run."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As in ``StudentSettings``."""
        return self.folder.name

    def load(self, *, attention: str = "sdpa") -> nn.Module:
        """The network: (batch, tokens) int64 ids and mask → (batch, hidden) float32. attention: as in ``Encoder.load``."""
        if self.name == STATIC:
            return StaticEncoder.load(self.folder / STATIC_FILE)
        encoder = Encoder.load(self.folder / "encoder", attention=attention)
        if not self.name.endswith(WITH_STATIC):
            return encoder
        return HybridEncoder(encoder.bert, StaticEncoder.load(self.folder / STATIC_FILE), self.record["static_weight"])


def open_students(run: Run) -> list[Student]:
    """The run's finished students, by name. Raises InvalidRun for one that imitated other weights than the run's."""
    teacher = teacher_fingerprint(run)
    students = []
    for path in sorted((run.folder / STUDENTS_FOLDER).glob(f"*/{STUDENT_FILE}")):
        student = open_student(path.parent)
        if student.record["teacher"] != teacher:
            raise InvalidRun(
                f"{path.parent} imitates another encoder than that of {run.folder}, which was trained since. Delete it and: "
                f"{DISTIL_COMMAND}"
            )
        students.append(student)
    return students


def open_student(folder: Path) -> Student:
    """One finished student. Raises InvalidRun where student.json cannot be read."""
    path = folder / STUDENT_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["teacher"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRun(
            f"{path} is not a student's record ({type(error).__name__}: {error}). Train it: {DISTIL_COMMAND}"
        ) from None
    return Student(folder, record)
