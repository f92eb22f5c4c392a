"""Which peers there are, and what each needs installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bertrec.bundle import REFERENCE_ENGINE, Bundle
from bertrec.errors import InvalidInput

OURS = "bertrec"


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

    bundle: of bertrec's own engines, and only of theirs. fused: it ranks by all of bertrec's signals, not by the text alone.
    """

    name: str
    module: str
    variant: str
    environment: Environment | None
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
    Peer("transformers", "transformers_torch", "eager", TORCH),
    Peer("transformers, torch.compile", "transformers_torch", "compiled", TORCH),
    Peer("sentence-transformers", "sentence_transformers_library", "torch", SENTENCE),
    Peer("sentence-transformers, ONNX", "sentence_transformers_library", "onnx", SENTENCE),
    Peer("sentence-transformers, ONNX O3", "sentence_transformers_library", "onnx-O3", SENTENCE),
    Peer("sentence-transformers, ONNX O4", "sentence_transformers_library", "onnx-O4", SENTENCE),
    Peer("sentence-transformers, ONNX int8", "sentence_transformers_library", "onnx-int8", SENTENCE),
    Peer("sentence-transformers, OpenVINO", "sentence_transformers_library", "openvino", SENTENCE_OPENVINO),
    Peer("sentence-transformers, OpenVINO int8", "sentence_transformers_library", "openvino-int8", SENTENCE_OPENVINO),
    Peer("optimum ONNX Runtime", "optimum_onnxruntime", "fp32", OPTIMUM),
    Peer("fastembed", "fastembed_library", "fused", FASTEMBED),
    Peer("OpenVINO", "openvino_runtime", "fp32", OPENVINO),
    Peer("OpenVINO, NNCF int8", "openvino_runtime", "nncf-int8", OPENVINO),
    Peer("infinity, torch", "infinity_library", "torch", INFINITY),
    Peer("infinity, optimum", "infinity_library", "optimum", INFINITY),
    Peer("pytriton", "pytriton_server", "eager", PYTRITON),
    Peer("MLServer", "mlserver_server", "eager", MLSERVER),
)


def own_peers(bundles: Sequence[Bundle]) -> list[Peer]:
    """Every encoder engine of the bundles, and the fused pipeline of each bundle's chosen engine.

    An engine that an earlier bundle has by the same name is left out. Raises InvalidInput where none is the reference.
    """
    found: dict[str, Peer] = {}
    for bundle in bundles:
        for engine in bundle.ort_engines:
            name = f"{OURS} {engine}"
            found.setdefault(name, Peer(name, "bertrec_edge", engine, None, bundle=str(bundle.folder)))
        chosen = bundle.default_engine
        name = f"{OURS} {chosen}, fused pipeline"
        found.setdefault(name, Peer(name, "bertrec_edge", f"pipeline {chosen}", None, bundle=str(bundle.folder), fused=True))
    if f"{OURS} {REFERENCE_ENGINE}" not in found:
        raise InvalidInput(f"none of the bundles has the engine {REFERENCE_ENGINE}; give one that has it as well")
    return list(found.values())


def chosen_peers(names: Sequence[str], everyone: Sequence[Peer]) -> list[Peer]:
    """The peers of those names, or all. Raises InvalidInput for one that there is not."""
    if unknown := sorted(set(names) - {peer.name for peer in everyone}):
        known = "; ".join(peer.name for peer in everyone)
        raise InvalidInput(f"--peers names {'; '.join(unknown)}; accepted are: {known}")
    return [peer for peer in everyone if not names or peer.name in names]
