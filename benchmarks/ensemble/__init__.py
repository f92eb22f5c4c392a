"""``recommend`` as a Triton ensemble, as near to the BLS model as an ensemble comes. Made to be measured, not to be served.

    TEXT, OPTIONS → ensemble_prepare → encoder → ensemble_ranker → ensemble_answer → ANSWER

- ``ensemble_prepare`` (python): checks and corrects the text, tokenises, pads; makes the boosts, and every signal's user side but
  the text's.
- ``encoder``: the very model that ``recommend`` asks.
- ``ensemble_ranker``: the bundle's ranker behind two operators that weigh the interest vector and lay the parts of the query
  vector one after another, which BLS does in Python. So no third step in Python is needed.
- ``ensemble_answer`` (python): indices to items with reasons. What the first step found of the text comes as JSON, STATE.

The code of both python steps is bertrec's, the same that ``recommend`` runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx
from onnx import TensorProto, helper

from bertrec.answers import Options
from bertrec.bundle import Bundle
from bertrec.tensors import (
    ANSWER,
    ATTENTION_MASK,
    BATCH,
    BOOST,
    ENCODER,
    INPUT_IDS,
    INTEREST_VECTOR,
    MAX_BATCH_SIZE,
    OPTIONS,
    QUERY_VECTOR,
    RANKER,
    RECOMMEND,
    TEXT,
    TEXT_SIGNAL,
    ModelSpec,
    TensorSpec,
)
from serving.assemble import MODELS_FOLDER, PYTHON_MODEL, Target

MODEL = Path(__file__).parent / PYTHON_MODEL
VERSION = 1
TEXT_WEIGHT = TensorSpec("text_weight", "FP32", (BATCH, 1))
OTHER_SIDES = TensorSpec("other_sides", "FP32", (BATCH, "others"))
STATE = TensorSpec("STATE", "BYTES", (BATCH, 1))

PREPARE = ModelSpec("ensemble_prepare", (TEXT, OPTIONS), (INPUT_IDS, ATTENTION_MASK, TEXT_WEIGHT, OTHER_SIDES, BOOST, STATE))
JOINED = ModelSpec("ensemble_ranker", (INTEREST_VECTOR, TEXT_WEIGHT, OTHER_SIDES, BOOST), RANKER.outputs)
ANSWERING = ModelSpec("ensemble_answer", (OPTIONS, STATE, *RANKER.outputs), (ANSWER,))
ENSEMBLE = ModelSpec("ensemble", RECOMMEND.inputs, RECOMMEND.outputs)
STEPS = (PREPARE, ENCODER, JOINED, ANSWERING)

CANNOT = (
    "rerank: an ensemble has no branch, so the matcher would read 50 pairs for every text or for none",
    "pad each text of a request to a length of its own: they go to the encoder as one tensor, as long as the longest",
    "join texts of different lengths: they are different shapes, which the encoder's batcher runs one after another, while "
    "`recommend` sorts all that it was handed into a few lengths",
    "answer from the cache that `recommend` keeps, which would have to stand before the first step and after the last",
    "read its versions once: each step's is fixed in the configuration or is the newest at that moment, so an update can mix "
    "bundles within an answer",
    "bound what waits: each step has a queue of its own, and a request would be turned away after its encoder has run",
)
"""What the ensemble of the same function is not."""

_CONFIG_TYPES = {"INT64": "TYPE_INT64", "FP32": "TYPE_FP32", "BYTES": "TYPE_STRING"}

_BATCHING = """\
dynamic_batching { }
instance_group [ { count: 1 kind: KIND_CPU } ]
"""
"""As recommend/configs/cpu.pbtxt has it."""

_ONE_THREAD = """\
default_model_filename: "model.onnx"
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
parameters { key: "inter_op_thread_count" value: { string_value: "1" } }
"""
"""As ranker/configs/cpu.pbtxt has it."""


@dataclass(frozen=True)
class EnsembleOptions(Options):
    """The same question, asked of the ensemble."""

    model: ClassVar[ModelSpec] = ENSEMBLE


def add_ensemble(repository: Path, bundle: Bundle) -> None:
    """Lay the ensemble and its three models beside those of an assembled repository, for the target cpu."""
    models = repository / MODELS_FOLDER
    for spec in (PREPARE, ANSWERING):
        shutil.copytree(models / RECOMMEND.name / str(VERSION), models / spec.name / str(VERSION))
        shutil.copyfile(MODEL, models / spec.name / str(VERSION) / PYTHON_MODEL)
    ranker = models / JOINED.name / str(VERSION) / "model.onnx"
    ranker.parent.mkdir(parents=True)
    join_ranker(models / RANKER.name / str(VERSION) / "model.onnx", ranker, hidden=bundle.manifest.signals[TEXT_SIGNAL])
    (models / ENSEMBLE.name / str(VERSION)).mkdir(parents=True)
    for name, text in configs().items():
        (models / name / "configs").mkdir()
        (models / name / "configs" / f"{Target.CPU.value}.pbtxt").write_text(text, encoding="utf-8")


def join_ranker(ranker: Path, output: Path, *, hidden: int) -> None:
    """The ranker with the query vector made inside: [interest_vector · text_weight ; other_sides], (batch, query)."""
    model = onnx.load(str(ranker))
    graph = model.graph
    kept = [tensor for tensor in graph.input if tensor.name != QUERY_VECTOR.name]
    first = [
        helper.make_tensor_value_info(INTEREST_VECTOR.name, TensorProto.FLOAT, [BATCH, hidden]),
        *(helper.make_tensor_value_info(one.name, TensorProto.FLOAT, list(one.shape)) for one in (TEXT_WEIGHT, OTHER_SIDES)),
    ]
    nodes = [
        helper.make_node("Mul", [INTEREST_VECTOR.name, TEXT_WEIGHT.name], ["weighted_text"]),  # (batch, hidden)
        helper.make_node("Concat", ["weighted_text", OTHER_SIDES.name], [QUERY_VECTOR.name], axis=1),
        *graph.node,
    ]
    joined = helper.make_graph(nodes, JOINED.name, [*first, *kept], list(graph.output), list(graph.initializer))
    made = helper.make_model(joined, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    onnx.checker.check_model(made)
    onnx.save_model(made, str(output))


def configs() -> dict[str, str]:
    """Model → its config.pbtxt. The encoder's is the repository's own."""
    return {
        **{spec.name: _config(spec, 'backend: "python"\n', _BATCHING) for spec in (PREPARE, ANSWERING)},
        JOINED.name: _config(JOINED, 'backend: "onnxruntime"\n', _ONE_THREAD + _BATCHING),
        ENSEMBLE.name: _config(ENSEMBLE, 'platform: "ensemble"\n', _scheduling()),
    }


def _config(spec: ModelSpec, kind: str, more: str) -> str:
    tensors = {"input": spec.inputs, "output": spec.outputs}
    listed = "".join(f"{what} [\n{_joined(map(_tensor, those))}\n]\n" for what, those in tensors.items())
    return f'name: "{spec.name}"\n{kind}max_batch_size: {MAX_BATCH_SIZE}\n{listed}{more}'


def _joined(parts: Iterable[str]) -> str:
    return ",\n".join(parts)


def _tensor(spec: TensorSpec) -> str:
    dims = ", ".join(str(size if isinstance(size, int) else -1) for size in spec.shape[1:])
    return f'  {{ name: "{spec.name}" data_type: {_CONFIG_TYPES[spec.dtype]} dims: [ {dims} ] }}'


def _scheduling() -> str:
    """Every tensor travels under its own name."""
    return f"ensemble_scheduling {{\n  step [\n{_joined(map(_step, STEPS))}\n  ]\n}}\n"


def _step(spec: ModelSpec) -> str:
    maps: Mapping[str, tuple[TensorSpec, ...]] = {"input_map": spec.inputs, "output_map": spec.outputs}
    mapped = "".join(
        f'      {kind} {{ key: "{one.name}" value: "{one.name}" }}\n' for kind, those in maps.items() for one in those
    )
    return f'    {{\n      model_name: "{spec.name}"\n      model_version: {VERSION}\n{mapped}    }}'
