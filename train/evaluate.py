"""Evaluate a run: the fused recommender, its signals alone, and the baselines, under one protocol.

Full ranking of the catalogue for every held-out text; an item that training never saw counts as a miss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertrec.catalogue import Catalogue
from bertrec.errors import InvalidData, InvalidInput, InvalidRun
from bertrec.signals import LexicalSignal
from bertrec.text import TextTokenizer
from train.baselines import popularity, tfidf_centroid
from train.data import SPLITS, TEST, split_interactions
from train.encoder import Encoder
from train.examples import Examples, Pairs, make_examples
from train.metrics import RankingQuality, ranking_quality, top_items
from train.progress import say
from train.run import METRICS_FILE, Run, write_json
from train.sources import load_dataset
from train.states import encode_texts

QUERY_BLOCK = 1_024
"""Queries that are ranked at once: a (1,024, 100,000) block of scores is 400 MB."""


@dataclass(frozen=True)
class Evaluation:
    """Quality of every ranker on one split."""

    split: str
    items: int
    rankers: dict[str, RankingQuality]


def evaluate(run: Run, split: str = TEST) -> Evaluation:
    """Rank the run's held-out texts with the fused recommender and the baselines; also writes metrics.json into the run.

    A metrics.json of this run and split is read instead. Raises InvalidInput for an unknown split, InvalidData for one
    without texts, InvalidRun where the data has changed.
    """
    if (known := _written(run, split)) is not None:
        say(f"{run.folder / METRICS_FILE} is there already, measured on this run: reused")
        return known
    examples = run_examples(run)
    queries = held_out(examples, split)
    diversity_vectors: NDArray[np.float32] = run.array("zero_shot/items")
    rankers = {name: ranking_quality(top, queries.items, diversity_vectors) for name, top in _rankings(run, examples, queries)}
    content = {
        "split": split,
        "run_created": run.record["created"],
        "data": run.record["data"],
        "settings": run.settings,
        "items": examples.items,
        "rankers": {name: quality.to_dict() for name, quality in rankers.items()},
    }
    write_json(run.folder / METRICS_FILE, content)
    return Evaluation(split, examples.items, rankers)


def _written(run: Run, split: str) -> Evaluation | None:
    """The evaluation of this very run and split that lies in its folder."""
    try:
        content = json.loads((run.folder / METRICS_FILE).read_text(encoding="utf-8"))
        if (content["split"], content["run_created"]) != (split, run.record["created"]):
            return None
        rankers = {name: RankingQuality(**quality) for name, quality in content["rankers"].items()}
        return Evaluation(split, content["items"], rankers)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_examples(run: Run) -> Examples:
    """The examples that the run was trained on, read again. Raises InvalidRun where the data has changed since."""
    dataset = load_dataset(run.record["source"])
    if dataset.fingerprint != run.record["data"]["fingerprint"]:
        raise InvalidRun(f"the data in {run.record['source']} has changed since {run.folder} was trained; train again")
    examples = make_examples(dataset, split_interactions(dataset, run.settings["seed"]))
    ids = [item.item_id for item in Catalogue.load(run.catalogue_file).items]
    if ids != [dataset.items[row].item_id for row in examples.catalogue]:
        raise InvalidRun(f"{run.catalogue_file} does not list the items that the data gives; train again")
    return examples


def held_out(examples: Examples, split: str) -> Pairs:
    """The queries of a split. Raises InvalidInput for an unknown one, InvalidData for one without texts."""
    if split not in SPLITS:
        raise InvalidInput(f"split is {split!r}; accepted are {', '.join(SPLITS)}")
    queries: Pairs = getattr(examples, split)
    if not len(queries):
        raise InvalidData(f"the {split} split holds no texts, so there is nothing to ask; give interactions a text")
    return queries


def _rankings(run: Run, examples: Examples, queries: Pairs) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Name and top items, (queries, 10), of every ranker."""
    tokenizer = TextTokenizer(run.tokenizer_file, run.settings["max_tokens"])
    interest = encode_texts(Encoder.load(run.encoder_folder), tokenizer, queries.texts, "encoding with the fine-tuned BERT")
    pretrained = encode_texts(
        Encoder.load(run.settings["backbone"]), tokenizer, queries.texts, "encoding with the pre-trained BERT"
    )
    words = LexicalSignal.load(run.signals_folder).vectors(queries.texts)
    text, lexical, prior = (run.array(f"items/{signal}") for signal in ("text", "lexical", "prior"))
    fused = np.hstack([interest, words, np.ones((len(queries), 1), np.float32)])  # everything is one inner product
    yield "fused", _top(fused, np.hstack([text, lexical, prior[:, None]]))
    yield "text alone", _top(interest, text)
    yield "lexical alone", _top(words, lexical)
    yield "TF-IDF centroid", top_items(tfidf_centroid(examples, queries))
    yield "zero-shot BERT", _top(pretrained, run.array("zero_shot/items"))
    yield "popularity", top_items(popularity(examples, queries))


def _top(queries: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.int64]:
    """(queries, 10) best items by inner product, a block of queries at a time."""
    blocks = range(0, len(queries), QUERY_BLOCK)
    return np.vstack([top_items(queries[start : start + QUERY_BLOCK] @ items.T) for start in blocks])
