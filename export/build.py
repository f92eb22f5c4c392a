"""Build a bundle: from a run folder to engines that were each measured against the reference."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

import numpy as np

from bertrec.bundle import (
    CATALOGUE_FILE,
    ITEM_LEXICAL_FILE,
    ITEM_TEXT_FILE,
    MANIFEST_FILE,
    MAPS_FOLDER,
    SIGNALS_FOLDER,
    TOKENIZER_FILE,
    Bundle,
    EngineRecord,
    Manifest,
    seal,
)
from bertrec.errors import BertrecError, InvalidBundle, InvalidInput
from bertrec.rules import RULES_FILE, RuleBook
from bertrec.tensors import ENCODER, LEXICAL, MAX_K, RANKER, TEXT_SIGNAL
from bertrec.text import TextTokenizer
from export import gates
from export.encoder import export_plain, fuse, quantise_dynamic
from export.folder import written_whole
from export.ranker import export_ranker
from train.data import TEST
from train.encoder import Encoder
from train.evaluate import held_out, run_examples
from train.examples import Pairs
from train.progress import say
from train.run import Run, source_commit
from train.states import encode_texts


class EngineName(str, Enum):
    """The encoder engines that can be built."""

    FP32 = "fp32"  # fused for ONNX Runtime
    INT8 = "int8"  # the same, quantised
    PLAIN = "plain"  # fp32 in standard operators only, which TensorRT can compile


DEFAULT_ENGINES = (EngineName.FP32, EngineName.INT8)


_PRECISIONS = {EngineName.FP32: "fp32", EngineName.INT8: "int8", EngineName.PLAIN: "fp32"}
REFERENCE = EngineName.FP32
"""Always built: what every other engine is measured against."""


def build_bundle(run: Run, output: Path, engines: Sequence[EngineName] = DEFAULT_ENGINES, *, rules: Path | None = None) -> Bundle:
    """Export a run into the bundle ``output``; returns it opened.

    rules: a file of rules and a blocklist (see :mod:`bertrec.rules`) that the bundle applies to every request.
    A bundle of the same run with these engines and rules is returned as it is. Built beside ``output`` and renamed when complete,
    so an interrupted export leaves no bundle that opens. Raises InvalidInput where ``output`` holds something else, and
    InvalidBundle for rules that cannot be read.
    """
    wanted = list(dict.fromkeys([REFERENCE, *engines]))
    if rules is not None:
        RuleBook.load(rules)
    if (there := _reusable(run, output, wanted, rules)) is not None:
        say(f"{output} is there already, exported from the same run: reused")
        return there
    with written_whole(output) as folder:
        _write_parts(run, folder, rules)
        _write_engines(run, folder, wanted)
        manifest = seal(folder, _manifest(run, wanted))
        records = _measure(run, Bundle.open(folder), wanted)
        seal(folder, dataclasses.replace(manifest, engines=records))
    return Bundle.open(output)


def run_fingerprint(run: Run) -> str:
    """sha256 (64 hex digits) over the weights and item vectors of a run."""
    digest = hashlib.sha256()
    files = [run.encoder_folder / "model.safetensors", *sorted((run.folder / "items").glob("*.npy")), run.catalogue_file]
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _reusable(run: Run, output: Path, engines: Sequence[EngineName], rules: Path | None) -> Bundle | None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    if not (output / MANIFEST_FILE).is_file():
        raise InvalidInput(f"{output} exists and is no bundle. Choose another --output")
    try:
        bundle = Bundle.open(output)
    except InvalidBundle as error:
        raise InvalidInput(
            f"{output} holds a bundle that does not open ({error}). Delete it or choose another --output"
        ) from None
    built = {record.name for record in bundle.manifest.engines if record.model == ENCODER.name}
    same_rules = bundle.rules() == (RuleBook() if rules is None else RuleBook.load(rules))
    same_run = bundle.manifest.model.get("fingerprint") == run_fingerprint(run)
    if not (same_run and same_rules and built >= {engine.value for engine in engines}):
        raise InvalidInput(
            f"{output} holds a bundle of another run, or with other rules or engines ({', '.join(sorted(built))}). "
            "A bundle is never changed: delete it or choose another --output"
        )
    return bundle


def _write_parts(run: Run, folder: Path, rules: Path | None) -> None:
    """Everything of the bundle but the engines."""
    shutil.copyfile(run.tokenizer_file, folder / TOKENIZER_FILE)
    shutil.copyfile(run.catalogue_file, folder / CATALOGUE_FILE)
    shutil.copytree(run.signals_folder, folder / SIGNALS_FOLDER)
    shutil.copytree(run.folder / "maps", folder / MAPS_FOLDER)
    if rules is not None:
        shutil.copyfile(rules, folder / RULES_FILE)
    for signal, name in ((LEXICAL, ITEM_LEXICAL_FILE), (TEXT_SIGNAL, ITEM_TEXT_FILE)):
        np.save(folder / SIGNALS_FOLDER / name, run.array(f"items/{signal}").astype(np.float16), allow_pickle=False)


def _write_engines(run: Run, folder: Path, engines: Sequence[EngineName]) -> None:
    export_ranker({signal: run.array(f"items/{signal}") for signal in run.record["signals"]}, folder / RANKER.name / "fp32.onnx")
    say("exporting the encoder to ONNX")
    encoder = Encoder.load(run.encoder_folder, attention="eager")
    plain = _engine_file(folder, EngineName.PLAIN)
    fp32 = _engine_file(folder, REFERENCE)
    export_plain(encoder, plain)
    fused = fuse(plain, fp32, heads=encoder.heads, hidden=encoder.hidden, layers=encoder.layers)
    say("fused operators: " + ", ".join(f"{count} {name}" for name, count in fused.items()))
    if EngineName.PLAIN not in engines:
        plain.unlink()
    if EngineName.INT8 in engines:
        say("quantising to int8")
        quantise_dynamic(fp32, _engine_file(folder, EngineName.INT8), layers=encoder.layers)


def _engine_file(folder: Path, engine: EngineName) -> Path:
    return folder / ENCODER.name / f"{engine.value}.onnx"


def _manifest(run: Run, engines: Sequence[EngineName]) -> Manifest:
    records = [
        EngineRecord(ENCODER.name, engine.value, f"encoder/{engine.value}.onnx", _PRECISIONS[engine]) for engine in engines
    ]
    return Manifest(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        source_commit=source_commit(),
        data={**run.record["data"], "items": run.record["items"], "texts": run.record["texts"]},
        model={
            "fingerprint": run_fingerprint(run),
            **{name: run.settings[name] for name in ("backbone", "preset", "seed")},
            "fusion": run.record["fusion"],
        },
        max_tokens=run.settings["max_tokens"],
        max_k=MAX_K,
        signals=run.record["signals"],
        tensors={model.name: dataclasses.asdict(model) for model in (ENCODER, RANKER)},
        engines=(*records, EngineRecord(RANKER.name, "fp32", "ranker/fp32.onnx", "fp32", batch_invariant=True)),
    )


def _measure(run: Run, bundle: Bundle, engines: Sequence[EngineName]) -> tuple[EngineRecord, ...]:
    """The engines' records with what was measured of each."""
    queries = _queries(run)
    tokenizer = TextTokenizer(run.tokenizer_file, bundle.manifest.max_tokens)
    torch_vectors = encode_texts(Encoder.load(run.encoder_folder), tokenizer, queries.texts, "answering with PyTorch")
    answers = {engine: gates.measure(bundle, engine.value, queries) for engine in engines}
    reference = answers[REFERENCE]
    reference_quality = gates.quality(reference, queries)
    records = []
    for engine, measured in answers.items():
        record = bundle.engine(ENCODER.name, engine.value)
        distances = gates.parity(measured, reference, torch_vectors)
        ranking = gates.quality(measured, queries)
        verdict = gates.Verdict("reference", "") if engine is REFERENCE else gates.judge(ranking, reference_quality, distances)
        records.append(
            dataclasses.replace(
                record,
                batch_invariant=measured.batch_invariant,
                parity=distances,
                quality=ranking,
                verdict=verdict.verdict,
                why=verdict.why,
            )
        )
    return (*records, bundle.engine(RANKER.name, "fp32"))


def _queries(run: Run) -> Pairs:
    """Up to TEXTS held-out texts; the training texts where nothing was held out, which tells parity and no more."""
    examples = run_examples(run)
    try:
        queries = held_out(examples, TEST)
    except BertrecError:
        queries = examples.train
    return queries.take(np.arange(min(len(queries), gates.TEXTS)))
