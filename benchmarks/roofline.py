"""How near each encoder engine comes to what this machine's cores multiply and its memory delivers.

Peaks are measured, in the same run and with the same threads: a large matrix product through ONNX Runtime, in fp32 and in int8
(MatMulInteger), and the memory's bandwidth. An engine's work is counted from its graph: 2·k·n for each weight matrix and token,
and 4·tokens·hidden for each token and attention layer. Williams, Waterman and Patterson, "Roofline", 2009.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from rich.table import Table

from benchmarks.bandwidth import measure_bandwidth
from benchmarks.record import Record
from bertrec.bundle import Bundle
from bertrec.checks import number
from bertrec.engine import OnnxEngine
from bertrec.session_options import SessionOptions
from bertrec.tensors import ATTENTION_MASK, ENCODER, INPUT_IDS
from train.progress import progress, say

SIDE = 2_048
PRODUCTS = {"MatMul", "Gemm", "FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul"}
ATTENTIONS = {"Attention", "QAttention", "MultiHeadAttention"}
PASSES_ON = {"DequantizeLinear", "Cast", "Transpose", "Identity"}
"""Stand between a weight as it is stored and the product that uses it."""


@dataclass(frozen=True)
class RooflineSettings:
    """batch texts of ``tokens`` each. repeats: of each product and engine. threads: of everything; 0 is one for each core."""

    batch: int = 32
    tokens: int = 64
    repeats: int = 20
    threads: int = 0
    side: int = SIDE

    def __post_init__(self) -> None:
        for name in ("batch", "tokens", "repeats", "side"):
            number(name, getattr(self, name), 1, 1_000_000)
        number("threads", self.threads, 0, 256)


@dataclass(frozen=True)
class Work:
    """What a graph does for a batch. flops: a multiplication and an addition count as two. weight_bytes: read at least once."""

    flops: int
    weight_bytes: int
    layers: int


def measure_roofline(bundle: Bundle, settings: RooflineSettings, record: Record) -> None:
    """The peaks, noted beside the rows, and a row of ``record`` for each engine that multiplies matrices."""
    threads = settings.threads or len(os.sched_getaffinity(0))
    peaks = {kind: peak_gflops(kind, threads, settings) for kind in ("fp32", "int8")}
    bandwidth = measure_bandwidth(threads)
    record.note(peak_gflops=peaks, bandwidth={**asdict(bandwidth), "best": bandwidth.best})
    tokens = min(settings.tokens, bundle.manifest.max_tokens)
    inputs = {
        INPUT_IDS.name: np.full((settings.batch, tokens), 5, np.int64),
        ATTENTION_MASK.name: np.ones((settings.batch, tokens), np.int64),
    }
    names = bundle.ort_engines
    with progress("timing engines", len(names)) as advance:
        for name in names:
            path = bundle.engine_path(ENCODER.name, name)
            work = work_of(path, batch=settings.batch, tokens=tokens)
            if not work.flops:
                say(f"{name} multiplies no matrices, so that no bound is its own: it is left out")
                advance()
                continue
            engine = OnnxEngine(path, ENCODER, SessionOptions(threads))
            seconds = _seconds(lambda engine=engine: engine.run(inputs), settings.repeats)  # type: ignore[misc]  # see scale
            kind = "int8" if "int8" in bundle.engine(ENCODER.name, name).precision else "fp32"
            median = float(np.median(seconds))
            bound_s = max(work.flops / (1e9 * peaks[kind]), work.weight_bytes / (1e9 * bandwidth.best))
            record.add(
                {
                    "engine": name,
                    "batch": settings.batch,
                    "tokens": tokens,
                    "threads": threads,
                    **asdict(work),
                    "seconds": seconds,
                    "gflops": work.flops / 1e9 / median,
                    "bound": kind,
                    "of_bound": bound_s / median,
                }
            )
            advance()


def work_of(path: Path, *, batch: int, tokens: int) -> Work:
    """Count a graph's matrix products. Products without a weight are attention's, and counted by layer."""
    graph = onnx.load(str(path)).graph
    weights = {one.name: one for one in graph.initializer if len(one.dims) == 2}
    sources = {name: name for name in weights}
    flops, layers, used, inner = 0, 0, set(), Counter[int]()
    for node in graph.node:
        given = [sources[name] for name in node.input if name in sources]
        if node.op_type in PASSES_ON and given and node.input[0] in sources:
            sources[node.output[0]] = given[0]
        layers += node.op_type in ATTENTIONS or node.op_type == "Softmax"
        if node.op_type in PRODUCTS | ATTENTIONS:
            for name in given:
                rows, columns = weights[name].dims
                flops += 2 * rows * columns * batch * tokens
                inner[min(rows, columns)] += 1
                used.add(name)
    hidden = inner.most_common(1)[0][0] if inner else 0
    flops += layers * 4 * tokens * hidden * batch * tokens
    return Work(flops, sum(numpy_helper.to_array(weights[name]).nbytes for name in used), layers)


def peak_gflops(kind: str, threads: int, settings: RooflineSettings) -> float:
    """Of a product of two square matrices in ONNX Runtime, the second one constant: 10⁹ operations a second, at the median."""
    side, random = settings.side, np.random.default_rng(0)
    int8 = kind == "int8"
    left: Any = random.integers(0, 127, (side, side), np.uint8) if int8 else random.random((side, side), np.float32)
    right: Any = random.integers(-127, 127, (side, side), np.int8) if int8 else random.random((side, side), np.float32)
    types = (TensorProto.UINT8, TensorProto.INT32) if int8 else (TensorProto.FLOAT, TensorProto.FLOAT)
    taken, given = (helper.make_tensor_value_info(name, one, [side, side]) for name, one in zip(("a", "c"), types, strict=True))
    node = helper.make_node("MatMulInteger" if int8 else "MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "peak", [taken], [given], [numpy_helper.from_array(right, "b")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    median = float(np.median(_seconds(lambda: session.run(None, {"a": left}), settings.repeats)))
    return float(2 * side**3 / 1e9 / median)


def _seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each of so many calls, after two that warm up."""
    seconds = []
    for turn in range(-2, repeats):
        began = time.perf_counter()
        work()
        if turn >= 0:
            seconds.append(time.perf_counter() - began)
    return seconds


def roofline_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line for each engine."""
    table = Table(title="how near each engine comes to the machine's bound", title_justify="left")
    for title in ("engine", "batch × tokens", "GFLOP", "weights MB", "p50 ms", "GFLOP/s", "bound", "of it"):
        table.add_column(title, justify="left" if title in ("engine", "bound") else "right")
    for row in rows:
        table.add_row(
            row["engine"],
            f"{row['batch']} × {row['tokens']}",
            f"{row['flops'] / 1e9:.2f}",
            f"{row['weight_bytes'] / 1e6:.1f}",
            f"{1e3 * float(np.median(row['seconds'])):.2f}",
            f"{row['gflops']:.1f}",
            row["bound"],
            f"{row['of_bound']:.0%}",
        )
    return table
