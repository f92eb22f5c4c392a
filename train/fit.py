"""Fit a recommender: the story of a training run from data set to run folder."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from bertrec.catalogue import Catalogue, CatalogueItem
from bertrec.fusion import FEATURES, SENTIMENT, Gates, Signals
from bertrec.sentiment import open_analyser
from bertrec.signals import LexicalSignal
from bertrec.tensors import PRIOR, SIGNALS, TEXT_SIGNAL
from bertrec.text import TextTokenizer
from train.adaptation.kinds import Adaptation
from train.adaptation.labels import keep_labels, texts_of
from train.adaptation.self_training import guessed_pairs, with_guessed
from train.adaptation.stage import adapted
from train.adapters import AdapterSettings
from train.checkpoint import FILE as CHECKPOINT_FILE
from train.checkpoint import load_checkpoint, save_checkpoint
from train.clock import Clock
from train.data import Dataset, split_interactions
from train.encoder import Encoder, load_tokenizer
from train.examples import UNSEEN, Examples, Pairs, make_examples
from train.fusion import Asked, Fusion, choose_fusion, choose_shrinkage, gains
from train.heads.joint import JointHeads
from train.items import PRIOR_SHRINKAGE, ItemMap, ItemSide, centroids, fit_map, log_prior, shrink
from train.optimise import FineTuning, TrainingSet, fine_tune, fit_items
from train.progress import say
from train.run import Run, begin_run
from train.settings import FitSettings
from train.signals import FittedSignals, fit_signals
from train.sources import load_dataset
from train.spelling import fit_spelling
from train.states import FrozenStates, compute_states, encode_states
from train.tracking import FUSED_NDCG, VALIDATION_NDCG, Tracking, require, tracker_of
from train.training_texts import corrected, training_set
from train.vocabulary import load_encoder, trim_vocabulary

log = logging.getLogger(__name__)

# Shares of a time budget after which a stage stops, so that the ones behind it still get their turn.
READING_SHARE, ITEMS_SHARE, TUNING_SHARE = 0.70, 0.74, 0.95
KEYWORDS = 6
CHOOSING_TEXTS = 2_500
"""Validation texts that the fusion is chosen by; more would take minutes on a catalogue of 100,000 items."""
JUDGING_TEXTS = 1_000
"""Validation texts that the passes of fine-tuning are compared by."""
FOLLOWING_TEXTS = 250
"""Validation texts whose loss an adaptive augmentation follows, eight times in a pass."""
DESCRIBING_TEXTS = 3
"""Texts of an item that describe it to the map, its own first; what many people said is in its learned vector already."""


def fit(source: str, settings: FitSettings, output: Path, *, track: Tracking = Tracking.TENSORBOARD) -> Run:
    """Train on ``source`` (``clothing`` or a folder) and leave a run in ``output``. track: who keeps its curves.

    A finished run of the same settings and data is returned as it is; an interrupted one continues from its checkpoint.
    Raises InvalidData, InvalidInput, InvalidRun or MissingDependency before anything is written.
    """
    started = time.monotonic()
    require(track)
    dataset = load_dataset(source)
    run = begin_run(output, settings, source, dataset)
    if run.finished:
        say(f"{output} is there already, trained on the same data with the same settings: reused")
        return run
    torch.manual_seed(settings.seed)
    clock = Clock(started, settings.max_minutes)
    labels = keep_labels(dataset, split_interactions(dataset, settings.seed), settings.labels, settings.seed)
    split, unlabelled = labels.split, texts_of(dataset, labels.unlabelled)
    examples = make_examples(dataset, split)
    guessed = _guessed(source, run, examples, unlabelled, settings)
    examples = dataclasses.replace(examples, train=with_guessed(examples.train, guessed))
    say(
        f"{dataset.name}: {examples.items:,} items to rank, {len(examples.train):,} texts to learn from, "
        f"{len(examples.validation):,} to choose by, {len(examples.test):,} held out"
    )
    texts = examples.train.texts + examples.validation.texts
    vocabulary = trim_vocabulary(load_tokenizer(settings.backbone), texts)
    encoder = load_encoder(settings.backbone, vocabulary)
    names = [" ".join((item.own_text, *item.attributes.values())) for item in dataset.items]
    spelling = fit_spelling(examples.train.texts, names, vocabulary=vocabulary.get_vocab())
    if settings.correct_spelling:
        examples = corrected(examples, spelling)
        texts = examples.train.texts + examples.validation.texts
    joint = None
    if settings.multi_task is not None:
        joint = JointHeads.begin(dataset, examples, settings.multi_task, encoder.hidden)
    if settings.gate_by_sentiment:
        open_analyser()  # which may be missing: better said before an hour of training than after
    run.start()
    run.encoder_folder.mkdir(exist_ok=True)
    vocabulary.save_pretrained(run.encoder_folder)
    # Texts are read with the very file that will serve.
    tokenizer = TextTokenizer(run.tokenizer_file, min(settings.max_tokens, encoder.max_positions))
    if settings.adapt is not Adaptation.NONE:
        encoder = adapted(run, encoder, tokenizer, [*examples.train.texts[len(guessed) :], *unlabelled], settings)
    fitted = fit_signals(dataset, examples, split, settings)
    states = compute_states(
        encoder,
        tokenizer.tokenise(texts),
        trained_layers=settings.trained_layers,
        seed=settings.seed,
        deadline=clock.deadline(READING_SHARE),
        precision=settings.precision,
    )
    learned_from = training_set(states, examples, encoder, tokenizer, vocabulary.get_vocab(), settings)
    learned_from = dataclasses.replace(learned_from, companion=joint)
    tuning = _fine_tune(run, encoder, learned_from, examples, settings, clock, track)
    read = states.done[len(examples.train) :]
    # Where the time sufficed for none, the other signals can still be weighed.
    validation = np.flatnonzero(read if read.any() else ~read)[:CHOOSING_TEXTS]
    asked = _asked(fitted, encoder, states, examples, validation, settings)
    sides = _item_sides(fitted, tuning.side.numpy(), _described(encoder, states, examples), examples, asked, settings)
    fusion = choose_fusion(asked, sides.items, settings.prior_weight)
    tuning.tracker.close(tuning.step, **{FUSED_NDCG: fusion.ndcg_at_10})
    _save(run, encoder, fitted, sides, fusion)
    if joint is not None:
        joint.save(run)
    spelling.save(run.signals_folder)
    _catalogue(dataset, examples, fitted.lexical).save(run.catalogue_file)
    zero_shot = states.zero_shot[: len(examples.train)]
    run.save_array("zero_shot/texts", zero_shot[len(guessed) :].astype(np.float16))
    run.save_array("zero_shot/items", centroids(zero_shot, examples.train, examples.items))
    cost = {"method": settings.tuning.value, **asdict(tuning.cost)}
    return _finish(run, fusion, sides, states, clock.spent_s + tuning.earlier_s, examples, cost)


def _guessed(source: str, run: Run, examples: Examples, unlabelled: list[str], settings: FitSettings) -> Pairs:
    """What a first recommender, trained in half of the time, makes of the texts without a label; nothing unless self-training."""
    if not settings.self_train:
        return Pairs([], np.zeros(0, np.int64))
    run.start()
    half = None if settings.max_minutes is None else settings.max_minutes / 2
    teacher = fit(source, dataclasses.replace(settings, self_train=False, max_minutes=half), run.folder / "teacher")
    return guessed_pairs(teacher, examples, unlabelled, settings.confidence)


def _fine_tune(
    run: Run, encoder: Encoder, data: TrainingSet, examples: Examples, settings: FitSettings, clock: Clock, track: Tracking
) -> FineTuning:
    """The encoder and the item vectors of the text signal, learned together; continues from a checkpoint."""
    states, weights, count = data.states, data.weights, len(examples.train)
    side = ItemSide(centroids(states.zero_shot[:count], examples.train, examples.items), examples.counts, settings.prior_weight)
    if len(data.rows) < count:
        log.warning(
            "the time budget sufficed for %d of %d texts; the others only counted for words and popularity", len(data.rows), count
        )
    steps = settings.epochs * math.ceil(len(data.rows) / settings.batch_size)
    adapters = AdapterSettings(settings.tuning, settings.rank, settings.alpha, settings.bottleneck, max(steps, 1))
    tuning = FineTuning.begin(encoder, side, states.frozen_layers, adapters=adapters, companion=data.companion)
    guard = json.dumps({name: value for name, value in run.settings.items() if name != "max_minutes"}, sort_keys=True)
    if load_checkpoint(run.folder, tuning, guard):
        say(f"continuing from step {tuning.step} of the checkpoint in {run.folder}")
    else:
        read = states.zero_shot[data.rows]
        items, counting = examples.train.items[data.rows], None if weights is None else weights[data.rows]
        fit_items(side, read, items, settings, clock.deadline(ITEMS_SHARE), weights=counting)
        if data.companion is not None:
            data.companion.begin_on(read, data.rows, settings)
    judging = np.flatnonzero(states.done[count:])[:JUDGING_TEXTS]
    tuning.tracker = tracker_of(run, track, tuning.step)

    judges = examples.validation.items[judging]

    def logits_of(places: NDArray[np.int64]) -> Tensor:
        with torch.inference_mode():
            return side(torch.from_numpy(encode_states(encoder, states, judging[places] + count)))  # type: ignore[no-any-return]

    def validation_loss() -> float:
        seen = np.flatnonzero(judges != UNSEEN)[:FOLLOWING_TEXTS]
        return float(nn.functional.cross_entropy(logits_of(seen), torch.from_numpy(judges[seen]))) if len(seen) else 0.0

    def ndcg() -> float:
        found = gains(logits_of(np.arange(len(judging))), torch.from_numpy(judges))
        say(f"NDCG@10 on validation after {tuning.step} steps, text alone: {found.mean():.4f}")
        tuning.tracker.log(tuning.step, **{VALIDATION_NDCG: float(found.mean())})
        return float(found.mean())

    def save() -> None:
        save_checkpoint(run.folder, tuning, guard, clock.spent_s + tuning.earlier_s)

    if not fine_tune(tuning, data, settings, clock.deadline(TUNING_SHARE), save, ndcg, validation_loss):
        say(f"the time budget of {settings.max_minutes:g} minutes sufficed for {tuning.step} of {steps} steps of fine-tuning")
    tuning.merge()
    return tuning


def _described(encoder: Encoder, states: FrozenStates, examples: Examples) -> NDArray[np.float32]:
    """(items, hidden) what the fine-tuned encoder makes of a few texts of each item, its own first; zeros without any."""
    rows: list[int] = []
    taken = np.zeros(examples.items, np.int64)
    for row in reversed(range(len(examples.train))):  # the items' own texts come last among the pairs
        item = int(examples.train.items[row])
        if states.done[row] and taken[item] < DESCRIBING_TEXTS:
            taken[item] += 1
            rows.append(row)
    chosen = np.asarray(rows, np.int64)
    return centroids(encode_states(encoder, states, chosen), examples.train.take(chosen), examples.items)


def _asked(
    fitted: FittedSignals,
    encoder: Encoder,
    states: FrozenStates,
    examples: Examples,
    validation: NDArray[np.int64],
    settings: FitSettings,
) -> Asked:
    """The validation queries, as every signal sees them."""
    pairs = examples.validation.take(validation)
    features = (*FEATURES, SENTIMENT) if settings.gate_by_sentiment else FEATURES
    signals = Signals(fitted.lexical, fitted.graph, fitted.behaviour, Gates({}, features=features))
    interest = encode_states(encoder, states, validation + len(examples.train))
    return Asked(
        signals.user_sides(pairs.texts, interest, pairs.histories),
        signals.features(pairs.texts, pairs.histories),
        pairs.histories,
        pairs.items,
        features,
    )


@dataclass(frozen=True)
class _ItemSides:
    """Signal → what is saved of its item side: the centred vectors, the map for new items, and how strongly it drew."""

    items: dict[str, NDArray[np.float32]]
    maps: dict[str, ItemMap]
    shrinkage: dict[str, float]


def _item_sides(
    fitted: FittedSignals,
    text: NDArray[np.float32],
    described_text: NDArray[np.float32],
    examples: Examples,
    asked: Asked,
    settings: FitSettings,
) -> _ItemSides:
    """Draw every signal's learned item vectors towards what is said of the items, the more the less was learned of one.

    The average item is subtracted at the end: the ranking stays, and each term of the sum says how far it lifts an item above it.
    """
    learned = {TEXT_SIGNAL: text, **fitted.learned}
    described = {TEXT_SIGNAL: described_text, **fitted.described}
    prior = log_prior(examples.counts)
    sides = _ItemSides({}, {}, {})
    for signal in (name for name in SIGNALS if name in learned):
        item_map = fit_map(described[signal], learned[signal], examples.counts)
        mapped = item_map(described[signal])
        weighted = torch.from_numpy(settings.prior_weight * prior)
        strength = choose_shrinkage(learned[signal], mapped, examples.counts, asked, signal, weighted)
        vectors = shrink(learned[signal], mapped, examples.counts, strength)
        average = vectors.mean(axis=0)
        sides.items[signal] = np.asarray(vectors - average, np.float32)
        sides.maps[signal] = item_map.shifted(average)
        sides.shrinkage[signal] = strength
    sides.items[PRIOR] = (prior - prior.mean())[:, None]
    never = np.log(PRIOR_SHRINKAGE / (examples.counts + PRIOR_SHRINKAGE).sum())
    sides.maps[PRIOR] = ItemMap(np.asarray([[never - prior.mean()]], np.float32))
    return sides


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


def _save(run: Run, encoder: Encoder, fitted: FittedSignals, sides: _ItemSides, fusion: Fusion) -> None:
    """Write everything that evaluation and export need."""
    try:
        encoder.bert.save_pretrained(run.encoder_folder)
    except SafetensorError as error:
        raise OSError(f"{run.encoder_folder} cannot be written: {error}") from error
    Signals(fitted.lexical, fitted.graph, fitted.behaviour, fusion.gates).save(run.signals_folder)
    for signal, vectors in sides.items.items():
        run.save_array(f"items/{signal}", vectors)
    for signal, item_map in sides.maps.items():
        run.save_array(f"maps/{signal}", item_map.matrix)


def _finish(
    run: Run,
    fusion: Fusion,
    sides: _ItemSides,
    states: FrozenStates,
    spent_s: float,
    examples: Examples,
    cost: Mapping[str, Any],
) -> Run:
    chosen = {
        "weights": {name: round(float(np.exp(bias)), 4) for name, bias in fusion.gates.biases.items()},
        "gated": bool(fusion.gates.weights),
        "features": list(fusion.gates.features),
        "shrinkage": sides.shrinkage,
        "validation_ndcg_at_10": _number(fusion.ndcg_at_10),
        "cross_validated_constant": _number(fusion.constant_ndcg_at_10),
        "cross_validated_gate": _number(fusion.gated_ndcg_at_10),
    }
    finished = run.finish(
        {
            "items": examples.items,
            "signals": {signal: vectors.shape[1] for signal, vectors in sides.items.items()},
            "texts": {part: len(getattr(examples, part)) for part in ("train", "validation", "test")},
            "texts_read": int(states.done.sum()),
            "fusion": chosen,
            "tuning": cost,
            "minutes": round(spent_s / 60, 2),  # of all sittings
        }
    )
    (run.folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    say(f"{run.folder}: trained in {finished.record['minutes']} minutes, NDCG@10 on validation {fusion.ndcg_at_10:.3f}")
    return finished


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
