"""docs/engines.md, from what ``python -m benchmarks engines`` measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.engines import AGAIN, MEMORY_GB, MINUTES, SPEED_UP, chosen, in_path, loss, same_hashes

Build = Mapping[str, Any]


def engines_page(content: Mapping[str, Any]) -> str:
    """The page, in Markdown."""
    builds: Mapping[str, Build] = content["builds"]
    parts = [
        "# Engines",
        "What each engine of a run costs and loses, and which is chosen where. Written by `python -m benchmarks engines`; "
        "quality is measured on 1,000 held-out texts through the served code, speed from text to interest vector, all engines in "
        "turns within each round.",
        "## What was to be reached",
        _table(("", "wanted", "measured", ""), _targets(builds)),
        *(part for name, build in builds.items() if not name.endswith(AGAIN) for part in _build(name, build)),
        *_students(content),
        _origin(content["provenance"]),
    ]
    return "\n\n".join(parts) + "\n"


def _targets(builds: Mapping[str, Build]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, megabytes, accepted in (("edge, 15 MB", 15.0, 0.01), ("edge, 6 MB", 6.0, 0.03)):
        engine, size = chosen(builds[name]), builds[name].get("bytes", 0) / 1e6
        if engine is None:
            rows.append((f"edge bundle ≤ {megabytes:g} MB", f"≥ {1 - accepted:.0%} of NDCG@10", builds[name]["error"], "missed"))
            continue
        kept = 1 - loss(engine)
        good = size <= megabytes and kept >= 1 - accepted
        measured = f"{size:.1f} MB, {kept:.1%}, {engine['name']}"
        rows.append((f"edge bundle ≤ {megabytes:g} MB", f"≥ {1 - accepted:.0%} of NDCG@10", measured, _verdict(good)))
    cpu = builds["cpu"]
    engine = chosen(cpu)
    if engine is not None:
        ratio = engine["latency"].get("throughput_ratio", 1.0)
        kept = 1 - loss(engine)
        rows.append(
            (
                "chosen CPU engine",
                f"≥ {SPEED_UP:g}× the throughput of fp32 at ≥ 99% of NDCG@10",
                f"{ratio:.2f}×, {kept:.1%}, {engine['name']}",
                _verdict(ratio >= SPEED_UP and kept >= 0.99),
            )
        )
    rows.append(("export of all CPU engines", f"≤ {MINUTES:g} minutes", f"{cpu['minutes']}", _verdict(cpu["minutes"] <= MINUTES)))
    memory = max(build["peak_memory_gb"] for build in builds.values())
    rows.append(("peak memory", f"≤ {MEMORY_GB:g} GB", f"{memory}", _verdict(memory <= MEMORY_GB)))
    if again := builds.get(f"cpu{AGAIN}"):
        differing = same_hashes(cpu.get("engines", []), again.get("engines", []))
        said = "all the same" if not differing else f"other bytes: {', '.join(differing)}"
        rows.append(("two exports of one run", "the same engine files", said, _verdict(not differing)))
    return rows


def _verdict(good: bool) -> str:
    return "reached" if good else "missed"


def _build(name: str, build: Build) -> list[str]:
    head = f"## {name}\n\n`{build['command']}`: {build['minutes']} minutes, {build['peak_memory_gb']} GB at most."
    if "error" in build:
        return [head, f"No bundle: {build['error']}"]
    engines = sorted(build["engines"], key=lambda engine: -engine["latency"].get("throughput_ratio", 0.0))
    table = _table(
        (
            "engine",
            "verdict",
            "MB",
            "NDCG@10",
            "lost",
            "R@10",
            "top-10 overlap",
            "any batch",
            "ms, one text",
            "texts/s",
            "× fp32",
        ),
        [_row(engine, engine["name"] == build["choice"].get("engine")) for engine in engines],
    )
    rejected = [f"- {engine['name']}: {engine['why']}" for engine in engines if engine["verdict"] == "rejected"]
    why = f"Chosen: {build['choice']['engine']}, {build['choice']['why']}. The bundle has {build['bytes'] / 1e6:.1f} MB, the "
    chart = f"![Quality against latency and size](engines/{in_path(name)}/engines.svg)"
    parts = [head, table, chart, f"{why}spelling dictionary apart."]
    return [*parts, "Rejected:\n\n" + "\n".join(rejected)] if rejected else parts


def _row(engine: Mapping[str, Any], bold: bool) -> tuple[str, ...]:
    quality, latency, parity = engine["quality"], engine["latency"], engine["parity"]
    spread = f"{latency['texts_per_s_low']:,.0f}–{latency['texts_per_s_high']:,.0f}" if latency else ""
    name = f"**{engine['name']}**" if bold else engine["name"]
    if not quality:
        return (name, engine["verdict"], f"{engine['size_bytes'] / 1e6:.1f}", *["–"] * 8)
    return (
        name,
        engine["verdict"],
        f"{engine['size_bytes'] / 1e6:.1f}",
        f"{quality['ndcg_at_10']:.4f}",
        f"{100 * loss(engine) + 0.0:+.2f}%",
        f"{quality['recall_at_10']:.3f}",
        f"{parity['top10_overlap']:.3f}",
        "same" if engine["batch_invariant"] else f"±{parity['batch_difference_max']:.3f}",
        f"{latency['single_ms_median']:.2f}" if latency else "–",
        f"{latency['texts_per_s_median']:,.0f} ({spread})" if latency else "–",
        f"{latency['throughput_ratio']:.2f}" if latency else "–",
    )


def _students(content: Mapping[str, Any]) -> list[str]:
    """How the run ranks with each student's vectors, in every way of asking."""
    if not content["students"]:
        return []
    kinds: Mapping[str, Any] = content["kinds"]
    names = list(next(iter(kinds.values()))["rankers"])
    rows = []
    for name in names:
        about = content["students"].get(name)
        own = (f"{about['parameters'] / 1e6:.1f} M", f"{about['minutes']:g}", f"{about['cosine']:.3f}") if about else ("", "", "")
        rows.append((name, *own, *(_asked(kinds[kind]["rankers"][name]["ndcg_at_10"]) for kind in kinds)))
    heads = [f"{kind} ({found['queries']:,})" for kind, found in kinds.items()]
    return [
        "## Students\n\nNDCG@10 on the whole test split with the run's own vectors (fused) and with each student's before the "
        "same items and signals, in every way of asking (queries); in brackets what is lost, with its paired 95% interval. "
        "Cosine: to the run's own vectors, on validation.",
        _table(("", "parameters", "minutes", "cosine", *heads), rows),
    ]


def _asked(metric: Mapping[str, Any]) -> str:
    behind = metric["behind"]
    if behind is None:
        return f"{metric['value']:.4f}"
    return f"{metric['value']:.4f} ({behind['value']:+.4f}, {behind['low']:+.4f} to {behind['high']:+.4f})"


def _origin(origin: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in origin["versions"].items())
    return (
        f"Measured {origin['measured'][:10]} at {origin['commit'][:10]} by `{origin['command']}`, on {origin['cpu']} "
        f"({' '.join(origin['cpu_flags'])}), {origin['cores']} cores, Python {origin['python']}, {versions}."
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] * len(heads)) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
