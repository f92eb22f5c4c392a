"""Evaluate a run: the fused recommender, its signals alone, and the baselines, under one protocol.

Full ranking of the catalogue for every held-out query; the items of the query's own history are left out, and an item that
training never saw counts as a miss. Besides the queries as written, the same wishes asked in other ways (train/queries.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bertrec.catalogue import Catalogue
from bertrec.errors import InvalidData, InvalidInput, InvalidRun
from train.adaptation.labels import Labels, keep_labels
from train.augmentation import Synonyms, fit_synonyms, token_vectors
from train.baselines import BASELINES, COLLABORATIVE, Context, PlainRecipe, Ranker
from train.data import SPLITS, TEST, Dataset, split_interactions
from train.encoder import Encoder, load_tokenizer
from train.examples import Examples, Pairs, make_examples
from train.measure import Answers, Subject, differences, measured, per_query, slices, whole
from train.metrics import KEPT, top_items
from train.progress import say
from train.queries import KINDS, SYNONYMS, QueryContext, chosen_kinds
from train.rankers import FUSED, fused_ranker, signal_rankers
from train.report import AS_WRITTEN, Evaluation, read_evaluation, write_evaluation
from train.run import METRICS_FILE, Run
from train.sources import load_dataset

DEFAULT_BASELINES = ("popularity", "tfidf", "zero-shot")
"""They take seconds together; the pre-trained vectors lie in the run."""
BY_NAME_ONLY = ("plain-recipe",)
"""Baselines that take hours, and so are not among ``all``."""
DIVERSITY = "zero_shot/items"
"""The run's array of item vectors by which diversity is measured: of the pre-trained encoder, the same for every ranker."""
QUERY_BLOCK = 1_024
"""Queries that are ranked at once: a (1,024, 100,000) block of scores is 400 MB."""
PRIMARY_ATTRIBUTES = ("class", "category", "categories", "genre")
"""What says best which kind of thing an item is; the first that the data has counts."""


def evaluate(
    run: Run,
    split: str = TEST,
    *,
    queries: Sequence[str] = (AS_WRITTEN,),
    baselines: Sequence[str] = DEFAULT_BASELINES,
    attribute: str | None = None,
) -> Evaluation:
    """Rank the run's held-out queries; also writes metrics.json and per_query.npz (train/report.py) into the run.

    queries: ways of asking, or ``all``; as written is always among them. baselines: names, ``all`` or ``none``. attribute: what
    tells classes apart, else the first of ``PRIMARY_ATTRIBUTES``, else the data's first attribute.
    An evaluation of this run and split that holds all that is read instead. Raises InvalidInput for an unknown split, query kind,
    baseline or attribute, InvalidData for a split without texts, InvalidRun where the data has changed.
    """
    kinds = chosen_kinds([AS_WRITTEN, *queries])
    names = chosen_baselines(baselines)
    known = read_evaluation(run)
    if known and _covers(known, split, kinds, names, attribute):
        say(f"{run.folder / METRICS_FILE} is there already, measured on this run: reused")
        return known
    dataset = run_dataset(run)
    examples = run_examples(run, dataset)
    held = held_out(examples, split)
    subject = Subject(dataset, examples, primary_attribute(dataset, attribute), int(run.settings["seed"]), run.array(DIVERSITY))
    fitted = _applicable(names, dataset) if list(baselines) == ["all"] else names
    context = query_context(run, subject, held, kinds)
    answered = _answers(kinds, held, rankers_of(run, dataset, examples, fitted), subject, context)
    evaluation = Evaluation(
        split=split,
        seed=subject.seed,
        items=examples.items,
        attribute=subject.attribute,
        asked={"queries": kinds, "baselines": names},
        kinds={answers.kind: whole(answers, subject) for answers in answered},
        slices=slices(answered[0], subject),
        differences=differences(answered[0], FUSED, subject),
    )
    write_evaluation(run, evaluation, per_query(answered))
    return evaluation


def query_context(run: Run, subject: Subject, held: Pairs, kinds: Sequence[str]) -> QueryContext:
    """What the kinds may look at; synonyms, where they are asked for, are the nearest words in the vocabulary of the run's BERT.

    They are not WordNet's: the same run is to be asked the same on every machine.
    """
    found: Synonyms = {}
    if SYNONYMS in kinds:
        vocabulary = load_tokenizer(run.encoder_folder).get_vocab()
        found = fit_synonyms(held.texts, vocabulary, token_vectors(Encoder.load(run.encoder_folder)))
    return QueryContext(subject.dataset, subject.attribute, subject.seed, found)


def _answers(
    kinds: Sequence[str], held: Pairs, rankers: Sequence[Ranker], subject: Subject, context: QueryContext
) -> list[Answers]:
    """What the rankers answer to each kind that the data gives queries of, as written first.

    The plain recipe ranks a sample only; it is reported beside the others on that sample, as a kind of its own.
    """
    whole_lists = [ranker for ranker in rankers if not isinstance(ranker, PlainRecipe)]
    wanted = [(kind, KINDS[kind](held, context), whole_lists) for kind in kinds]
    for plain in (ranker for ranker in rankers if isinstance(ranker, PlainRecipe)):
        sample = held.take(plain.sample(held))
        wanted.append((f"{AS_WRITTEN}, {len(sample)} drawn", sample, [*whole_lists, plain]))
    answered = []
    for kind, asked, asking in wanted:
        if len(asked):
            say(f"ranking {subject.examples.items:,} items for {len(asked):,} queries, {kind}")
            answered.append(measured(kind, asked, {ranker.name: ranked(ranker, asked) for ranker in asking}, subject))
    return answered


def chosen_baselines(names: Sequence[str]) -> list[str]:
    """The baselines of those names; ``all`` (but those of ``BY_NAME_ONLY``) and ``none`` stand alone.

    Raises InvalidInput for an unknown one.
    """
    if list(names) in (["all"], ["none"]):
        return [name for name in BASELINES if name not in BY_NAME_ONLY] if names[0] == "all" else []
    if not names or (unknown := [name for name in names if name not in BASELINES]):
        given = ", ".join(unknown) if names else ""
        raise InvalidInput(f"baselines are {given!r}; accepted are all, none, or some of {', '.join(BASELINES)}")
    return [name for name in BASELINES if name in names]


def _applicable(names: Sequence[str], dataset: Dataset) -> list[str]:
    """The baselines that the data has something for: collaborative ones need users."""
    if any(interaction.user_id for interaction in dataset.interactions):
        return list(names)
    say(f"the data names no users: {', '.join(COLLABORATIVE)} left out")
    return [name for name in names if name not in COLLABORATIVE]


def run_dataset(run: Run) -> Dataset:
    """The data that the run was trained on, read again. Raises InvalidRun where it has changed since."""
    dataset = load_dataset(run.record["source"])
    if dataset.fingerprint != run.record["data"]["fingerprint"]:
        raise InvalidRun(f"the data in {run.record['source']} has changed since {run.folder} was trained; train again")
    return dataset


def run_examples(run: Run, dataset: Dataset | None = None) -> Examples:
    """The examples that the run was trained on, read again. Raises InvalidRun where the data has changed since."""
    dataset = dataset or run_dataset(run)
    examples = make_examples(dataset, run_labels(run, dataset).split)
    ids = [item.item_id for item in Catalogue.load(run.catalogue_file).items]
    if ids != [dataset.items[row].item_id for row in examples.catalogue]:
        raise InvalidRun(f"{run.catalogue_file} does not list the items that the data gives; train again")
    return examples


def run_labels(run: Run, dataset: Dataset) -> Labels:
    """The run's split, and which of its training texts were without their item."""
    seed = run.settings["seed"]
    return keep_labels(dataset, split_interactions(dataset, seed), run.settings.get("labels", 1.0), seed)


def held_out(examples: Examples, split: str) -> Pairs:
    """The queries of a split. Raises InvalidInput for an unknown one, InvalidData for one without texts."""
    if split not in SPLITS:
        raise InvalidInput(f"split is {split!r}; accepted are {', '.join(SPLITS)}")
    queries = examples.part(split)
    if not len(queries):
        raise InvalidData(f"the {split} split holds no texts, so there is nothing to ask; give interactions a text")
    return queries


def primary_attribute(dataset: Dataset, wanted: str | None = None) -> str | None:
    """The attribute that tells classes apart, or None without attributes. Raises InvalidInput for one that no item has."""
    having = dict.fromkeys(name for item in dataset.items for name in item.attributes)
    if wanted and wanted not in having:
        raise InvalidInput(f"attribute is {wanted!r}; the items of {dataset.name!r} have {', '.join(having) or 'none'}")
    return wanted or next((name for name in (*PRIMARY_ATTRIBUTES, *having) if name in having), None)


def rankers_of(run: Run, dataset: Dataset, examples: Examples, baselines: Sequence[str]) -> list[Ranker]:
    """The run's own rankers, the fused one first, and the baselines of those names, fitted on the same training split."""
    fused = fused_ranker(run)
    context = Context(
        examples=examples,
        dataset=dataset,
        seed=run.settings["seed"],
        backbone=run.settings["backbone"],
        max_tokens=run.settings["max_tokens"],
        train_vectors=run.array("zero_shot/texts"),
    )
    return [fused, *signal_rankers(fused), *(BASELINES[name](context) for name in baselines)]


def ranked(ranker: Ranker, queries: Pairs) -> NDArray[np.int64]:
    """(queries, min(50, items)) best items of each query, those of its history left out; UNSEEN behind the last one."""
    blocks = []
    for start in range(0, len(queries), QUERY_BLOCK):
        part = queries.take(np.arange(start, min(start + QUERY_BLOCK, len(queries))))
        scores = np.array(ranker.scores(part), np.float32)  # (block, items), a copy: what the ranker holds stays as it is
        for row, history in enumerate(part.histories):
            scores[row, list(history)] = -np.inf
        blocks.append(top_items(scores, KEPT))
    return np.vstack(blocks)


def _covers(known: Evaluation, split: str, kinds: list[str], baselines: list[str], attribute: str | None) -> bool:
    """Whether an evaluation holds all that is asked for."""
    covered = set(kinds) <= set(known.asked["queries"]) and set(baselines) <= set(known.asked["baselines"])
    return covered and known.split == split and attribute in (None, known.attribute)
