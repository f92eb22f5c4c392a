"""The networks that a run's encoder engines are made from, by structure: its own encoder, its students, and narrower tables."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from bertrec.errors import InvalidRun
from export.recipes import BERT
from train.encoder import Encoder
from train.run import Run
from train.students import Student, open_students
from train.students.contract import STATIC
from train.students.static import StaticEncoder

WIDTHS = (128, 64)
"""Columns that a static student's tables can be narrowed to, beside its own width."""


@dataclass(frozen=True)
class Networks:
    """Structure → network of one run."""

    run: Run

    @cached_property
    def students(self) -> Mapping[str, Student]:
        """The run's students by name. Raises InvalidRun for a stale one."""
        return {student.name: student for student in open_students(self.run)}

    @property
    def structures(self) -> list[str]:
        """Every structure but the run's own: the students, and the static one narrowed."""
        narrowed = [f"{STATIC}-{width}" for width in WIDTHS] if STATIC in self.students else []
        return [*self.students, *narrowed]

    def fingerprint(self, structure: str) -> str:
        """sha256 (64 hex digits) of the weights that a structure is made from."""
        folder = self.run.encoder_folder
        if structure != BERT:
            name = structure if structure in self.students else STATIC
            folder = self.students[name].folder
        weights = sorted(folder.rglob("*.safetensors"))  # two of a hybrid
        return hashlib.sha256(b"".join(path.read_bytes() for path in weights)).hexdigest()

    def load(self, structure: str) -> nn.Module:
        """The network, in evaluation mode, with attention in plain operators as exporters want it."""
        if structure == BERT:
            return Encoder.load(self.run.encoder_folder, attention="eager").eval()
        if structure in self.students:
            return self.students[structure].load(attention="eager").eval()
        static = self.students[STATIC].load()
        if not isinstance(static, StaticEncoder):
            raise InvalidRun(f"{self.students[STATIC].folder} holds no static student; distil it again")
        return static.narrowed(int(structure.rpartition("-")[2])).eval()
