"""Whom a run serves worse, which items it shows more than they are chosen, and what it does with harmful requests.

Quality: NDCG@10 on the held-out queries by segment, such as the age band of who wrote them. The largest gap between two groups
is named with a bootstrap interval of that pair's difference. The pair was chosen for its gap, so the interval alone would
promise too much: beside it stands how often groups of the same sizes, drawn at random, differ as much (a permutation test, Good,
2005). Groups below ``FEWEST`` queries are shown, and take no part in the gap.

Exposure of items: which share of the places in the lists of ten a group of items gets, against its share of what was chosen in
training and of what the queries asked for (Singh and Joachims, 2018).

Exposure to items: how popular is what each segment's groups are shown, against what they asked for, by group average popularity
(GAP; Abdollahpouri et al., The unfairness of popularity bias in recommendation, 2019): whose wishes the popular items crowd out.
The largest gap is named as that of quality is.

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
    """The largest difference of a mean between two groups. by_chance: share of random groupings that differ as much.

    best: the group of the higher mean.
    """

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
class Popularity:
    """How popular is what the groups of one segment asked for, and what they are shown; 1: as popular as the average item.

    lift: shown − asked, query by query. gap: of the lift; None where fewer than two groups are large enough.
    """

    asked: Mapping[str, float]
    shown: Mapping[str, float]
    lift: Mapping[str, Estimate]
    gap: Gap | None


@dataclass(frozen=True)
class Exposure:
    """Shares of one group of items. shown: of the places; chosen: of training choices; asked: of the queries' right items.

    lift: shown − asked, query by query, over those whose right item is in the catalogue.
    """

    items: int
    shown: Estimate
    chosen: float
    asked: float
    lift: Estimate


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
    popularity: Mapping[str, Popularity]
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
    seed, grouped = int(run.settings["seed"]), _grouped(dataset, queries)
    return Fairness(
        split=split,
        queries=len(queries),
        attribute=attribute,
        segments={name: segment(quality, groups, seed) for name, groups in grouped.items()},
        popularity={name: popularity(top, queries.items, examples.counts, groups, seed) for name, groups in grouped.items()},
        exposure=exposure(dataset, examples, queries, top, attribute, seed) if attribute else {},
        refusals=refusals(queries.texts),
    )


def write_fairness(found: Fairness, path: Path) -> None:
    """Leave it as JSON."""
    write_json(path, asdict(found))


def read_fairness(path: Path) -> dict[str, Any] | None:
    """What :func:`write_fairness` wrote, or None where there is nothing to be read, or what is older than a measure."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if "popularity" in content else None


def segment(quality: NDArray[np.float64], groups: Sequence[str], seed: int) -> Segment:
    """(queries,) NDCG@10 and each query's group → the groups' means, and the largest gap."""
    parts = _parts(quality, groups)
    return Segment({name: len(part) for name, part in parts.items()}, _means(parts, seed), _gap(parts, seed))


def popularity(
    top: NDArray[np.int64], relevant: NDArray[np.int64], counts: NDArray[np.int64], groups: Sequence[str], seed: int
) -> Popularity:
    """How popular is what each group is shown. top: (queries, ≤ 10). relevant: (queries,). counts: (items,) training choices."""
    of_item = np.append(counts / max(float(counts.mean()), 1e-9), 0.0)  # the last for UNSEEN, −1, which nobody chose
    shown = of_item[top].sum(axis=1) / np.maximum((top != UNSEEN).sum(axis=1), 1)  # (queries,)
    asked = of_item[relevant]
    lift = _parts(shown - asked, groups)
    by_asked, by_shown = ({name: float(part.mean()) for name, part in _parts(each, groups).items()} for each in (asked, shown))
    return Popularity(by_asked, by_shown, _means(lift, seed), _gap(lift, seed))


def _parts(of_query: NDArray[np.float64], groups: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Group → its queries' values."""
    labels = np.asarray(groups)
    return {name: of_query[labels == name] for name in sorted(set(groups))}


def _means(parts: Mapping[str, NDArray[np.float64]], seed: int) -> dict[str, Estimate]:
    return {name: bootstrap(part[None, :], seed)[0] for name, part in parts.items()}


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
    known = queries.items != UNSEEN  # (queries,)
    asked = queries.items[known]
    shares: dict[str, Exposure] = {}
    for name in sorted({value for of_item in labels for value in of_item}):
        member = np.asarray([name in of_item for of_item in labels])  # (items,)
        shown = np.where(top == UNSEEN, False, member[top]).mean(axis=1)  # (queries,)
        lift = bootstrap((shown[known] - member[asked])[None, :], seed)[0] if len(asked) else Estimate(0.0)
        chosen = float(examples.counts[member].sum() / max(int(examples.counts.sum()), 1))
        wanted = float(member[asked].mean()) if len(asked) else 0.0
        shares[name] = Exposure(int(member.sum()), bootstrap(shown[None, :], seed)[0], chosen, wanted, lift)
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
    """Quality and popularity by who asks, exposure by group of items, and the refusals."""
    harmful = _table("Requests that the refusal rules refuse", "texts", "refused", "of")
    harmful.add_row("the harmful list", f"{found.refusals.refused}", f"{found.refusals.harmful}")
    mistaken = (f"{found.refusals.held_out_refused}", f"{found.refusals.held_out:,}")
    harmful.add_row(f"the {found.split} split, by mistake", *mistaken)
    return [_quality_table(found), _popularity_table(found), _shares_table(found), harmful]


def _quality_table(found: Fairness) -> Table:
    table = _table(f"{found.split}: NDCG@10 of the fused recommender by who asks", "segment", "group", "queries", "NDCG@10 (95%)")
    for name, one in found.segments.items():
        for group, estimate in one.ndcg_at_10.items():
            table.add_row(name, group, f"{one.queries[group]:,}", _interval(estimate))
        if one.gap:
            table.add_row(name, _said(one.gap), "", _interval(one.gap.difference))
    return table


def _popularity_table(found: Fairness) -> Table:
    title = "Popularity in the lists of ten by who asks (1: the average item's)"
    table = _table(title, "segment", "group", "asked for", "shown", "shown − asked (95%)")
    for name, one in found.popularity.items():
        for group, estimate in one.lift.items():
            table.add_row(name, group, f"{one.asked[group]:.3f}", f"{one.shown[group]:.3f}", _interval(estimate))
        if one.gap:
            table.add_row(name, _said(one.gap), "", "", _interval(one.gap.difference))
    return table


def _shares_table(found: Fairness) -> Table:
    columns = ("group", "items", "shown (95%)", "chosen in training", "asked for", "shown − asked (95%)")
    table = _table(f"Places in the lists of ten by {found.attribute}", *columns)
    for group, share in found.exposure.items():
        shares = (_interval(share.shown), f"{share.chosen:.3f}", f"{share.asked:.3f}", _interval(share.lift))
        table.add_row(group, f"{share.items:,}", *shares)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column in ("segment", "group", "texts") else "right")
    return table


def _said(gap: Gap) -> str:
    return f"largest gap: {gap.best} − {gap.worst}, by chance in {gap.by_chance:.1%}"


def _grouped(dataset: Dataset, queries: Pairs) -> dict[str, list[str]]:
    """Segment → each query's value, ``none`` where it has none."""
    of_query = [dataset.interactions[row].segments if row != OWN_TEXT else {} for row in queries.rows.tolist()]
    return {name: [segments.get(name, "none") for segments in of_query] for name in dict.fromkeys(n for s in of_query for n in s)}


def _shared_attribute(dataset: Dataset) -> str | None:
    """An attribute of the items that is a segment of the interactions as well."""
    segments = {name for interaction in dataset.interactions for name in interaction.segments}
    return next((name for item in dataset.items for name in item.attributes if name in segments), None)


def _interval(estimate: Estimate) -> str:
    between = "" if estimate.low is None else f" ({estimate.low:.3f}…{estimate.high:.3f})"
    return f"{estimate.value:.3f}{between}"
