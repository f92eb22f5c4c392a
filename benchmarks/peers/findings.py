"""What the rows say: each peer's speed and quality, the targets, and who is ahead with the same network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.material import Material
from benchmarks.peers.measure import OFFLINE, REVIEW, WISH, WORKLOADS, own_folder
from benchmarks.peers.setup import QUALITY_FILE, best_items
from benchmarks.throughput import interval
from train.metrics import ndcg

Rows = Sequence[Mapping[str, Any]]
BARS = ((0.99, 3.0, 3.0), (0.95, 20.0, None))
"""Share of the fp32 model's NDCG@10, and how many times the throughput and the speed at one text were to be reached."""
KEPT = 0.99
"""Share of what a network gives in torch that must be kept where libraries are compared with the same network."""


@dataclass(frozen=True)
class Compared:
    """One of ours against the best peer, at one bar of quality, in one figure. ratio: median over rounds, with its interval."""

    kept: float
    figure: str
    ours: str | None
    peer: str | None
    wanted: float
    ratio: float | None
    interval: list[float] | None

    @property
    def verdict(self) -> str:
        """Reached or missed."""
        return "not measured" if self.ratio is None else "reached" if self.ratio >= self.wanted else "missed"

    @property
    def standing(self) -> str:
        """Ahead or behind, where the whole interval says so."""
        if self.interval is None:
            return "not measured"
        low, high = self.interval
        return "ahead" if low > 1.0 else "behind" if high < 1.0 else "level"


def quality(
    students: Mapping[str, str], material: Material, rounds: Mapping[str, Sequence[int]], together: int
) -> dict[str, Any]:
    """Peer → NDCG@10 on the texts of its rounds, the share of the reference's on the same texts, and cosines to its vectors.

    students: peer → whose weights it has, empty for the run's encoder. rounds: peer → the rounds in which it read all texts. The
    reference is the run's encoder in torch; kept_of_network: the share of what the peer's own network gives there, where known.
    """
    vectors = {"": material.reference, **material.students}
    in_torch = {
        network: ndcg(best_items(one, material.item_vectors), material.items) for network, one in vectors.items()
    }  # (texts,)
    best = in_torch[""]
    found: dict[str, Any] = {}
    for name, student in students.items():
        rows = np.concatenate([np.arange(turn * together, (turn + 1) * together) for turn in rounds[name]])
        saved = [np.load(own_folder(material, name) / QUALITY_FILE.format(turn), allow_pickle=False) for turn in rounds[name]]
        mine = ndcg(np.concatenate([one["top"] for one in saved]), material.items[rows])
        found[name] = {"texts": len(rows), "ndcg_at_10": float(mine.mean()), "kept": float(mine.mean() / best[rows].mean())}
        if student in in_torch:
            found[name]["kept_of_network"] = float(mine.mean() / in_torch[student][rows].mean())
        if all("vectors" in one.files for one in saved):
            cosines = _cosines(np.concatenate([one["vectors"] for one in saved]), material.reference[rows])
            found[name] |= {"cosine_mean": float(cosines.mean()), "cosine_min": float(cosines.min())}
    return found


def _cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """(texts, hidden) twice → (texts,)."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / lengths, np.float64)


def read_rounds(rows: Rows) -> dict[str, list[int]]:
    """Peer → the rounds whose texts it read offline."""
    found: dict[str, list[int]] = {}
    for row in rows:
        if row["workload"] == OFFLINE:
            found.setdefault(row["peer"], []).append(row["round"])
    return found


def speeds(rows: Rows) -> dict[str, Any]:
    """Peer → workload → way (``total``, and ``encode`` where the peer has it) → its figures.

    Of the single texts p50_ms and p95_ms, of those handed over at once texts_per_s: median, slowest and fastest round.
    """
    found: dict[str, Any] = {}
    for name, workload in dict.fromkeys((row["peer"], row["workload"]) for row in rows):
        mine = [row for row in rows if (row["peer"], row["workload"]) == (name, workload)]
        place = found.setdefault(name, {}).setdefault(workload, {})
        for way in ("encode", "total"):
            if any(row[f"{way}_s"] is None for row in mine):
                continue
            if workload == OFFLINE:
                rates = [row["texts"] / float(np.median(row[f"{way}_s"])) for row in mine]
                place[way] = {"texts_per_s": [float(np.median(rates)), min(rates), max(rates)]}
            else:
                samples = 1e3 * np.concatenate([row[f"{way}_s"] for row in mine])
                place[way] = {f"p{percent}_ms": float(np.percentile(samples, percent)) for percent in (50, 95)}
        place["cores_used"] = float(np.median([row["cores_used"] for row in mine]))
    return found


def _round_costs(rows: Rows, name: str, workload: str) -> dict[int, float]:
    """Round → seconds from text to ten items: medians, of single texts, and of passes over those handed over at once."""
    mine = [row for row in rows if (row["peer"], row["workload"]) == (name, workload)]
    return {row["round"]: float(np.median(row["total_s"])) for row in mine}


def compared(rows: Rows, peers: Mapping[str, Any], measured: Mapping[str, Any]) -> list[Compared]:
    """The targets. measured: what :func:`quality` found. Both sides must keep the bar; fused rankings take no part.

    What each gives from the run as it is: ours may be a student of it, and a library that was given a student takes no part. Ours
    is the engine with the greatest throughput, for every figure; the best peer is chosen for each figure.
    """
    found = []
    for kept, throughput, latency in BARS:
        able = [name for name, one in measured.items() if one["kept"] >= kept and not peers[name]["fused"]]
        ours = _fastest(rows, [name for name in able if peers[name]["ours"]], OFFLINE)
        for workload, wanted in ((OFFLINE, throughput), (WISH, latency), (REVIEW, latency)):
            if wanted is not None:
                peer = _fastest(rows, [name for name in able if not peers[name]["ours"] and not peers[name]["student"]], workload)
                found.append(_compare(rows, kept, workload, ours, peer, wanted))
    return found


def same_network(rows: Rows, peers: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, list[Compared]]:
    """Network → each figure: our fastest engine of that network against the fastest library with the same weights.

    Networks are those that libraries were given: the run's own encoder (empty) and students. Both sides must keep ``KEPT`` of it.
    """
    found = {}
    for network in dict.fromkeys(one["student"] for one in peers.values() if not one["ours"]):
        able = [
            name
            for name, one in measured.items()
            if peers[name]["student"] == network and not peers[name]["fused"] and one.get("kept_of_network", 0.0) >= KEPT
        ]
        ours, theirs = ([name for name in able if peers[name]["ours"] is side] for side in (True, False))
        found[network] = [
            _compare(rows, KEPT, workload, _fastest(rows, ours, workload), _fastest(rows, theirs, workload), 1.0)
            for workload in WORKLOADS
        ]
    return found


def _fastest(rows: Rows, names: Sequence[str], workload: str) -> str | None:
    costs = {name: list(_round_costs(rows, name, workload).values()) for name in names}
    return min((name for name in names if costs[name]), key=lambda name: float(np.median(costs[name])), default=None)


def _compare(rows: Rows, kept: float, workload: str, ours: str | None, peer: str | None, wanted: float) -> Compared:
    if ours is None or peer is None:
        return Compared(kept, workload, ours, peer, wanted, None, None)
    mine, theirs = _round_costs(rows, ours, workload), _round_costs(rows, peer, workload)
    ratios = [theirs[turn] / mine[turn] for turn in mine if turn in theirs]
    if not ratios:
        return Compared(kept, workload, ours, peer, wanted, None, None)
    return Compared(kept, workload, ours, peer, wanted, float(np.median(ratios)), interval(ratios))


def findings(rows: Rows, peers: Mapping[str, Any], material: Material, together: int) -> dict[str, Any]:
    """What goes into the JSON beside the rows."""
    rounds = read_rounds(rows)
    measured = quality({name: peers[name]["student"] for name in rounds}, material, rounds, together)
    told = [{**asdict(one), "verdict": one.verdict} for one in compared(rows, peers, measured)]
    same = [
        {**asdict(one), "network": network, "standing": one.standing}
        for network, figures in same_network(rows, peers, measured).items()
        for one in figures
    ]
    found = {"speeds": speeds(rows), "quality": measured, "targets": told, "same_network": same}
    return {**found, "catalogue": len(material.item_vectors)}
