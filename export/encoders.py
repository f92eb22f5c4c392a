"""Write the encoder engines of some recipes: every network once in standard operators, then fused, quantised, halved, trimmed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from torch import nn

from bertrec.bundle import TOKENIZER_FILE, EngineRecord, Runtime
from bertrec.errors import InvalidInput
from bertrec.tensors import ATTENTION_MASK, ENCODER, INPUT_IDS
from bertrec.text import TextTokenizer, batches
from export.calibration import Tensors
from export.encoder import export_plain, fuse
from export.graphs import count_operators
from export.networks import Networks
from export.precision import shrink_embeddings, to_half
from export.quantise import dynamic_recipe, quantise_dynamic, quantise_static
from export.recipes import Precision, Recipe
from export.sensitivity import choose_skipped, layer_sensitivity
from export.static import SmallStatic
from export.vocabulary import FREQUENT, corpus_texts, trim_encoder, trim_wordpiece
from train.encoder import Encoder
from train.evaluate import run_examples
from train.progress import say
from train.run import Run
from train.students.static import StaticEncoder

TRIMMED_TOKENIZER_FILE = "tokenizer.trimmed.json"
REPEATED = 8
"""Times that a piece must occur in the corpus to be kept in a small vocabulary; the others are cut into shorter ones."""
CALIBRATION_TEXTS = 256
"""Training texts by which activations are scaled and products compared."""
CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class EncoderWriter:
    """Writes encoder engines of one run into the folder of a bundle that is being built.

    scratch: for what lies between. small: whether a trimmed vocabulary keeps only what the corpus uses repeatedly. reduce_range:
    whether int8 engines have to run on CPUs without VNNI; by default they are for a CPU like this one.
    """

    run: Run
    networks: Networks
    folder: Path
    scratch: Path
    small: bool = False
    reduce_range: bool | None = None

    def write(self, recipes: Sequence[Recipe]) -> list[EngineRecord]:
        """The engines' files, and their records, not measured yet. Raises InvalidInput for a recipe that its network lacks."""
        records = []
        for number, recipe in enumerate(recipes, 1):
            say(f"writing engine {number} of {len(recipes)}: {recipe.name}")
            path = self.folder / recipe.file
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = path if not recipe.trimmed else self.scratch / f"{recipe.name}.onnx"
            self._write_whole(recipe, whole)
            if recipe.trimmed:
                trim_encoder(whole, path, self._trimmed, positions=self.run.settings["max_tokens"])
            records.append(
                EngineRecord(
                    ENCODER.name,
                    recipe.name,
                    recipe.file,
                    recipe.weights,
                    structure=recipe.structure,
                    tokenizer=TRIMMED_TOKENIZER_FILE if recipe.trimmed else TOKENIZER_FILE,
                    size_bytes=path.stat().st_size,
                    operators=count_operators(path),
                    stamp=self._stamp(recipe, path),
                )
            )
        return records

    def _stamp(self, recipe: Recipe, path: Path) -> dict[str, str]:
        """What ONNX Runtime loads: written with which release, from which weights, and which bytes, shipped or not."""
        return {
            "runtime": Runtime.ORT.value,
            "version": onnxruntime.__version__,
            "source_sha256": self.networks.fingerprint(recipe.structure),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }

    def _write_whole(self, recipe: Recipe, path: Path) -> None:
        """With the whole vocabulary."""
        network = self.networks.load(recipe.structure)
        if isinstance(network, StaticEncoder):
            self._write_static(network, recipe, path)
            return
        if isinstance(network, Encoder) and network.family.causal and recipe.precision.value.startswith("int8"):
            raise InvalidInput(
                f"engine {recipe.name!r}: the products of a {network.bert.config.model_type!r} encoder are not quantised here; "
                "accepted are fp32, plain and fp16 (--engines fp32)"
            )
        plain = self._plain(recipe.structure, network)
        if recipe.precision is Precision.PLAIN:
            path.write_bytes(plain.read_bytes())
        elif recipe.precision is Precision.FP16:
            to_half(plain, path)
        elif recipe.precision is Precision.INT8_TENSORRT:
            quantise_static(plain, path, batches=self._calibration, runtime=Runtime.TENSORRT)
        else:
            self._write_fused(recipe, self._fused(recipe.structure, network, plain), path)

    def _write_fused(self, recipe: Recipe, fused: Path, path: Path) -> None:
        if recipe.precision is Precision.FP32:
            path.write_bytes(fused.read_bytes())
            return
        quantised = self.scratch / f"{recipe.name}-tables.onnx"
        if recipe.precision is Precision.INT8:
            skipped = self._skipped(recipe.structure, fused)
            quantise_dynamic(fused, quantised, exclude=skipped, reduce_range=self.reduce_range)
        else:
            quantise_static(fused, quantised, batches=self._calibration, reduce_range=self.reduce_range)
        shrink_embeddings(quantised, path)

    def _write_static(self, network: StaticEncoder, recipe: Recipe, path: Path) -> None:
        if recipe.precision not in (Precision.FP32, Precision.INT8):
            raise InvalidInput(f"engine {recipe.name!r}: a static student has no matrix products; accepted are fp32 and int8")
        export_plain(SmallStatic(network) if recipe.precision is Precision.INT8 else network, path)

    def _plain(self, structure: str, network: nn.Module) -> Path:
        path = self.scratch / f"{structure}-plain.onnx"
        if not path.is_file():
            export_plain(network, path)
        return path

    def _fused(self, structure: str, network: nn.Module, plain: Path) -> Path:
        path = self.scratch / f"{structure}-fused.onnx"
        if not path.is_file():
            assert isinstance(network, Encoder)
            if not network.family.fused:
                return plain  # the fusions are BERT's
            fuse(plain, path, heads=network.heads, hidden=network.hidden, layers=network.layers)
        return path

    def _skipped(self, structure: str, fused: Path) -> tuple[str, ...]:
        """The products that stay in float32, for int8 loses too much in them; measured once for each network."""
        kept = self.scratch / f"{structure}-skipped.txt"
        if not kept.is_file():
            recipe = dynamic_recipe(self.reduce_range)
            measured = layer_sensitivity(fused, self._calibration, recipe=recipe)
            kept.write_text(" ".join(choose_skipped(measured)), encoding="utf-8")
        skipped = tuple(kept.read_text(encoding="utf-8").split())
        if skipped:
            say(f"left in float32, for int8 loses most there: {', '.join(skipped)}")
        return skipped

    @cached_property
    def _calibration(self) -> list[Tensors]:
        """Batches of training texts, similar ones together."""
        tokenizer = TextTokenizer(self.run.tokenizer_file, self.run.settings["max_tokens"])
        texts = run_examples(self.run).train.texts
        drawn = np.random.default_rng(0).permutation(len(texts))[:CALIBRATION_TEXTS]
        tokens = tokenizer.tokenise([texts[row] for row in sorted(drawn.tolist())])
        found = batches(tokens, tokenizer, max_rows=CALIBRATION_BATCH)
        return [{INPUT_IDS.name: batch.input_ids, ATTENTION_MASK.name: batch.attention_mask} for batch in found]

    @cached_property
    def _trimmed(self) -> NDArray[np.int64]:
        """The kept ids; the tokenizer that goes with them is written into the bundle."""
        frequent, at_least = (0, REPEATED) if self.small else (FREQUENT, 1)
        trimmed = trim_wordpiece(self.run.tokenizer_file, corpus_texts(self.run), frequent=frequent, at_least=at_least)
        (self.folder / TRIMMED_TOKENIZER_FILE).write_text(trimmed.tokenizer, encoding="utf-8")
        say(f"vocabulary: {len(trimmed.kept):,} pieces kept")
        return trimmed.kept
