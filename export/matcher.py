"""The matcher as engines: exported, fused, quantised, measured, timed; what the target has no use for is left out.

In a bundle: matcher/fp32.onnx, the reference; matcher/int8.onnx; for GPUs matcher/plain.onnx; matcher/matching.json.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from bertrec.bundle import REFERENCE_ENGINE, TOKENIZER_FILE, EngineRecord, Runtime, fastest
from bertrec.catalogue import Catalogue
from bertrec.matching import MATCHER_FOLDER, Matching, PairInputs, pair_batches, tokenised_items
from bertrec.tensors import MATCHER
from bertrec.text import TextTokenizer
from export.choose import Target
from export.encoder import example_tokens, fuse, trace
from export.graphs import count_operators
from export.matcher_gate import gate_matcher, pair_questions
from export.precision import shrink_embeddings
from export.quantise import quantise_static
from export.verdict import Budgets
from train.data import Dataset
from train.examples import UNSEEN, Examples
from train.matcher import Matcher, load_matcher
from train.progress import say
from train.run import Run

PLAIN_ENGINE, INT8_ENGINE = "plain", "int8"
CALIBRATION_TEXTS, CALIBRATION_BATCH = 128, 32
"""Training texts by which activations are scaled: each with its item, with another one, or alone."""


def export_matcher(matcher: Matcher, path: Path) -> None:
    """Write a matcher, loaded with eager attention, in standard operators; batch and tokens are dynamic."""
    input_ids, mask = example_tokens()
    types = torch.zeros_like(mask)
    types[:, 4:] = mask[:, 4:]
    trace(matcher, (input_ids, mask, types), path, spec=MATCHER)


def add_matcher(
    run: Run,
    folder: Path,
    *,
    dataset: Dataset,
    examples: Examples,
    target: Target | None,
    budgets: Budgets,
    plain: bool = False,
    room_bytes: int | None = None,
) -> list[EngineRecord]:
    """Write the run's matcher into a bundle that is being built; returns its engines' records, measured. None without a matcher.

    target: as for the encoder, the reference and the served engine are kept; at the edge the served one alone, and none where
    it has no place in ``room_bytes``.
    plain: also the engine for TensorRT, which a GPU gets in any case. Raises InvalidBundle where the export itself went wrong.
    """
    loaded = load_matcher(run, attention="eager")
    if loaded is None:
        return []
    matcher, matching = loaded
    if room_bytes is not None and not (folder / TOKENIZER_FILE).exists():
        room_bytes -= run.tokenizer_file.stat().st_size
    least = sum(parameter.numel() for parameter in matcher.parameters())  # a byte each
    if room_bytes is not None and least > room_bytes:
        say(f"the matcher is left out: it has {least / 1e6:.1f} MB in int8, and {max(room_bytes, 0) / 1e6:.1f} MB are left")
        return []
    say("writing the matcher's engines")
    questions = pair_questions(run, matching, dataset=dataset, examples=examples)
    (folder / MATCHER_FOLDER).mkdir()
    calibration = _calibration(run, matching, examples)
    plain |= target is Target.GPU
    records = _write(matcher, folder, calibration=calibration, portable=target is Target.EDGE, plain=plain)
    records = gate_matcher(folder, _stamped(records, folder, run), questions, matcher=matcher, budgets=budgets)
    records = _shipped(folder, records, target, room_bytes)
    if any(record.file for record in records):
        matching.save(folder / MATCHER_FOLDER)
        if not (folder / TOKENIZER_FILE).exists():  # the encoder may have one with a smaller vocabulary
            shutil.copyfile(run.tokenizer_file, folder / TOKENIZER_FILE)
    return records


def _write(
    matcher: Matcher, folder: Path, *, calibration: Sequence[PairInputs], portable: bool, plain: bool
) -> list[EngineRecord]:
    """The engine files, and what they are. portable: for CPUs that nobody here has seen. plain: also one for TensorRT.

    int8 is static: its probabilities depart from fp32's by .007 in the mean, those of dynamic int8 by .017 (240 held-out texts of
    the clothing reviews), and change with the batch besides.
    """
    paths = {name: folder / MATCHER_FOLDER / f"{name}.onnx" for name in (REFERENCE_ENGINE, INT8_ENGINE, PLAIN_ENGINE)}
    fused, int8, standard = paths.values()
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        traced = Path(scratch) / standard.name
        export_matcher(matcher, traced)
        fuse(traced, fused, heads=matcher.heads, hidden=matcher.hidden, layers=matcher.layers)
        if plain:
            shutil.move(traced, standard)
    quantise_static(fused, int8, batches=calibration, reduce_range=True if portable else None)
    shrink_embeddings(int8, int8)
    return [
        EngineRecord(
            MATCHER.name,
            name,
            f"{MATCHER_FOLDER}/{path.name}",
            "int8" if name == INT8_ENGINE else "fp32",
            size_bytes=path.stat().st_size,
            operators=count_operators(path),
        )
        for name, path in paths.items()
        if path.is_file()
    ]


def _stamped(records: Sequence[EngineRecord], folder: Path, run: Run) -> list[EngineRecord]:
    """With what ONNX Runtime loads: written with which release, from which weights, and which bytes, shipped or not."""
    weights = (run.folder / MATCHER_FOLDER / "model.safetensors").read_bytes()
    common = {
        "runtime": Runtime.ORT.value,
        "version": onnxruntime.__version__,
        "source_sha256": hashlib.sha256(weights).hexdigest(),
    }
    return [
        dataclasses.replace(record, stamp={**common, "sha256": hashlib.sha256((folder / record.file).read_bytes()).hexdigest()})
        for record in records
    ]


def _calibration(run: Run, matching: Matching, examples: Examples) -> list[PairInputs]:
    """Batches of training texts, similar ones together: a third with the right item, a third with another one, a third alone."""
    tokenizer = TextTokenizer(run.tokenizer_file, run.settings["max_tokens"])
    items = tokenised_items(Catalogue.load(run.catalogue_file), tokenizer, matching.item_tokens)
    known = np.flatnonzero(examples.train.items != UNSEEN)
    drawn = examples.train.take(known[np.random.default_rng(0).permutation(len(known))[:CALIBRATION_TEXTS]])
    pairs = [[items[item], items[(item + 1) % len(items)], []][number % 3] for number, item in enumerate(drawn.items.tolist())]
    return [batch for _, batch in pair_batches(tokenizer.tokenise(drawn.texts), pairs, max_rows=CALIBRATION_BATCH)]


def _shipped(folder: Path, records: Sequence[EngineRecord], target: Target | None, room_bytes: int | None) -> list[EngineRecord]:
    """The records after the files that the target has no use for were deleted; theirs stay, without a file."""
    if target is None:
        return list(records)
    fitting = [record for record in records if room_bytes is None or record.size_bytes <= room_bytes]
    wanted = {REFERENCE_ENGINE, PLAIN_ENGINE} if target is Target.GPU else {fastest(fitting, MATCHER.name)}
    if target is Target.CPU:
        wanted |= {REFERENCE_ENGINE}
    kept = []
    for record in records:
        if record.name not in wanted:
            (folder / record.file).unlink()
            record = dataclasses.replace(record, file="")
        kept.append(record)
    return kept
