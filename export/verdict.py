"""Budgets, and whether an engine keeps within them, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from bertrec import checks

IS_REFERENCE, PASSED, REJECTED, UNMEASURED = "reference", "passed", "rejected", "unmeasured"
SAID_OF_FINITE = {1.0: "no NaN or infinity", 0.0: "gives NaN or infinity"}


@dataclass(frozen=True)
class Budgets:
    """What an engine may lose. Raises InvalidInput for what is not a share from 0 to 1.

    ndcg_loss: the share of the reference's NDCG@10, by the point estimate: were the far end of the interval to count, an engine
    that lost nothing would fail for want of texts.
    overlap: the least mean share of the reference's top 10 in the engine's, for the same network in other numbers, whose list can
    change by rounding alone. other_overlap: the same for another network, such as a distilled student, or among signals that were
    cut down. Those may name other items that are right as often, so NDCG@10 decides, and by default no overlap is asked for.
    shape_cosine: the least cosine between one text's vectors in batches of other sizes and lengths. Scales that are taken at run
    time move a vector a little (MiniLM's, to a cosine of .989); padding that is read as text moves it far (to .61).
    auc_loss: what a matcher may lose of the area under the ROC curve, by the point estimate as well.
    reference_cosine: the least cosine between the reference and PyTorch; below it the export itself is wrong.
    """

    ndcg_loss: float = 0.01
    overlap: float = 0.95
    other_overlap: float = 0.0
    shape_cosine: float = 0.95
    reference_cosine: float = 0.999
    auc_loss: float = 0.005

    def __post_init__(self) -> None:
        for budget in fields(self):
            checks.number(f"the budget {budget.name}", getattr(self, budget.name), 0, 1)


DEFAULT_BUDGETS = Budgets()


@dataclass(frozen=True)
class Verdict:
    """Whether an engine is good enough, and why."""

    verdict: str  # reference, passed, rejected or unmeasured
    why: str


def judge(
    ranked: Mapping[str, float],
    reference: Mapping[str, float],
    distances: Mapping[str, float],
    *,
    budgets: Budgets = DEFAULT_BUDGETS,
    re_encoded: bool = True,
) -> Verdict:
    """Hold what :func:`export.gates.quality` says of an engine and of the reference, and ``parity``, against the budgets.

    re_encoded: whether the engine is the reference's network among the reference's signals, only kept in other numbers.
    Where ``ranked`` is empty, as nothing was held out, parity decides for such an engine; of others it tells nothing.
    """
    findings = [*_losses(ranked, reference, budgets), *_departures(distances, budgets, re_encoded)]
    if wrong := [said for good, said in findings if not good]:
        return Verdict(REJECTED, "; ".join(wrong))
    said = "; ".join(said for _, said in findings)
    if ranked:
        return Verdict(PASSED, said)
    if re_encoded:
        return Verdict(PASSED, f"nothing was held out, so parity alone decides: {said}")
    return Verdict(UNMEASURED, "nothing was held out, and how well another network or other signals rank, parity cannot tell")


def _losses(ranked: Mapping[str, float], reference: Mapping[str, float], budgets: Budgets) -> list[tuple[bool, str]]:
    """Whether the loss of NDCG@10 is accepted, and the loss in words."""
    if not ranked:
        return []
    whole = reference["ndcg_at_10"] or 1.0
    lost = 1.0 - ranked["ndcg_at_10"] / whole if reference["ndcg_at_10"] else 0.0
    said = f"NDCG@10 {lost:+.2%} lost (accepted {100 * budgets.ndcg_loss:g}%"
    if "ndcg_difference" in ranked:
        low, high = (0.0 - ranked[f"ndcg_difference_{end}"] / whole for end in ("high", "low"))
        said += f"; 95% interval {low:+.2%} to {high:+.2%}"
    return [(lost <= budgets.ndcg_loss, f"{said})")]


def _departures(distances: Mapping[str, float], budgets: Budgets, re_encoded: bool) -> list[tuple[bool, str]]:
    """The same of what parity says."""
    least = budgets.overlap if re_encoded else budgets.other_overlap
    overlap, cosine = distances["top10_overlap"], distances["shape_cosine_min"]
    asked = f"accepted {least:g}" if least else "of another network or other signals, so NDCG@10 decides"
    across = f"cosine {cosine:.3f} of a text to itself in batches of other shapes (accepted {budgets.shape_cosine:g})"
    return [
        (overlap >= least, f"top-10 overlap {overlap:.3f} ({asked})"),
        (cosine >= budgets.shape_cosine, across),
        (distances["finite"] == 1.0, SAID_OF_FINITE[distances["finite"]]),
    ]
