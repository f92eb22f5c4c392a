"""Which peers there are, and what each needs installed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from bertrec.bundle import REFERENCE_ENGINE, Bundle, fastest
from bertrec.errors import InvalidInput
from bertrec.tensors import ENCODER

OURS, OWN_NETWORK = "bertrec", "bert"
STUDENT = "layers-2-pruned-50"
"""Whose weights the strongest libraries are given too, where the run has it."""


class Sorting(str, Enum):
    """Who puts texts of similar length into a batch, offline."""

    LIBRARY = "by the library"
    BEFORE = "before the call, by characters"  # benchmarks/peers/worker.py
    TOKENS = "in our code around it, by tokens"


@dataclass(frozen=True)
class Environment:
    """A venv of its own. name: of its folder, and of its file under constraints/, which pins every package.

    removed: what comes along, and breaks the rest.
    """

    name: str
    requirements: tuple[str, ...]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Peer:
    """One way to read texts. module: under benchmarks/peers/encoders. environment: None for the one that this runs in.

    sorting: see :class:`Sorting`. student: whose weights it has, where they are not those of the run's own encoder. server: it is
    asked over the network. bundle: of bertrec's own engines, and only of theirs. fused: it ranks by all of bertrec's signals, not
    by the text alone.
    """

    name: str
    module: str
    variant: str
    environment: Environment | None
    sorting: Sorting = Sorting.LIBRARY
    student: str = ""
    server: bool = False
    bundle: str = ""
    fused: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is bertrec."""
        return bool(self.bundle)


TORCH = Environment("torch", ("torch", "transformers", "numpy"))
SENTENCE = Environment("sentence-transformers", ("sentence-transformers", "optimum-onnx", "onnx", "onnxruntime"))
SENTENCE_OPENVINO = Environment(
    "sentence-transformers-openvino",
    ("sentence-transformers", "optimum-intel", "openvino", "nncf", "torch"),
    # optimum-intel asks for it and reads no picture here; a build for CUDA beside a CPU torch fails transformers' import.
    removed=("torchvision",),
)
OPTIMUM = Environment("optimum", ("optimum-onnx", "onnx", "onnxruntime", "transformers", "torch"))
FASTEMBED = Environment("fastembed", ("fastembed",))
OPENVINO = Environment("openvino", ("openvino", "nncf", "tokenizers"))
INFINITY = Environment("infinity", ("infinity-emb[torch,optimum]",))
PYTRITON = Environment("pytriton", ("nvidia-pytriton", "torch", "transformers"))
MLSERVER = Environment("mlserver", ("mlserver", "torch", "transformers"))

PEERS = (
    Peer("transformers", "transformers_torch", "eager", TORCH, Sorting.BEFORE),
    Peer("transformers, torch.compile", "transformers_torch", "compiled", TORCH, Sorting.BEFORE),
    Peer("sentence-transformers", "sentence_transformers_library", "torch", SENTENCE),
    Peer("sentence-transformers, ONNX", "sentence_transformers_library", "onnx", SENTENCE),
    Peer("sentence-transformers, ONNX O3", "sentence_transformers_library", "onnx-O3", SENTENCE),
    Peer("sentence-transformers, ONNX O4", "sentence_transformers_library", "onnx-O4", SENTENCE),
    Peer("sentence-transformers, ONNX int8", "sentence_transformers_library", "onnx-int8", SENTENCE),
    Peer("sentence-transformers, OpenVINO", "sentence_transformers_library", "openvino", SENTENCE_OPENVINO),
    Peer("sentence-transformers, OpenVINO int8", "sentence_transformers_library", "openvino-int8", SENTENCE_OPENVINO),
    Peer("optimum ONNX Runtime", "optimum_onnxruntime", "fp32", OPTIMUM, Sorting.BEFORE),
    Peer("fastembed", "fastembed_library", "fused", FASTEMBED, Sorting.BEFORE),
    Peer("OpenVINO", "openvino_runtime", "fp32", OPENVINO, Sorting.TOKENS),
    Peer("OpenVINO, NNCF int8", "openvino_runtime", "nncf-int8", OPENVINO, Sorting.TOKENS),
    Peer("infinity, torch", "infinity_library", "torch", INFINITY),
    Peer("infinity, optimum", "infinity_library", "optimum", INFINITY),
    Peer("pytriton", "pytriton_server", "eager", PYTRITON, Sorting.BEFORE, server=True),
    Peer("MLServer", "mlserver_server", "eager", MLSERVER, Sorting.BEFORE, server=True),
    *(
        dataclasses.replace(peer, name=f"{peer.name}, {STUDENT}", student=STUDENT)
        for peer in (
            Peer("sentence-transformers, OpenVINO int8", "sentence_transformers_library", "openvino-int8", SENTENCE_OPENVINO),
            Peer("OpenVINO", "openvino_runtime", "fp32", OPENVINO, Sorting.TOKENS),
            Peer("OpenVINO, NNCF int8", "openvino_runtime", "nncf-int8", OPENVINO, Sorting.TOKENS),
        )
    ),
)


def own_peers(bundles: Sequence[Bundle]) -> list[Peer]:
    """Every encoder engine of the bundles, and the fused pipeline of each bundle's chosen engine and of its fastest that passed.

    An engine that an earlier bundle has by the same name is left out. Raises InvalidInput where none is the reference.
    """
    found: dict[str, Peer] = {}

    def add(bundle: Bundle, engine: str, *, fused: bool) -> None:
        structure = bundle.engine(ENCODER.name, engine).structure
        peer = Peer(
            name=f"{OURS} {engine}" + (", fused pipeline" if fused else ""),
            module="bertrec_edge",
            variant=f"pipeline {engine}" if fused else engine,
            environment=None,
            student="" if structure == OWN_NETWORK else structure,
            bundle=str(bundle.folder),
            fused=fused,
        )
        found.setdefault(peer.name, peer)

    for bundle in bundles:
        for engine in bundle.ort_engines:
            add(bundle, engine, fused=False)
        for chosen in (bundle.default_engine, fastest(bundle.manifest.engines, ENCODER.name)):
            if chosen in bundle.ort_engines:
                add(bundle, chosen, fused=True)
    if f"{OURS} {REFERENCE_ENGINE}" not in found:
        raise InvalidInput(f"none of the bundles has the engine {REFERENCE_ENGINE}; give one that has it as well")
    return list(found.values())


def other_peers(students: Collection[str]) -> list[Peer]:
    """The other libraries, those with a student's weights where it is one of a run's ``students``."""
    return [peer for peer in PEERS if not peer.student or peer.student in students]


def chosen_peers(names: Sequence[str], everyone: Sequence[Peer]) -> list[Peer]:
    """The peers of those names, or all. Raises InvalidInput for one that there is not."""
    if unknown := sorted(set(names) - {peer.name for peer in everyone}):
        known = "; ".join(peer.name for peer in everyone)
        raise InvalidInput(f"--peers names {'; '.join(unknown)}; accepted are: {known}")
    return [peer for peer in everyone if not names or peer.name in names]
