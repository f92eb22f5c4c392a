"""Build a bundle: from a run folder to engines that were each measured against the reference, and the choice among them."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertrec.bundle import MANIFEST_FILE, SIGNALS_FOLDER, Bundle, EngineRecord, Manifest, seal
from bertrec.errors import InvalidInput
from bertrec.rules import RuleBook
from bertrec.spelling import FILE as SPELLING_FILE
from bertrec.tensors import ENCODER, HEADS, MATCHER, MAX_K, RANKER
from bertrec.text import TextTokenizer
from export.choose import Choice, Objective, Target, choose
from export.compact import SMALL, TINY
from export.encoders import EncoderWriter
from export.folder import written_whole
from export.gates import Questions, gate_engines, measure, questions_of
from export.heads import add_heads
from export.matcher import add_matcher
from export.networks import Networks
from export.origin import made_by, reusable
from export.parts import compacted, write_parts
from export.ranker import OPSET
from export.recipes import FOR_TENSORRT, REFERENCE, Recipe, default_recipes, parse_recipes
from export.timing import time_engines
from export.verdict import DEFAULT_BUDGETS, REJECTED, Budgets
from train.evaluate import run_dataset, run_examples
from train.progress import say
from train.records import source_commit
from train.run import Run
from train.states import encode_tokens

TINY_BELOW_BYTES = 8_000_000
"""An edge bundle that must be smaller than this has its signals cut down harder."""
PARTS = (MATCHER.name, HEADS.name)
"""What a run may have beside its recommender, and a bundle can do without."""


@dataclass(frozen=True)
class BuildSettings:
    """What to build.

    engines: names as in export/recipes.py, joined by commas; by default those that the target is chosen from. target: keep the
    engine that is best there, and the reference; without one every engine stays. objective: what the choice makes small.
    max_bytes: of the whole bundle, the spelling dictionary apart; for the edge. rules: a file of rules and a blocklist.
    without: what is left out though the run has it, of PARTS.
    """

    engines: str = ""
    target: Target | None = None
    objective: Objective = Objective.LATENCY
    budgets: Budgets = DEFAULT_BUDGETS
    allow_batch_variant: bool = False
    max_bytes: int = 15_000_000
    rules: Path | None = None
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_bytes <= 0:
            raise InvalidInput(f"max_bytes is {self.max_bytes}; accepted is a positive number of bytes (--max-mb in megabytes)")
        if unknown := [name for name in self.without if name not in PARTS]:
            raise InvalidInput(f"there is no {unknown[0]!r} to leave out of a bundle; accepted are {', '.join(PARTS)}")

    @property
    def tiny(self) -> bool:
        """Whether signals and vocabulary have to be cut down, and not only rounded."""
        return self.target is Target.EDGE and self.max_bytes <= TINY_BELOW_BYTES


DEFAULT_BUILD = BuildSettings()


def build_bundle(run: Run, output: Path, settings: BuildSettings = DEFAULT_BUILD) -> Bundle:
    """Export a run into the bundle ``output``; returns it opened.

    A bundle of the same run with the same settings is returned as it is. Built beside ``output`` and renamed when complete, so an
    interrupted export leaves no bundle that opens. Raises InvalidInput where ``output`` holds something else, for an unknown
    engine, or where no engine fits ``max_bytes``; InvalidBundle for rules that cannot be read.
    """
    networks = Networks(run)
    if settings.rules is not None:
        RuleBook.load(settings.rules)
    recipes = _recipes(settings, networks.structures)
    origin = made_by(run, recipes, settings)
    if (there := reusable(output, origin)) is not None:
        say(f"{output} is there already, exported from the same run: reused")
        return there
    dataset = run_dataset(run)
    examples = run_examples(run, dataset)
    questions = questions_of(examples)
    with written_whole(output) as folder:
        ranker = write_parts(run, folder, settings.rules)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
            # A bundle for the edge goes to machines that nobody here has seen.
            portable = True if settings.target is Target.EDGE else None
            writer = EncoderWriter(run, networks, folder, Path(scratch), small=settings.tiny, reduce_range=portable)
            encoders = writer.write(recipes)
        manifest = seal(folder, _manifest(run, [*encoders, ranker], origin))
        reference = None
        if settings.target is Target.EDGE:  # what all is held against has everything that is cut now
            reference = measure(Bundle.open(folder), REFERENCE.name, questions.pairs)
            manifest = compacted(folder, manifest, TINY if settings.tiny else SMALL)
        torch_vectors = _torch_vectors(run, networks, {record.structure for record in encoders}, questions)
        heads = None
        if HEADS.name not in settings.without:
            heads = add_heads(run, folder, torch_vectors[REFERENCE.structure], dataset=dataset, examples=examples)
        bundle = Bundle.open(folder)
        records = gate_engines(
            bundle, questions, reference=reference, torch_vectors=torch_vectors, heads=heads, budgets=settings.budgets
        )
        records = _timed(bundle, records, questions)
        if settings.target is not None:
            choice = _chosen(folder, records, settings, settings.target)
            records = _shipped(folder, records, choice, recipes)
            manifest = dataclasses.replace(manifest, choice=asdict(choice))
        matcher: list[EngineRecord] = []
        if MATCHER.name not in settings.without:
            matcher = add_matcher(
                run,
                folder,
                dataset=dataset,
                examples=examples,
                target=settings.target,
                plain=any(recipe.precision in FOR_TENSORRT for recipe in recipes),
                budgets=settings.budgets,
                room_bytes=_room(folder, settings),
            )
        engines = (*records, *([heads.record] if heads else []), *matcher)
        tensors = {model.name: asdict(model) for model in (ENCODER, RANKER, MATCHER, HEADS) if _there(engines, model.name)}
        seal(folder, dataclasses.replace(manifest, engines=engines, tensors=tensors))
    return Bundle.open(output)


def _recipes(settings: BuildSettings, structures: Sequence[str]) -> list[Recipe]:
    """What to build, the reference first."""
    wanted = parse_recipes(settings.engines, structures) if settings.engines else default_recipes(settings.target, structures)
    return list(dict.fromkeys([REFERENCE, *wanted]))


def _manifest(run: Run, records: Sequence[EngineRecord], origin: Mapping[str, Any]) -> Manifest:
    return Manifest(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        source_commit=source_commit(),
        data={**run.record["data"], "items": run.record["items"], "texts": run.record["texts"]},
        model={
            **origin,
            **{name: run.settings[name] for name in ("backbone", "preset", "seed")},
            "fusion": run.record["fusion"],
        },
        max_tokens=run.settings["max_tokens"],
        max_k=MAX_K,
        signals=run.record["signals"],
        tensors={model.name: asdict(model) for model in (ENCODER, RANKER)},
        engines=tuple(records),
        opset=OPSET,
    )


def _torch_vectors(
    run: Run, networks: Networks, structures: Collection[str], questions: Questions
) -> dict[str, NDArray[np.float32]]:
    """Structure → (texts, hidden) what PyTorch makes of the questions."""
    tokens = TextTokenizer(run.tokenizer_file, run.settings["max_tokens"]).tokenise(questions.pairs.texts)
    return {
        structure: encode_tokens(networks.load(structure), tokens, f"answering with PyTorch: {structure}")
        for structure in sorted(structures)
    }


def _timed(bundle: Bundle, records: Sequence[EngineRecord], questions: Questions) -> tuple[EngineRecord, ...]:
    """The records with what the engines cost here; one that does not run has no parity, and gets no time."""
    names = [record.name for record in records if record.model == ENCODER.name and record.parity]
    times = time_engines(bundle, questions.pairs.texts, names, reference=REFERENCE.name)
    return tuple(
        dataclasses.replace(record, latency=times[record.name].as_latency())
        if record.model == ENCODER.name and record.name in times
        else record
        for record in records
    )


def _chosen(folder: Path, records: Sequence[EngineRecord], settings: BuildSettings, target: Target) -> Choice:
    """The engine for the target; at the edge it has the room that the other files leave."""
    room = settings.max_bytes - _beside(folder, records) if target is Target.EDGE else None
    return choose(records, target, settings.objective, allow_batch_variant=settings.allow_batch_variant, max_bytes=room)


def _room(folder: Path, settings: BuildSettings) -> int | None:
    """Bytes that a bundle for the edge has left, the spelling dictionary apart; None for other targets."""
    if settings.target is not Target.EDGE:
        return None
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in (MANIFEST_FILE, SPELLING_FILE)]
    return settings.max_bytes - sum(path.stat().st_size for path in files)


def _there(engines: Sequence[EngineRecord], model: str) -> bool:
    return any(record.model == model and record.file for record in engines)


def _beside(folder: Path, records: Sequence[EngineRecord]) -> int:
    """Bytes of everything but the encoders, the tokenizers that are not shipped, and the spelling dictionary."""
    encoders = [record for record in records if record.model == ENCODER.name]
    trimmed = max((record.tokenizer for record in encoders), key=len)
    apart = {record.file for record in encoders} | {record.tokenizer for record in encoders} - {trimmed}
    apart.add(f"{SIGNALS_FOLDER}/{SPELLING_FILE}")
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return sum(path.stat().st_size for name, path in files.items() if name not in apart)


def _shipped(
    folder: Path, records: Sequence[EngineRecord], choice: Choice, recipes: Sequence[Recipe]
) -> tuple[EngineRecord, ...]:
    """The records after the files that the target has no use for were deleted; theirs stay, without a file.

    Kept are the chosen engine, beside it the reference where there is room for it, and for a GPU what can be compiled there.
    """
    compilable = [recipe.name for recipe in recipes if recipe.precision in FOR_TENSORRT]
    kept = []
    for record in records:
        wanted = record.name == choice.engine or (choice.target != Target.EDGE.value and record.name == REFERENCE.name)
        wanted |= choice.target == Target.GPU.value and record.name in compilable and record.verdict != REJECTED
        if record.model == ENCODER.name and not wanted:
            (folder / record.file).unlink()
            record = dataclasses.replace(record, file="")
        kept.append(record)
    encoders = [record for record in kept if record.model == ENCODER.name]
    for name in {record.tokenizer for record in encoders} - {record.tokenizer for record in encoders if record.file}:
        (folder / name).unlink()
    return tuple(kept)
