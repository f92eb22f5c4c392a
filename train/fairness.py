"""Whom a run serves worse, which items it shows more than they are chosen, and what it does with harmful requests.

Quality: NDCG@10 on the held-out queries by segment, such as the age band of who wrote them. The largest gap between two groups
is named with a bootstrap interval of that pair's difference. The pair was chosen for its gap, so the interval alone would
promise too much: beside it stands how often groups of the same sizes, drawn at random, differ as much (a permutation test, Good,
2005). Groups below ``FEWEST`` queries are shown, and take no part in the gap.

Exposure: which share of the places in the lists of ten a group of items gets, against its share of what was chosen in training
and of what the queries asked for (Singh and Joachims, 2018).

Harmful requests: how many of data/harmful_queries.txt the rules of data/refusals.json refuse, and how many held-out texts they
refuse by mistake. Without the rules none is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from bertrec.catalogue import values
from bertrec.errors import InvalidInput
from bertrec.rules import Effect, RuleBook, Wish
from train.bootstrap import RESAMPLES, Estimate, bootstrap
from train.data import TEST, Dataset
from train.evaluate import held_out, primary_attribute, ranked, run_dataset, run_examples
from train.examples import OWN_TEXT, UNSEEN, Examples, Pairs
from train.metrics import CUTOFF, ndcg
from train.rankers import Encode, fused_ranker
from train.records import write_json
from train.run import Run

FAIRNESS_FILE = "fairness.json"
FEWEST = 30
"""Queries below which a group's mean says next to nothing."""
PERMUTATIONS = 1_000
_DATA = Path(__file__).parent.parent / "data"
HARMFUL_FILE, REFUSALS_FILE = _DATA / "harmful_queries.txt", _DATA / "refusals.json"


@dataclass(frozen=True)
class Gap:
    """The largest difference of NDCG@10 between two groups. by_chance: share of random groupings that differ as much."""

    best: str
    worst: str
    difference: Estimate
    by_chance: float


@dataclass(frozen=True)
class Segment:
    """Quality by the values of one segment. gap: None where fewer than two groups are large enough."""

    queries: Mapping[str, int]
    ndcg_at_10: Mapping[str, Estimate]
    gap: Gap | None


@dataclass(frozen=True)
class Exposure:
    """Shares of one group of items. shown: of the places; chosen: of training choices; asked: of the queries' right items."""

    items: int
    shown: Estimate
    chosen: float
    asked: float


@dataclass(frozen=True)
class Refusals:
    """Harmful requests that the rules refuse, out of all, by rule; and held-out texts that they refuse, which are mistakes."""

    harmful: int
    refused: int
    by_rule: Mapping[str, int]
    missed: Sequence[str]
    held_out: int
    held_out_refused: int


@dataclass(frozen=True)
class Fairness:
    """What was found on a split. attribute: what groups the items."""

    split: str
    queries: int
    attribute: str | None
    segments: Mapping[str, Segment]
    exposure: Mapping[str, Exposure]
    refusals: Refusals


def fairness(run: Run, split: str = TEST, *, attribute: str | None = None, encode: Encode | None = None) -> Fairness:
    """Rank the split's queries with the fused recommender, and compare groups.

    attribute: what groups the items; else the first that is a segment of the queries too, else what tells classes apart. encode:
    what reads texts; else the run's encoder. Raises what :func:`train.evaluate.evaluate` raises.
    """
    dataset = run_dataset(run)
    examples = run_examples(run, dataset)
    queries = held_out(examples, split)
    attribute = primary_attribute(dataset, attribute or _shared_attribute(dataset))
    top = ranked(fused_ranker(run, encode), queries)[:, :CUTOFF]  # (queries, ≤ 10)
    quality = ndcg(top, queries.items)  # (queries,)
    seed = int(run.settings["seed"])
    return Fairness(
        split=split,
        queries=len(queries),
        attribute=attribute,
        segments={name: segment(quality, groups, seed) for name, groups in _grouped(dataset, queries).items()},
        exposure=exposure(dataset, examples, queries, top, attribute, seed) if attribute else {},
        refusals=refusals(queries.texts),
    )


def write_fairness(found: Fairness, path: Path) -> None:
    """Leave it as JSON."""
    write_json(path, asdict(found))


def read_fairness(path: Path) -> dict[str, Any] | None:
    """What :func:`write_fairness` wrote, or None where there is nothing to be read."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def segment(quality: NDArray[np.float64], groups: Sequence[str], seed: int) -> Segment:
    """(queries,) NDCG@10 and each query's group → the groups' means, and the largest gap."""
    labels = np.asarray(groups)
    parts = {name: quality[labels == name] for name in sorted(set(groups))}
    means = {name: bootstrap(part[None, :], seed)[0] for name, part in parts.items()}
    return Segment({name: len(part) for name, part in parts.items()}, means, _gap(parts, seed))


def _gap(parts: Mapping[str, NDArray[np.float64]], seed: int) -> Gap | None:
    large = {name: part for name, part in parts.items() if len(part) >= FEWEST}
    if len(large) < 2:
        return None
    best = max(large, key=lambda name: float(large[name].mean()))
    worst = min(large, key=lambda name: float(large[name].mean()))
    observed = float(large[best].mean() - large[worst].mean())
    random = np.random.default_rng([seed, 3])
    # The groups are resampled apart: no query belongs to both.
    draws = [
        random.choice(large[best], len(large[best])).mean() - random.choice(large[worst], len(large[worst])).mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    together = np.concatenate(list(large.values()))
    ends = np.cumsum([len(part) for part in large.values()])[:-1]
    shuffled = [_spread(np.split(random.permutation(together), ends)) for _ in range(PERMUTATIONS)]
    by_chance = (1 + sum(one >= observed for one in shuffled)) / (1 + PERMUTATIONS)
    return Gap(best, worst, Estimate(observed, float(low), float(high)), by_chance)


def _spread(parts: Sequence[NDArray[np.float64]]) -> float:
    means = [float(part.mean()) for part in parts]
    return max(means) - min(means)


def exposure(
    dataset: Dataset, examples: Examples, queries: Pairs, top: NDArray[np.int64], attribute: str, seed: int
) -> dict[str, Exposure]:
    """Group → its shares; an item of several values counts in each, one without the attribute as ``none``."""
    labels = [values(dataset.items[row].attributes.get(attribute, "")) or ("none",) for row in examples.catalogue.tolist()]
    asked = queries.items[queries.items != UNSEEN]
    shares: dict[str, Exposure] = {}
    for name in sorted({value for of_item in labels for value in of_item}):
        member = np.asarray([name in of_item for of_item in labels])  # (items,)
        shown = np.where(top == UNSEEN, False, member[top])  # (queries, ≤ 10)
        (estimate,) = bootstrap(shown.mean(axis=1)[None, :].astype(np.float64), seed)
        chosen = float(examples.counts[member].sum() / max(int(examples.counts.sum()), 1))
        shares[name] = Exposure(int(member.sum()), estimate, chosen, float(member[asked].mean()) if len(asked) else 0.0)
    return shares


def refusals(texts: Sequence[str], *, harmful: Path = HARMFUL_FILE, book: Path = REFUSALS_FILE) -> Refusals:
    """What the rules refuse of the harmful requests, and of texts that are not harmful.

    Raises InvalidInput for a list without requests, InvalidBundle for rules that cannot be read.
    """
    lines = [line.strip() for line in harmful.read_text(encoding="utf-8").splitlines()]
    requests = [line for line in lines if line and not line.startswith("#")]
    if not requests:
        raise InvalidInput(f"{harmful} holds no requests; one a line is accepted, and comments behind #")
    rules = [rule for rule in RuleBook.load(book).rules if rule.effect is Effect.REFUSE]

    def fired(text: str) -> list[str]:
        return [rule.name for rule in rules if rule.condition.holds(Wish.read(text, None))]

    answers = {request: fired(request) for request in requests}
    missed = [request for request, names in answers.items() if not names]
    by_rule = {rule.name: sum(rule.name in names for names in answers.values()) for rule in rules}
    mistaken = sum(bool(fired(text)) for text in texts)
    return Refusals(len(requests), len(requests) - len(missed), by_rule, missed, len(texts), mistaken)


def fairness_tables(found: Fairness) -> list[Table]:
    """Quality by group, exposure by group, and the refusals."""
    quality = Table(title=f"{found.split}: NDCG@10 of the fused recommender by who asks")
    for column in ("segment", "group", "queries", "NDCG@10 (95%)"):
        quality.add_column(column, justify="left" if column in ("segment", "group") else "right")
    for name, one in found.segments.items():
        for group, estimate in one.ndcg_at_10.items():
            quality.add_row(name, group, f"{one.queries[group]:,}", _interval(estimate))
        if gap := one.gap:
            said = f"{gap.best} − {gap.worst}, by chance in {gap.by_chance:.1%}"
            quality.add_row(name, f"largest gap: {said}", "", _interval(gap.difference))
    shares = Table(title=f"Places in the lists of ten by {found.attribute}")
    for column in ("group", "items", "shown (95%)", "chosen in training", "asked for"):
        shares.add_column(column, justify="left" if column == "group" else "right")
    for group, share in found.exposure.items():
        shares.add_row(group, f"{share.items:,}", _interval(share.shown), f"{share.chosen:.3f}", f"{share.asked:.3f}")
    refused = found.refusals
    harmful = Table(title="Requests that the refusal rules refuse")
    for column in ("texts", "refused", "of"):
        harmful.add_column(column, justify="left" if column == "texts" else "right")
    harmful.add_row("the harmful list", f"{refused.refused}", f"{refused.harmful}")
    harmful.add_row(f"the {found.split} split, by mistake", f"{refused.held_out_refused}", f"{refused.held_out:,}")
    return [quality, shares, harmful]


def _grouped(dataset: Dataset, queries: Pairs) -> dict[str, list[str]]:
    """Segment → each query's value, ``none`` where it has none."""
    of_query = [dataset.interactions[row].segments if row != OWN_TEXT else {} for row in queries.rows.tolist()]
    return {name: [segments.get(name, "none") for segments in of_query] for name in dict.fromkeys(n for s in of_query for n in s)}


def _shared_attribute(dataset: Dataset) -> str | None:
    """An attribute of the items that is a segment of the interactions as well."""
    segments = {name for interaction in dataset.interactions for name in interaction.segments}
    return next((name for item in dataset.items for name in item.attributes if name in segments), None)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f}…{estimate.high:.3f})"
