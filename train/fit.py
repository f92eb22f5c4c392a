"""Fit a recommender: the story of a training run from data set to run folder."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from bertrec.catalogue import Catalogue, CatalogueItem
from bertrec.signals import LexicalSignal
from bertrec.text import TextTokenizer
from train.checkpoint import FILE as CHECKPOINT_FILE
from train.checkpoint import load_checkpoint, save_checkpoint
from train.data import Dataset, split_interactions
from train.encoder import Encoder, load_tokenizer
from train.examples import Examples, make_examples
from train.items import Fusion, ItemSide, centroids, choose_fusion
from train.lexical import fit_lexical
from train.optimise import FineTuning, TrainingSet, fine_tune, fit_items
from train.progress import say
from train.run import Run, begin_run
from train.settings import FitSettings
from train.sources import load_dataset
from train.states import FrozenStates, compute_states, encode_states

log = logging.getLogger(__name__)

# Shares of a time budget after which a stage stops, so that the ones behind it still get their turn.
READING_SHARE, ITEMS_SHARE, TUNING_SHARE = 0.65, 0.72, 0.95
KEYWORDS = 6
CHOOSING_TEXTS = 2_500
"""Validation texts that the fusion is chosen by; more would take minutes on a catalogue of 100,000 items."""


def fit(source: str, settings: FitSettings, output: Path) -> Run:
    """Train on ``source`` (``clothing`` or a folder) and leave a run in ``output``.

    A finished run of the same settings and data is returned as it is; an interrupted one continues from its checkpoint.
    Raises InvalidData, InvalidInput or InvalidRun before anything is written.
    """
    started = time.monotonic()
    dataset = load_dataset(source)
    run = begin_run(output, settings, source, dataset)
    if run.finished:
        say(f"{output} is there already, trained on the same data with the same settings: reused")
        return run
    torch.manual_seed(settings.seed)
    clock = _Clock(started, settings.max_minutes)
    examples = make_examples(dataset, split_interactions(dataset, settings.seed))
    say(
        f"{dataset.name}: {examples.items:,} items to rank, {len(examples.train):,} texts to learn from, "
        f"{len(examples.validation):,} to choose by, {len(examples.test):,} held out"
    )
    encoder = Encoder.load(settings.backbone)
    run.start()
    tokenizer = _save_tokenizer(run, settings, encoder)
    texts = examples.train.texts + examples.validation.texts
    say("fitting the lexical signal")
    lexical = fit_lexical(
        examples.train.texts, dimensions=settings.lexical_dimensions, terms=settings.lexical_terms, seed=settings.seed
    )
    words = lexical.vectors(texts)
    states = compute_states(
        encoder,
        tokenizer.tokenise(texts),
        trained_layers=settings.trained_layers,
        seed=settings.seed,
        deadline=clock.deadline(READING_SHARE),
    )
    side = _train(run, encoder, states, words, examples, settings, clock)
    validation = np.flatnonzero(states.done[len(examples.train) :])[:CHOOSING_TEXTS]
    relevant = examples.validation.items[validation]
    rows = validation + len(examples.train)
    fusion = choose_fusion(side, encode_states(encoder, states, rows), words[rows], relevant)
    _save(
        run,
        encoder,
        lexical,
        side,
        fusion,
        states.zero_shot[: len(examples.train)],
        _catalogue(dataset, examples, lexical),
        examples,
    )
    return _finish(run, fusion, states, started, examples)


@dataclass(frozen=True)
class _Clock:
    """The time budget of a sitting."""

    started: float
    max_minutes: float | None

    def deadline(self, share: float) -> float | None:
        return None if self.max_minutes is None else self.started + 60.0 * self.max_minutes * share


def _train(
    run: Run,
    encoder: Encoder,
    states: FrozenStates,
    words: NDArray[np.float32],
    examples: Examples,
    settings: FitSettings,
    clock: _Clock,
) -> ItemSide:
    """Fit the item vectors, then fine-tune the encoder with them; continue from a checkpoint where there is one."""
    count = len(examples.train)
    side = ItemSide(
        centroids(states.zero_shot[:count], examples.train, examples.items),
        centroids(words[:count], examples.train, examples.items),
        examples.counts,
        settings.prior_weight,
    )
    data = TrainingSet(states, words, examples.train.items, np.flatnonzero(states.done[:count]))
    if len(data.rows) < count:
        log.warning(
            "the time budget sufficed for %d of %d texts; the others only counted for words and popularity", len(data.rows), count
        )
    tuning = FineTuning.begin(encoder, side, states.frozen_layers)
    guard = json.dumps({name: value for name, value in run.settings.items() if name != "max_minutes"}, sort_keys=True)
    if load_checkpoint(run.folder, tuning, guard):
        say(f"continuing from step {tuning.step} of the checkpoint in {run.folder}")
    else:
        fit_items(side, data, settings, clock.deadline(ITEMS_SHARE))
    complete = fine_tune(tuning, data, settings, clock.deadline(TUNING_SHARE), lambda: save_checkpoint(run.folder, tuning, guard))
    if not complete:
        log.warning("the time budget of %s minutes ended fine-tuning at step %d", settings.max_minutes, tuning.step)
    return side


def _save_tokenizer(run: Run, settings: FitSettings, encoder: Encoder) -> TextTokenizer:
    """Write the tokenizer, and read texts with the very file that will serve."""
    run.encoder_folder.mkdir(exist_ok=True)
    load_tokenizer(settings.backbone).save_pretrained(run.encoder_folder)
    return TextTokenizer(run.tokenizer_file, min(settings.max_tokens, encoder.max_positions))


def _catalogue(dataset: Dataset, examples: Examples, lexical: LexicalSignal) -> Catalogue:
    """The ranked items; one without a title is named by its attributes."""
    texts: list[list[str]] = [[] for _ in range(examples.items)]
    for text, item in zip(examples.train.texts, examples.train.items.tolist(), strict=True):
        texts[item].append(text)
    items = []
    for row, own in zip(examples.catalogue.tolist(), texts, strict=True):
        item = dataset.items[row]
        named = " · ".join(dict.fromkeys(item.attributes.values()))
        title = item.title or f"{named} {item.item_id}".strip()
        items.append(CatalogueItem(item.item_id, title, item.text, item.attributes, lexical.keywords(own, KEYWORDS)))
    return Catalogue(tuple(items))


def _save(
    run: Run,
    encoder: Encoder,
    lexical: LexicalSignal,
    side: ItemSide,
    fusion: Fusion,
    zero_shot: NDArray[np.float32],
    catalogue: Catalogue,
    examples: Examples,
) -> None:
    """Write everything that evaluation and export need."""
    try:
        encoder.bert.save_pretrained(run.encoder_folder)
    except SafetensorError as error:
        raise OSError(f"{run.encoder_folder} cannot be written: {error}") from error
    lexical.save(run.signals_folder)
    catalogue.save(run.catalogue_file)
    with torch.no_grad():
        run.save_array("items/text", _centred(side.text.numpy()))
        run.save_array("items/lexical", _centred(fusion.lexical * side.lexical.numpy()))
        run.save_array("items/prior", _centred(fusion.prior * side.log_prior.numpy()))
    run.save_array("zero_shot/texts", zero_shot.astype(np.float16))
    run.save_array("zero_shot/items", centroids(zero_shot, examples.train, examples.items))


def _centred(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Minus the average item: the ranking stays, and a term of the sum says how far it lifts an item above the average."""
    return np.asarray(vectors - vectors.mean(axis=0), np.float32)


def _finish(run: Run, fusion: Fusion, states: FrozenStates, started: float, examples: Examples) -> Run:
    finished = run.finish(
        {
            "items": examples.items,
            "texts": {part: len(getattr(examples, part)) for part in ("train", "validation", "test")},
            "texts_read": int(states.done.sum()),
            "fusion": {"text": 1.0, "lexical": fusion.lexical, "prior": fusion.prior},
            "validation_ndcg_at_10": None if np.isnan(fusion.ndcg_at_10) else fusion.ndcg_at_10,
            "minutes": round((time.monotonic() - started) / 60, 2),
        }
    )
    (run.folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    say(f"{run.folder}: trained in {finished.record['minutes']} minutes, NDCG@10 on validation {fusion.ndcg_at_10:.3f}")
    return finished
