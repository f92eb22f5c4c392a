"""docs/decisions/bls.md, from what ``python -m benchmarks bls`` measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.bls import BLS, ENSEMBLE_WAY, LEAST_ROUNDS, UNDECIDED, Compared, figures
from benchmarks.ensemble import CANNOT
from benchmarks.overhead import CLIENTS
from benchmarks.overhead_page import origin_line, table

BUILT = """\
The ensemble that it was measured against (`benchmarks/ensemble`) has four steps: a python model that corrects and tokenises the
text and makes every signal's part of the query vector but the text's; the `encoder`; the ranker, with two operators before it
that weigh the interest vector and join the parts; and a python model that turns indices into items with reasons. Both python
steps run bertrec's own code. The second has to read the options again, since an ensemble's steps share nothing but tensors."""

METHOD = f"""\
One tritonserver serves both; they share its encoder and take turns: a few texts each for the latency, window by window at
{CLIENTS} clients, over gRPC. All of it runs on the same cores, the client too. Ratios are taken within rounds; their 95% interval
is a bootstrap of the median over rounds. *Ahead* is who does better with an interval that does not hold 1. CPU is that of the
server's whole process group and of the client together. Texts an encoder run explain the rest: how many the batcher joined."""

DECIDING = ("one text, p50 ms", f"{CLIENTS} clients, texts/s")
"""The figures that would make one faster than the other."""


def bls_page(content: Mapping[str, Any]) -> str:
    """The page, in Markdown. content: what the JSON holds."""
    found = {engine: figures(content["rows"], engine) for engine in content["engines"]}
    measured = {engine: those for engine, those in found.items() if those}
    parts = [
        "# BLS and not an ensemble",
        "`recommend` is one python model that asks `encoder` and `ranker` itself (business logic scripting, BLS). Triton's other "
        "way to chain models is an ensemble. Written by `python -m benchmarks bls`.",
        "## Kept: BLS",
        decision(measured),
        "What the ensemble cannot do:",
        "\n".join(f"- {what};" for what in CANNOT[:-1]) + f"\n- {CANNOT[-1]}.",
        *(_about(engine, those, content) for engine, those in measured.items()),
        "## How it was measured",
        BUILT,
        METHOD,
        origin_line(content, f"{len(measured)} engine{'s' if len(measured) != 1 else ''}"),
    ]
    return "\n\n".join(parts) + "\n"


def decision(measured: Mapping[str, Mapping[str, Compared]]) -> str:
    """Who is faster, plainly, and why BLS is kept."""
    verdicts = {(engine, name): those[name].verdict for engine, those in measured.items() for name in DECIDING}
    if not verdicts:
        return "Nothing was measured to the end of a round, so nothing is said of which is faster."
    ahead = [_named(measured, *where) for where, verdict in verdicts.items() if verdict == ENSEMBLE_WAY]
    behind = [_named(measured, *where) for where, verdict in verdicts.items() if verdict == BLS]
    if ahead:
        also = f" BLS was ahead in {'; '.join(behind)}." if behind else " In nothing was BLS ahead."
        return (
            f"**The ensemble was faster by more than noise** in {'; '.join(ahead)}.{also} BLS is kept all the same, for what an "
            "ensemble cannot do; that is what it costs."
        )
    if behind:
        listed = "; ".join(behind)
        return f"BLS was faster by more than noise in {listed}; in nothing was the ensemble ahead. It is kept, and can do more."
    if UNDECIDED in verdicts.values():
        return f"Too few rounds ({LEAST_ROUNDS} are needed) to say which is faster. BLS is kept, since it can do more."
    return "Neither was faster by more than noise. BLS is kept, since it can do more."


def _named(measured: Mapping[str, Mapping[str, Compared]], engine: str, name: str) -> str:
    one = measured[engine][name]
    return f"{name} with {engine} ({one.bls.value:.2f} by BLS, {one.ensemble.value:.2f} by the ensemble)"


def _about(engine: str, those: Mapping[str, Compared], content: Mapping[str, Any]) -> str:
    compared = content["compared"][engine]
    rows = [
        (name, one.bls.written(), one.ensemble.written(), one.ratio.written(".3f"), one.verdict) for name, one in those.items()
    ]
    fast = ", the bundle's fastest engine" if engine == content["fastest"] else ""
    return "\n\n".join(
        [
            f"## Measured: {engine}{fast}",
            f"Compared first: {compared['answers']} answers, with and without options, had the same items, reasons, rules and "
            f"corrections; the largest difference of two scores was {compared['largest_score_difference']:.1g}.",
            table(("", "BLS (95%)", "ensemble (95%)", "ensemble ÷ BLS (95%)", "ahead"), rows),
        ]
    )
