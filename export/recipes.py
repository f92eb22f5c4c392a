"""How an encoder engine is made: from which network, with which vocabulary, in which precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from bertrec.errors import InvalidInput
from export.choose import Target
from train.students.contract import STATIC

BERT = "bert"
"""The structure of a run's own encoder, left out of its engines' names."""
TRIMMED = "trimmed"


class Precision(str, Enum):
    """What the weights and products of an engine are computed in, and for which runtime its operators are."""

    FP32 = "fp32"  # fused for ONNX Runtime
    INT8 = "int8"  # the same, weights quantised per channel, activations at run time
    INT8_STATIC = "int8-static"  # activations by a calibrated scale: the same answer in any batch
    PLAIN = "plain"  # fp32 in standard operators only, which TensorRT can compile
    FP16 = "fp16"  # the same in half precision, but for layer norm and softmax
    INT8_TENSORRT = "int8-tensorrt"  # plain with symmetric Q/DQ nodes


FOR_TENSORRT = (Precision.PLAIN, Precision.FP16, Precision.INT8_TENSORRT)
"""Standard operators only: what TensorRT compiles, and ONNX Runtime's TensorRT provider."""


@dataclass(frozen=True)
class Recipe:
    """One encoder engine. Its name joins what differs from the run's own encoder: ``fp32``, ``trimmed-layers-2-int8``.

    structure: ``bert`` or a student's name. trimmed: whether its vocabulary is cut to the pieces that the corpus uses.
    """

    precision: Precision
    structure: str = BERT
    trimmed: bool = False

    @property
    def name(self) -> str:
        """As ``--engines`` and answers have it."""
        parts = [TRIMMED] * self.trimmed + [self.structure] * (self.structure != BERT)
        return "-".join([*parts, self.precision.value])

    @property
    def weights(self) -> str:
        """What its weights are kept in: fp32, fp16 or int8."""
        return "fp32" if self.precision is Precision.PLAIN else self.precision.value.partition("-")[0]

    @property
    def file(self) -> str:
        """Its path in the bundle."""
        return f"encoder/{self.name}.onnx"


REFERENCE = Recipe(Precision.FP32)
"""Always built and measured: what every other engine is held against."""


def default_recipes(target: Target | None, structures: Sequence[str]) -> list[Recipe]:
    """What a target is chosen from, where the structures but the run's own are these; without a target, the two classics."""
    bert = [structure for structure in (BERT, *structures) if not is_static(structure)]
    static = [structure for structure in structures if is_static(structure)]
    if target is Target.GPU:
        return [Recipe(precision, structure) for structure in bert for precision in FOR_TENSORRT]
    if target is Target.EDGE:
        berts = [Recipe(Precision.INT8_STATIC, structure, trimmed=True) for structure in bert]
        return [*berts, *(Recipe(Precision.INT8, structure, trimmed=True) for structure in static)]
    if target is Target.CPU:
        precisions = (Precision.FP32, Precision.INT8, Precision.INT8_STATIC)
        whole = [structure for structure in static if structure == STATIC]
        return [*(Recipe(precision, structure) for structure in bert for precision in precisions), *map(_fp32, whole)]
    return [REFERENCE, Recipe(Precision.INT8)]


def _fp32(structure: str) -> Recipe:
    return Recipe(Precision.FP32, structure)


def is_static(structure: str) -> bool:
    """Whether a structure is the static student, at its own width or narrowed."""
    return structure.partition("-")[0] == STATIC


def parse_recipes(names: str, students: Sequence[str]) -> list[Recipe]:
    """The recipes of a comma-separated list. Raises InvalidInput, naming what is accepted, for an unknown engine or student."""
    return [_parse(name.strip(), students) for name in names.split(",") if name.strip()]


def _parse(name: str, students: Sequence[str]) -> Recipe:
    for recipe in all_recipes(students):
        if recipe.name == name:
            return recipe
    accepted = ", ".join(precision.value for precision in Precision)
    there = f"one of the run's students ({', '.join(students)})" if students else "a student's name (this run has none)"
    raise InvalidInput(
        f"engine {name!r} is unknown; accepted are {accepted}, with {there} and '{TRIMMED}-' before it if wanted, "
        f"such as {TRIMMED}-layers-2-int8"
    )


def all_recipes(students: Sequence[str]) -> list[Recipe]:
    """Every engine that a run with these students can give."""
    return [
        Recipe(precision, structure, trimmed)
        for trimmed in (False, True)
        for structure in (BERT, *students)
        for precision in ((Precision.FP32, Precision.INT8) if is_static(structure) else Precision)
    ]
