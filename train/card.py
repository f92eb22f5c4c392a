"""A model card from a run's own records: no figure in it is typed.

Sections as in Mitchell et al., "Model Cards for Model Reporting" (2019). What a run was not measured on is said, with the command
that would measure it. Figures come from run.json, metrics.json, fairness.json, and the records of matcher, heads and students.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertrec.errors import InvalidRun
from train.bootstrap import Estimate
from train.fairness import FAIRNESS_FILE, FEWEST, PERMUTATIONS, read_fairness
from train.multi_task import HeadsKind
from train.report import AS_WRITTEN, Evaluation, Group, read_evaluation
from train.run import Run

COLUMNS = {"R@1": "recall_at_1", "R@10": "recall_at_10", "NDCG@10": "ndcg_at_10", "coverage@10": "coverage_at_10"}


@dataclass(frozen=True)
class _Sources:
    """What a card is written from; None where a run was not measured so."""

    run: Run
    evaluation: Evaluation
    fairness: Mapping[str, Any] | None
    matcher: Mapping[str, Any] | None
    heads: Mapping[str, Any] | None
    students: Mapping[str, Mapping[str, Any]]


def card(run: Run, *, fairness: Path | None = None) -> str:
    """The card as Markdown. fairness: the record, where it does not lie in the run.

    Raises InvalidRun, with the command, for a run that was not evaluated, and for a ``fairness`` that cannot be read.
    """
    evaluation = read_evaluation(run)
    if evaluation is None:
        raise InvalidRun(f"{run.folder} is not evaluated; do it by: python -m train evaluate --run {run.folder}")
    found = read_fairness(fairness or run.folder / FAIRNESS_FILE)
    if fairness is not None and found is None:
        command = f"python -m train fairness --run {run.folder} --output {fairness}"
        raise InvalidRun(f"{fairness} cannot be read; it is made by: {command}")
    sources = _Sources(
        run,
        evaluation,
        found,
        _record(run.folder / "matcher/matcher.json"),
        _record(run.folder / "heads/metrics.json"),
        {path.parent.name: _record(path) or {} for path in sorted(run.folder.glob("students/*/student.json"))},
    )
    sections: dict[str, Callable[[_Sources], str]] = {
        "Model details": _details,
        "Intended use": _use,
        "Factors": _factors,
        "Metrics": _metrics,
        "Evaluation data": _evaluation_data,
        "Training data": _training_data,
        "Quantitative analyses": _analyses,
        "Ethical considerations": _ethics,
        "Caveats and recommendations": _caveats,
    }
    title = f"# Model card: {run.record['data']['name']}, preset {run.settings['preset']}"
    head = f"{title}\n\nWritten by `python -m train card`; do not edit.\n"
    return head + "".join(f"\n## {title}\n\n{write(sources).strip()}\n" for title, write in sections.items())


def _details(sources: _Sources) -> str:
    record, settings = sources.run.record, sources.run.settings
    signals = ", ".join(f"{name} ({width})" for name, width in record["signals"].items())
    weights = ", ".join(f"{name} {weight:g}" for name, weight in record["fusion"]["weights"].items())
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    students = ", ".join(sources.students) or "none"
    return f"""A recommender that ranks the items of a catalogue for a text that says what somebody wants. Its score is one inner
product: signals of the text against signals of the item, plus a prior.

- Backbone: {settings["backbone"]}, of which the upper {settings["trained_layers"]} layers were fine-tuned; it reads
  {settings["max_tokens"]} tokens.
- Signals and their widths: {signals}. Weights, chosen on validation: {weights}.
- Trained {record["created"]} in {record["minutes"]:g} minutes, seed {settings["seed"]}, at commit {record["source_commit"]},
  with {versions}.
- Data fingerprint: {record["data"]["fingerprint"]}.
- Students that imitate its encoder: {students}.
- Licence of the code: Apache-2.0. How it works: docs/design.md and docs/method.md."""


def _use(sources: _Sources) -> str:
    return f"""- For: suggestions from the {sources.run.record["items"]:,} items that it was trained on, with the reasons of each
  shown, to people who are free to choose something else.
- Not for: decisions about people (credit, work, health, insurance), advice where a wrong item does harm, or wishes of children
  without supervision. It has no notion of whether an item is safe, in stock or legal.
- Out of scope: catalogues other than its own. New items of the same kind can be added by what is said of them."""


def _factors(sources: _Sources) -> str:
    names = [name for name in sources.evaluation.slices if name != "training_interactions"]
    groups = (
        f"who asks or writes, as the data says it: {', '.join(names)}" if names else "none, the data says nothing of who asks"
    )
    return f"""- Groups: {groups}.
- Items: how often they were chosen in training{f", and their {found['attribute']}" if (found := sources.fairness) else ""}.
- Ways of asking: {", ".join(sources.evaluation.kinds)}."""


def _metrics(sources: _Sources) -> str:
    return f"""NDCG@10 before all, since one item is right and its rank counts; R@k; coverage@10, the share of the catalogue
that is shown at all. The whole catalogue is ranked, nothing is sampled; an item that training never saw is a miss. In brackets:
95% bootstrap intervals over the texts. Weights were chosen on validation; figures are of the split {sources.evaluation.split}
unless they say otherwise."""


def _evaluation_data(sources: _Sources) -> str:
    queries, name = sources.evaluation.kinds[AS_WRITTEN].queries, sources.run.record["data"]["name"]
    return f"""The {sources.evaluation.split} split of {name}: {queries:,} texts, held out by seed or by the data itself.
They come from the same source as the training texts, so they say little about other shops, languages or years."""


def _training_data(sources: _Sources) -> str:
    record = sources.run.record
    texts = record["texts"]
    return f"""{texts["train"]:,} texts to learn from and {texts["validation"]:,} to choose by, of {record["items"]:,} items of
the data set {record["data"]["name"]}; the encoder read {record["texts_read"]:,} of them. The bundled data is described in
data/README.md."""


def _analyses(sources: _Sources) -> str:
    evaluation = sources.evaluation
    parts = [
        f"Rankers on {evaluation.kinds[AS_WRITTEN].queries:,} texts as written:\n\n{_rankers(evaluation.kinds[AS_WRITTEN])}",
        "The fused recommender by the way of asking:\n\n"
        + _table(("asked", "texts", *COLUMNS), [_row(kind, group) for kind, group in evaluation.kinds.items()]),
        *(
            f"By {name.replace('_', ' ')}:\n\n"
            + _table(("group", "texts", "R@1", "R@10", "NDCG@10"), [_row(value, group, 3) for value, group in groups.items()])
            for name, groups in evaluation.slices.items()
        ),
        _matcher(sources),
        _heads(sources),
        _students(sources),
    ]
    return "\n\n".join(parts)


def _ethics(sources: _Sources) -> str:
    found = sources.fairness
    if found is None:
        return f"Groups were not compared; it is done by: `python -m train fairness --run {sources.run.folder.name}`."
    lines = [_gap(name, segment["gap"]) for name, segment in found["segments"].items()]
    popular = [_gap(name, one["gap"]) for name, one in found["popularity"].items()]
    shares = [
        (
            name,
            f"{one['items']:,}",
            _interval(one["shown"]),
            f"{one['chosen']:.3f}",
            f"{one['asked']:.3f}",
            _interval(one["lift"]),
        )
        for name, one in found["exposure"].items()
    ]
    refused = found["refusals"]
    return f"""Quality by group, the largest gap of NDCG@10 on {found["queries"]:,} texts:

{chr(10).join(lines) or "- The data names no groups."}

Exposure by who asks, the largest gap of how much more popular than what was asked for the lists of ten are (group average
popularity; 1 is the average item's):

{chr(10).join(popular) or "- The data names no groups."}
{_popularity(found["popularity"])}
Shares of the places in lists of ten, by {found["attribute"]}{_widest(found["exposure"])}:

{_table(("group", "items", "shown", "chosen in training", "asked for", "shown − asked"), shares)}

Harmful requests: without rules the recommender answers them with items like any other text. The rules of data/refusals.json
refuse {refused["refused"]} of the {refused["harmful"]} in data/harmful_queries.txt, which were written together with the rules.
They refuse {refused["held_out_refused"]} of {refused["held_out"]:,} held-out texts, which would be mistakes. They know phrases
and no meaning: other words pass. Items are kept out by the blocklist. Both go into a bundle by
`python -m export build --rules FILE`."""


def _gap(name: str, gap: Mapping[str, Any] | None) -> str:
    if gap is None:
        return f"- {name}: fewer than two groups of {FEWEST} texts or more."
    chance = gap["by_chance"]
    verdict = "more than chance gives" if chance < 0.05 else "no more than chance gives"
    return (
        f"- {name}: {_interval(gap['difference'])} between {gap['best']} and {gap['worst']}; groups drawn at random differ as "
        f"much in {chance:.1%} of {PERMUTATIONS:,} drawings, so it is {verdict}."
    )


def _popularity(found: Mapping[str, Any]) -> str:
    rows = [
        (name, group, f"{one['asked'][group]:.3f}", f"{one['shown'][group]:.3f}", _interval(lift))
        for name, one in found.items()
        for group, lift in one["lift"].items()
    ]
    return "\n" + _table(("by", "group", "asked for", "shown", "shown − asked"), rows) + "\n" if rows else ""


def _widest(exposure: Mapping[str, Any]) -> str:
    """Of which group of items the share differs most from what was asked for."""
    if not exposure:
        return ""
    name = max(exposure, key=lambda one: abs(float(exposure[one]["lift"]["value"])))
    return (
        f"; the largest gap between what is shown and what was asked for is that of {name}, {_interval(exposure[name]['lift'])}"
    )


def _caveats(sources: _Sources) -> str:
    group = sources.evaluation.kinds[AS_WRITTEN].rankers["fused"]
    rare = sources.evaluation.slices.get("training_interactions", {})
    seldom = "; ".join(
        f"{value} times chosen in training: R@10 {one.rankers['fused']['recall_at_10'].value:.3f} ({one.queries:,} texts)"
        for value, one in rare.items()
    )
    return f"""- One seed and one split; the intervals cover the choice of texts, not that of the training.
- What is popular is shown more: coverage@10 is {group["coverage_at_10"].value:.3f}, Gini {group["gini_at_10"].value:.3f}. The
  options `popularity` below 1 and `diversity` give some of it back.
- Rarely chosen items are found less often: {seldom or "not measured"}.
- Watch the shares of the lists and the groups' quality again after every training, and where the texts come from other people.
- A review is not a wish: queries that people really type were not measured.
"""


def _matcher(sources: _Sources) -> str:
    if sources.matcher is None:
        return f"No matcher was trained: `python -m train matcher --run {sources.run.folder.name}`."
    test = sources.matcher["test"]
    rows = [
        (name, f"{one['texts']:,.0f}", *(f"{one[metric]:.3f}" for metric in ("majority", "accuracy", "f1", "auc")))
        for name, one in (("the item fits", test["fits"]), ("the writer recommends", test["recommends"]))
    ]
    table = _table(("says whether", "texts", "majority", "accuracy", "F1", "AUC"), rows)
    said = f"The matcher, a cross-encoder, on test:\n\n{table}"
    if not (reranked := test.get("reranked")):
        return said
    gained, low, high = reranked["difference"]
    reached = ", ".join(f"{name} {value:.3f}" for name, value in reranked["ndcg_at_10"].items())
    exposed = ", ".join(
        f"{metric.replace('_at_', '@')} {before:.3f} and {reranked['exposure']['reranked'][metric]:.3f}"
        for metric, before in reranked["exposure"]["recommender"].items()
    )
    top, recall = sources.matcher["settings"]["top"], reranked["candidate_recall"]
    return f"""{said}

On {reranked["texts"]:,} texts of those whose item is in the catalogue, candidate recall@{top} is {recall:.3f}, beyond which
reranking cannot go. NDCG@10: {reached}. Exposure without and with reranking: {exposed}.

Reranking the recommender's first items by it, with the weight {reranked["weight"]:g} that validation chose, gains
{gained:+.4f} NDCG@10 ({low:+.4f} to {high:+.4f}) on {reranked["texts"]:,} texts."""


def _heads(sources: _Sources) -> str:
    if sources.heads is None:
        return f"No heads were trained: `python -m train heads --run {sources.run.folder.name}`."
    rows = [
        (name, f"{head['test']['texts']:,}", *(f"{head['test'][metric]:.3f}" for metric in ("majority", "accuracy", "macro_f1")))
        for name, head in sources.heads["heads"].items()
        if head.get("test")
    ]
    joint = sources.heads.get("kind") == HeadsKind.MULTI_TASK.value
    how = "learned together with the recommendation" if joint else "on the frozen encoder"
    return f"Heads {how}, on test:\n\n{_table(('head', 'texts', 'majority', 'accuracy', 'macro F1'), rows)}"


def _students(sources: _Sources) -> str:
    found = {name: record["validation"] for name, record in sources.students.items() if record.get("validation")}
    if not found:
        return f"No student was distilled: `python -m train distil --run {sources.run.folder.name} --student layers-2`."
    rows = [
        (name, f"{one['texts']:,}", f"{one['ndcg_at_10']:.3f}", f"{one['ndcg_at_10'] / one['teacher_ndcg_at_10']:.1%}")
        for name, one in found.items()
    ]
    return (
        f"Students in the fused recommender, on validation:\n\n{_table(('student', 'texts', 'NDCG@10', 'of its teacher'), rows)}"
    )


def _rankers(group: Group) -> str:
    rows = [(name, *(_estimate(metrics.get(metric)) for metric in COLUMNS.values())) for name, metrics in group.rankers.items()]
    return _table(("ranker", *COLUMNS), rows)


def _row(name: str, group: Group, columns: int = len(COLUMNS)) -> tuple[str, ...]:
    metrics = group.rankers["fused"]
    return (name, f"{group.queries:,}", *(_estimate(metrics.get(metric)) for metric in list(COLUMNS.values())[:columns]))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _estimate(estimate: Estimate | None) -> str:
    return "" if estimate is None else _interval(vars(estimate))


def _interval(estimate: Mapping[str, Any]) -> str:
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f}…{estimate['high']:.3f})"


def _record(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InvalidRun(f"{path} cannot be read ({error}); train it again") from None
    return content
