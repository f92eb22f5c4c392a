"""``recommend`` as it is, a python model that asks the others (BLS), beside an ensemble of the same function.

Both stand in one tritonserver, share its encoder, and take turns. Before anything is timed, their answers are held against each
other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.beside import (
    LATENCY,
    THROUGHPUT,
    TIMEOUT_S,
    Asked,
    Middle,
    asker,
    cpu_s_per_1000,
    in_turns,
    percentile_ms,
    served_window,
)
from benchmarks.budget import Budget, budget
from benchmarks.ensemble import EnsembleOptions, add_ensemble
from benchmarks.overhead import CLIENTS, OverheadSettings, asked_texts, chosen_engines
from benchmarks.percentiles import carries
from benchmarks.record import Record
from benchmarks.servers import Served, triton, triton_executions
from bertrec.answers import Options, Recommendation
from bertrec.bundle import Bundle, fastest
from bertrec.errors import InvalidAnswer
from bertrec.tensors import ENCODER
from client.backends import Backend, connect
from train.progress import Advance, progress

BLS, ENSEMBLE_WAY = "BLS", "ensemble"
WAYS: Mapping[str, Options] = {BLS: Options(), ENSEMBLE_WAY: EnsembleOptions()}
COMPARED = 40
"""Texts whose answers are compared with each set of options."""
SCORE_TOLERANCE = 1e-4
"""What two runs of the encoder may differ by, at scores of some 20."""
LEAST_ROUNDS = 3
"""With fewer an interval says nothing, and neither is called faster."""
UNDECIDED = "–"
PROTOCOL = "grpc"


@dataclass(frozen=True)
class BlsSettings(OverheadSettings):
    """The same choices, with more rounds: the two differ less than Triton and the engine in-process do."""

    rounds: int = 12


def measure_bls(bundle: Bundle, texts: Sequence[str], settings: BlsSettings, record: Record) -> None:
    """Rows of ``record``: for each engine and round one of latencies, and one for either way under load.

    Raises InvalidAnswer, naming the text, where the two answer differently; else as benchmarks.overhead.measure_overhead does.
    """
    names, chosen = chosen_engines(bundle, settings.engines), asked_texts(texts, settings.texts, seed=settings.seed)
    record.note(engines=list(names), fastest=fastest(bundle.manifest.engines, ENCODER.name), budgets={}, compared={})
    with budget(settings.threads) as held, progress("BLS and ensemble", len(names) * settings.rounds * 3) as advance:
        for name in names:
            with triton(
                bundle.folder, engine=name, threads=held.threads, alter=lambda repository: add_ensemble(repository, bundle)
            ) as served:
                with closing(connect(served.urls[PROTOCOL])) as backend:
                    compared = compare_answers(backend, chosen[:COMPARED])
                record.note(compared={**record.noted("compared"), name: compared})
                _measure(name, chosen, settings, record, served, held, advance)


def compare_answers(backend: Backend, texts: Sequence[str]) -> dict[str, float]:
    """Ask both for every text, with every set of options. Returns how many answers were compared, and the largest difference.

    Raises InvalidAnswer for two that differ in items, reasons, rules or corrections, or by more than rounding in a score.
    """
    count, largest = 0, 0.0
    for text in texts:
        (plain,) = backend.answer([text], Options(), timeout_s=TIMEOUT_S)
        for given in _options(plain):
            (bls,), (ensemble,) = (
                backend.answer([text], question(**given), timeout_s=TIMEOUT_S) for question in (Options, EnsembleOptions)
            )
            largest = max(largest, _difference(bls, ensemble, f"{text!r} with {given}"))
            count += 1
    return {"answers": count, "largest_score_difference": largest}


def _options(plain: Recommendation) -> list[dict[str, Any]]:
    """Every option that both can take, made of what a text's plain answer names."""
    ids = [item.item_id for item in plain.items]
    name, value = next(((name, value) for item in plain.items for name, value in item.attributes.items()), ("", ""))
    return [
        {},
        {"k": 50, "popularity": 0.0, "spelling": False},
        {"diversity": 0.5},
        {"exclude": ids[:3], "history": ids[3:5]},
        *([{"filters": {name: [value]}}] if name else []),
    ]


def _difference(bls: Recommendation, ensemble: Recommendation, asked: str) -> float:
    """The largest difference of two scores."""
    mine, others = (
        (
            [(item.item_id, item.title, [(reason.signal, reason.sentence) for reason in item.reasons]) for item in one.items],
            (one.truncated, one.engine, one.bundle, one.rules, one.corrections),
        )
        for one in (bls, ensemble)
    )
    apart = max((abs(a.score - b.score) for a, b in zip(bls.items, ensemble.items, strict=False)), default=0.0)
    if mine != others or apart > SCORE_TOLERANCE:
        raise InvalidAnswer(
            f"the ensemble answers {asked} unlike recommend, scores {apart:.2g} apart: {others} instead of {mine}"
        )
    return apart


def _measure(
    engine: str,
    texts: Sequence[str],
    settings: BlsSettings,
    record: Record,
    served: Served,
    held: Budget,
    advance: Advance,
) -> None:
    """All rounds of one engine."""
    record.note(budgets={**record.noted("budgets"), engine: held.verified(served)})
    url = served.urls[PROTOCOL]
    with closing(connect(url)) as backend:
        asked = {way: asker(backend, question) for way, question in WAYS.items()}
        in_turns(asked, texts, min(1.0, settings.seconds))  # not kept: the first requests allocate
        for turn in range(settings.rounds):
            found = in_turns(asked, texts[turn % len(texts) :], settings.seconds)
            record.add({"kind": LATENCY, "engine": engine, "round": turn, "seconds": found})
            advance(
                note=f"{engine}: {np.median(found[BLS]) * 1e3:.1f} ms, ensemble {np.median(found[ENSEMBLE_WAY]) * 1e3:.1f} ms"
            )
            for way in reversed(list(WAYS)) if turn % 2 else WAYS:
                before = triton_executions(served.urls["http"], ENCODER)
                window = served_window(Asked(url, served.pid, WAYS[way]), texts, clients=CLIENTS, seconds=settings.seconds)
                runs = triton_executions(served.urls["http"], ENCODER).since(before)  # the window's warm-up included
                row = {"kind": THROUGHPUT, "engine": engine, "round": turn, "way": way, **asdict(window)}
                record.add({**row, "encoder_texts": runs.texts, "encoder_runs": runs.executions})
                advance(note=f"{engine}, {way}: {window.rate:.0f} texts/s")


@dataclass(frozen=True)
class Compared:
    """One figure of both, and ensemble ÷ BLS within rounds. rounds: how many.

    higher_is_better: as for texts a second; None where neither is better, as for what only explains the others.
    """

    bls: Middle
    ensemble: Middle
    ratio: Middle
    higher_is_better: bool | None
    rounds: int

    @property
    def verdict(self) -> str:
        """Which is ahead by more than noise, ``BLS`` or ``ensemble``; ``alike`` where the ratio's interval holds 1; or a dash."""
        if self.higher_is_better is None or self.rounds < LEAST_ROUNDS:
            return UNDECIDED
        if self.ratio.low <= 1.0 <= self.ratio.high:
            return "alike"
        return ENSEMBLE_WAY if (self.ratio.value > 1.0) == self.higher_is_better else BLS


def figures(rows: Sequence[Mapping[str, Any]], engine: str) -> dict[str, Compared]:
    """Figure → how the two compare, for one engine; nothing where no round is whole."""
    mine = [row for row in rows if row["engine"] == engine]
    turns = {row["round"]: row for row in mine if row["kind"] == LATENCY}
    windows = {(row["way"], row["round"]): row for row in mine if row["kind"] == THROUGHPUT}
    whole = [turn for turn in turns if all((way, turn) in windows for way in WAYS)]
    if not whole:
        return {}
    loads = {way: [windows[way, turn] for turn in whole] for way in WAYS}

    def compared(of: Mapping[str, Sequence[float]], *, higher_is_better: bool | None = False) -> Compared:
        ratios = [ensemble / bls for bls, ensemble in zip(of[BLS], of[ENSEMBLE_WAY], strict=True)]
        return Compared(Middle.of(of[BLS]), Middle.of(of[ENSEMBLE_WAY]), Middle.of(ratios), higher_is_better, len(ratios))

    def cpu_s(row: Mapping[str, Any]) -> float:
        return cpu_s_per_1000(row, "server_cpu_s") + cpu_s_per_1000(row, "client_cpu_s")

    fewest = min(len(turns[turn]["seconds"][way]) for turn in whole for way in WAYS)
    return {
        **{
            f"one text, p{percent} ms": compared(
                {way: [percentile_ms(turns[turn], way, percent) for turn in whole] for way in WAYS}
            )
            for percent in (50, 95)
            if carries(fewest, percent)
        },
        f"{CLIENTS} clients, texts/s": compared(
            {way: [row["answered"] / row["seconds"] for row in loads[way]] for way in WAYS}, higher_is_better=True
        ),
        f"{CLIENTS} clients, CPU s for 1,000": compared({way: [cpu_s(row) for row in loads[way]] for way in WAYS}),
        f"{CLIENTS} clients, texts an encoder run": compared(
            {way: [row["encoder_texts"] / row["encoder_runs"] for row in loads[way]] for way in WAYS}, higher_is_better=None
        ),
    }


def bls_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each engine and figure."""
    table = Table(title="recommend by BLS and as an ensemble, in turns in one server", title_justify="left")
    for title in ("engine", "", "BLS", "ensemble", "ensemble ÷ BLS (95%)", "ahead"):
        table.add_column(title, justify="left" if title in ("engine", "", "ahead") else "right")
    for engine in dict.fromkeys(row["engine"] for row in rows):
        for name, one in figures(rows, engine).items():
            cells = (f"{one.bls.value:.2f}", f"{one.ensemble.value:.2f}", one.ratio.written(".3f"), one.verdict)
            table.add_row(engine, name, *cells)
    return table
