"""Fit a recommender: the story of a training run from data set to run folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bertrec.catalogue import Catalogue, CatalogueItem
from bertrec.fusion import FEATURES, SENTIMENT, Gates, Signals
from bertrec.sentiment import open_analyser
from bertrec.signals import LexicalSignal
from bertrec.spelling import SpellingCorrector
from bertrec.tensors import PRIOR, SIGNALS, TEXT_SIGNAL
from bertrec.text import TextTokenizer
from train.adaptation.kinds import Adaptation
from train.adaptation.labels import keep_labels, texts_of
from train.adaptation.self_training import guessed_pairs, with_guessed
from train.adaptation.stage import adapted
from train.checkpoint import FILE as CHECKPOINT_FILE
from train.clock import Clock
from train.data import Dataset, split_interactions
from train.encoder import Encoder, load_tokenizer
from train.examples import Examples, Pairs, make_examples
from train.fine_tuning import frozen_states, learn_text
from train.fusion import Asked, Fusion, choose_fusion, choose_shrinkage
from train.heads.joint import JointHeads
from train.items import FIRST_SCALE, PRIOR_SHRINKAGE, ItemMap, centroids, fit_map, log_prior, shrink
from train.optimise import FineTuning
from train.progress import say
from train.records import writing
from train.run import Run, begin_run, open_run
from train.settings import FitSettings
from train.signals import FittedSignals, fit_signals
from train.sources import load_dataset
from train.spelling import fit_spelling
from train.states import FrozenStates, encode_states
from train.team import ALONE, Team, training_device
from train.tracking import FUSED_NDCG, Tracking, require
from train.training_texts import corrected, training_set
from train.vocabulary import load_encoder, trim_vocabulary

KEYWORDS = 6
CHOOSING_TEXTS = 2_500
"""Validation texts that the fusion is chosen by; more would take minutes on a catalogue of 100,000 items."""
DESCRIBING_TEXTS = 3
"""Texts of an item that describe it to the map, its own first; what many people said is in its learned vector already."""


def fit(
    source: str,
    settings: FitSettings,
    output: Path,
    *,
    track: Tracking = Tracking.TENSORBOARD,
    team: Team = ALONE,
    clock: Clock | None = None,
) -> Run:
    """Train on ``source`` (``clothing`` or a folder) and leave a run in ``output``. track: who keeps its curves.

    A finished run of the same settings and data is returned as it is; an interrupted one continues from its checkpoint. Every
    process of a team calls this; the leader alone writes. Raises InvalidData, InvalidInput, InvalidRun or MissingDependency
    before anything is written, and InvalidInput where the budget suffices for no text. clock: of a caller that
    measures, else begun here.
    """
    clock = clock or Clock(time.monotonic(), settings.max_minutes)
    require(track)
    dataset = load_dataset(source)
    run = begin_run(output, settings, source, dataset)
    if run.finished:
        say(f"{output} is there already, trained on the same data with the same settings: reused")
        return run
    torch.manual_seed(settings.seed + team.rank)
    labels = keep_labels(dataset, split_interactions(dataset, settings.seed), settings.labels, settings.seed)
    examples = make_examples(dataset, labels.split)
    unlabelled = texts_of(dataset, labels.unlabelled)
    guessed = _guessed(source, run, examples, unlabelled, settings, team, clock)
    examples = dataclasses.replace(examples, train=with_guessed(examples.train, guessed))
    say(
        f"{dataset.name}: {examples.items:,} items to rank, {len(examples.train):,} texts to learn from, "
        f"{len(examples.validation):,} to choose by, {len(examples.test):,} held out"
    )
    reader = _reader(run, dataset, examples, settings, team)
    examples = reader.examples
    encoder, tokenizer = reader.encoder, reader.tokenizer
    with clock.paused():  # adaptation has a budget of its own, adapt_minutes
        if settings.adapt is not Adaptation.NONE and team.leads:
            encoder = adapted(run, encoder, tokenizer, [*examples.train.texts[len(guessed) :], *unlabelled], settings)
        team.tell(encoder.parameters())
    fitted = fit_signals(dataset, examples, labels.split, settings) if team.leads else None
    encoder.to(training_device())
    states = frozen_states(run, encoder, tokenizer, examples, settings, clock, team=team)
    learned_from = training_set(states, examples, encoder, tokenizer, reader.vocabulary, settings)
    learned_from = dataclasses.replace(learned_from, companion=reader.joint)
    tuning = learn_text(run, encoder, learned_from, examples, settings, clock, track, team=team)
    if fitted is not None:
        _weigh(run, fitted, tuning, states, dataset, reader, settings, clock, len(guessed))
    team.wait()
    return open_run(output)


@dataclass(frozen=True)
class _Reader:
    """What reads texts: the encoder, its tokenizer and vocabulary, and the spelling corrector. examples: as they are read.

    joint: the heads that are learned together with the recommendation, if any.
    """

    examples: Examples
    encoder: Encoder
    tokenizer: TextTokenizer
    vocabulary: dict[str, int]
    spelling: SpellingCorrector
    joint: JointHeads | None


def _reader(run: Run, dataset: Dataset, examples: Examples, settings: FitSettings, team: Team) -> _Reader:
    """Load the backbone, fit the spelling corrector, and start the run with the tokenizer that will serve."""
    trimmed = trim_vocabulary(load_tokenizer(settings.backbone), examples.train.texts + examples.validation.texts)
    encoder, vocabulary = load_encoder(settings.backbone, trimmed), trimmed.get_vocab()
    names = [" ".join((item.own_text, *item.attributes.values())) for item in dataset.items]
    spelling = fit_spelling(examples.train.texts, names, vocabulary=vocabulary)
    if settings.correct_spelling:
        examples = corrected(examples, spelling)
    joint = None
    if settings.multi_task is not None:
        joint = JointHeads.begin(dataset, examples, settings.multi_task, encoder.hidden)
    if settings.gate_by_sentiment:
        open_analyser()  # which may be missing: better said before an hour of training than after
    team.wait()  # until all have seen what was there
    if team.leads:
        run.start()
        run.encoder_folder.mkdir(exist_ok=True)
        trimmed.save_pretrained(run.encoder_folder)
    team.wait()
    # Texts are read with the very file that will serve.
    tokenizer = TextTokenizer(run.tokenizer_file, min(settings.max_tokens, encoder.max_positions))
    return _Reader(examples, encoder, tokenizer, vocabulary, spelling, joint)


def _weigh(
    run: Run,
    fitted: FittedSignals,
    tuning: FineTuning,
    states: FrozenStates,
    dataset: Dataset,
    reader: _Reader,
    settings: FitSettings,
    clock: Clock,
    guessed: int,
) -> None:
    """Weigh the signals on validation texts, and save what evaluation and export need. guessed: first texts without a label."""
    encoder, examples = tuning.encoder, reader.examples
    read = states.done[len(examples.train) :]
    # Where the time sufficed for none, the other signals can still be weighed.
    validation = np.flatnonzero(read if read.any() else ~read)[:CHOOSING_TEXTS]
    asked = _asked(fitted, encoder, states, examples, validation, settings)
    sides = _item_sides(fitted, tuning.side.numpy(), _described(encoder, states, examples), examples, asked, settings)
    fusion = choose_fusion(asked, sides.items, settings.prior_weight)
    tuning.tracker.close(tuning.step, **{FUSED_NDCG: fusion.ndcg_at_10})
    _save(run, encoder, fitted, sides, fusion)
    if reader.joint is not None:
        reader.joint.save(run)
    reader.spelling.save(run.signals_folder)
    _catalogue(dataset, examples, fitted.lexical).save(run.catalogue_file)
    zero_shot = states.zero_shot[: len(examples.train)]
    run.save_array("zero_shot/texts", zero_shot[guessed:].astype(np.float16))
    run.save_array("zero_shot/items", centroids(zero_shot, examples.train, examples.items))
    cost = {"method": settings.tuning.value, **asdict(tuning.cost)}
    _finish(run, fusion, sides, states, clock.spent_s + tuning.earlier_s, examples, cost)


def _guessed(
    source: str, run: Run, examples: Examples, unlabelled: list[str], settings: FitSettings, team: Team, clock: Clock
) -> Pairs:
    """What a first recommender, trained in half of the time, makes of the texts without a label; nothing unless self-training."""
    if not settings.self_train:
        return Pairs([], np.zeros(0, np.int64))
    team.wait()  # until all have seen what was there
    if team.leads:
        run.start()
    half = None if settings.max_minutes is None else settings.max_minutes / 2
    first = Clock(time.monotonic(), half)
    alone = dataclasses.replace(settings, self_train=False, max_minutes=half)
    teacher = fit(source, alone, run.folder / "teacher", team=team, clock=first)
    clock.paused_s += first.paused_s
    return guessed_pairs(teacher, examples, unlabelled, settings.confidence)


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
        scale = settings.text_scale if signal == TEXT_SIGNAL else FIRST_SCALE
        item_map = fit_map(described[signal], learned[signal], examples.counts, scale)
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
    with writing(run.encoder_folder):
        encoder.bert.save_pretrained(run.encoder_folder)
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
