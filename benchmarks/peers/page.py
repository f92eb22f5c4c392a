"""docs/peers.md, from what ``python -m benchmarks peers`` wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.edge import WORDS
from benchmarks.peers.measure import OFFLINE, REVIEW, WISH
from benchmarks.percentiles import shown

Content = Mapping[str, Any]
NAMES = {OFFLINE: "throughput", WISH: "p50, one wish", REVIEW: "p50, one review"}


def peers_page(content: Content) -> str:
    """The page, in Markdown, as far as was measured."""
    settings = content["settings"]
    interrupted = "" if content["complete"] else " **The run was interrupted.**"
    parts = [
        "# Against other libraries",
        f"One run's fine-tuned encoder, and the same {content.get('catalogue', 0):,} item vectors, in every library; each in an "
        f"environment and a process of its own, {settings['threads']} threads each, in turns within every round "
        f"({settings['rounds']}). Rows that say (student) have other weights: those of a smaller network of ours that "
        f"imitates the encoder. Written by `python -m benchmarks peers`.{interrupted}",
        *_same_network(content),
        *_targets(content),
        *_speeds(content, "total", "Text → ten items", _METHOD.format(words=WORDS, **settings)),
        *_speeds(content, "encode", "Encoder only", "Text → vector, tokenisation included; the same requests as above."),
        *_failed(content),
        *_versions(content),
        _origin(content["provenance"]),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


_METHOD = (
    "The vector of the text times the matrix of the items, and the ten best, in numpy, for everybody. bertrec's fused "
    "pipeline adds the other signals, spelling and reasons; it has a row of its own and takes no part in the targets. One "
    "wish: the first {words} words of a review, {singly} of them again and again for at least a second a round, after .3 s that "
    "do not count; one review: as many, whole. Offline: {together} reviews "
    "handed over at once in a round, in batches of 32 or bertrec's own, of similar length; after 64 that do not count, again "
    "for at least a second, of which the median pass counts. NDCG@10 is that of the texts read offline; kept: its share of "
    "what the encoder gives in torch; cosine: to torch's vectors, mean. × best: throughput over that of the fastest other "
    "library that has the run's own encoder. Cores: CPU time over time, offline, of a library's process and its servers. "
    "*Server*: asked over the network of this machine, which bertrec's rows here are not; its Triton is measured beside the "
    "engine in-process by `load` and `overhead`. OpenVINO is compiled twice, for latency and for throughput; its MB hold both."
)


def _same_network(content: Content) -> list[str]:
    if not content.get("same_network"):
        return []

    def side(one: Content, name: str | None) -> str:
        if name is None:
            return "none that keeps it"
        found = content["speeds"][name][one["figure"]]["total"]
        speed = f"{found['texts_per_s'][0]:,.0f} texts/s" if one["figure"] == OFFLINE else f"{found['p50_ms']:.2f} ms"
        return f"{name}: {speed}"

    rows = [
        (
            f"the student {one['network']}" if one["network"] else "the run's encoder",
            NAMES[one["figure"]],
            side(one, one["ours"]),
            side(one, one["peer"]),
            _ratio(one),
            f"**{one['standing']}**",
        )
        for one in content["same_network"]
    ]
    return [
        "## The same weights on both sides",
        _table(("network", "text → ten items", "bertrec", "best peer", "how many times as fast", "bertrec is"), rows),
        "Library against library. Both sides are chosen for each figure, in whatever precision, among those that keep "
        f"≥ {content['same_network'][0]['kept']:.0%} of what the network gives in torch. A student stands on both or neither. "
        "Ahead and behind: by the whole interval.",
    ]


def _ratio(one: Content) -> str:
    return "–" if one["ratio"] is None else "{:.2f}× ({:.2f}–{:.2f})".format(one["ratio"], *one["interval"])


def _shown(name: str | None, content: Content) -> str:
    """A peer's name with what sets it apart: ours, a student, a server."""
    if name is None:
        return "none that keeps it"
    peer = content["peers"][name]
    kinds = [kind for kind in ("student", "server") if peer[kind]]
    return (f"**{name}**" if peer["ours"] else name) + (f" ({', '.join(kinds)})" if kinds else "")


def _targets(content: Content) -> list[str]:
    if not content.get("targets"):
        return []
    return [
        "## What was to be reached",
        _table(("text → ten items", "wanted", "measured", "bertrec", "best peer", ""), target_rows(content)),
        "Ratios are taken within rounds; in brackets the interval of their median over the rounds. Both sides must keep the bar. "
        "Ours is the engine of the greatest throughput, the best peer is chosen for each figure. It is what each gives from the "
        "run as it is: ours may be a student, which `train distil` makes of the run; libraries that were given our student "
        "take no part.",
    ]


def target_rows(content: Content) -> list[list[str]]:
    """What was to be reached, wanted, measured, ours, the best peer, and the verdict."""
    return [
        [
            f"≥ {one['kept']:.0%} of NDCG@10: {NAMES[one['figure']]}",
            f"≥ {one['wanted']:g}×",
            _ratio(one),
            _shown(one["ours"], content).replace("**", ""),
            _shown(one["peer"], content),
            one["verdict"],
        ]
        for one in content.get("targets", ())
    ]


def _speeds(content: Content, way: str, title: str, method: str) -> list[str]:
    speeds = {
        name: found
        for name, found in content.get("speeds", {}).items()
        if name in content["quality"] and all(way in found.get(workload, {}) for workload in NAMES)
    }
    if not speeds:
        return []
    order = sorted(speeds, key=lambda name: -speeds[name][OFFLINE][way]["texts_per_s"][0])
    theirs = [speeds[name][OFFLINE][way]["texts_per_s"][0] for name in order if _has_the_encoder(content["peers"][name])]
    rows = [_speed(name, speeds[name], content, way, max(theirs, default=None)) for name in order]
    heads = (
        "",
        "texts/s offline",
        "× best",
        "wish p50, p95 ms",
        "review p50, p95 ms",
        "NDCG@10",
        "kept",
        "cosine",
        "cores",
        "MB",
    )
    return [f"## {title}", method, _table(heads, rows)]


def _has_the_encoder(peer: Content) -> bool:
    return not peer["ours"] and not peer["student"]


def _speed(name: str, speed: Mapping[str, Any], content: Content, way: str, best: float | None) -> tuple[str, ...]:
    quality, peer = content["quality"][name], content["peers"][name]
    median, low, high = speed[OFFLINE][way]["texts_per_s"]
    single = [(speed[workload][way], _asked(name, workload, content)) for workload in (WISH, REVIEW)]
    return (
        _shown(name, content),
        f"{median:,.0f} ({low:,.0f}–{high:,.0f})",
        "–" if best is None else f"{median / best:.2f}",
        *(f"{one['p50_ms']:.2f}, {shown(one['p95_ms'], 95, asked)}" for one, asked in single),
        f"{quality['ndcg_at_10']:.4f}",
        "–" if peer["fused"] else f"{quality['kept']:.1%}",
        f"{quality['cosine_mean']:.4f}" if "cosine_mean" in quality else "–",
        f"{speed[OFFLINE]['cores_used']:.2f}",
        f"{peer['memory_bytes'] / 1e6:,.0f}" if "memory_bytes" in peer else "–",
    )


def _asked(name: str, workload: str, content: Content) -> int:
    """How many requests a peer's percentiles are of."""
    return sum(len(row["total_s"]) for row in content["rows"] if (row["peer"], row["workload"]) == (name, workload))


def _failed(content: Content) -> list[str]:
    rows = [
        (name, peer["failed"]["stage"], f"`{_cell(peer['failed']['reason'])}`")
        for name, peer in content.get("peers", {}).items()
        if "failed" in peer
    ]
    return ["## What could not be measured", _table(("", "stage", "reason"), rows)] if rows else []


def _versions(content: Content) -> list[str]:
    rows = [
        (
            name,
            ", ".join(f"{package} {version}" for package, version in peer["versions"].items()),
            "–" if peer["threads"] is None else str(peer["threads"]),
            peer["sorting"],
        )
        for name, peer in content.get("peers", {}).items()
        if "versions" in peer
    ]
    said = (
        "Threads as each library says itself, once it is loaded; ONNX Runtime in infinity is told nothing, and its threads were "
        "counted. Every process is held to as many cores. Sorted: how texts of similar length come into a batch."
    )
    engines = [
        f"Encoder engines of the bundle {fingerprint[:12]}: {', '.join(names)}."
        for fingerprint, names in content.get("bundles", {}).items()
    ]
    return ["## Versions", said, *engines, _table(("", "versions", "threads", "sorted"), rows)] if rows else []


def _cell(text: str) -> str:
    """The text as it may stand in a cell of a table."""
    return text.replace("|", "¦").replace("`", "'")


def _origin(origin: Mapping[str, Any]) -> str:
    return (
        f"Measured {origin['measured'][:10]} at {origin['commit'][:10]} by `{origin['command']}`, on {origin['cpu']} "
        f"({' '.join(origin['cpu_flags'])}), {origin['cores']} cores, Python {origin['python']}."
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] * len(heads)) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
