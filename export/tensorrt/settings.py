"""What an engine is compiled for: runtime, GPUs, the shapes that it must take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bertrec.bundle import Runtime
from bertrec.errors import InvalidInput
from bertrec.tensors import BOOST, ENCODER, HEADS, INTEREST_VECTOR, MATCHER, MAX_BATCH_SIZE, QUERY_VECTOR, RANKER, ModelSpec
from bertrec.text import BUCKETS

COMPILERS = (Runtime.TENSORRT, Runtime.TENSORRT_RTX)
SUFFIXES = {Runtime.TENSORRT: "plan", Runtime.TENSORRT_RTX: "rtx"}
"""How an engine file of each compiler is named; Triton's tensorrt backend loads the first and not the second."""
RTX_CAPABILITIES = ("75", "80", "86", "89", "120", "121")
"""What TensorRT for RTX can name as targets: its ComputeCapability, without the dot (86 is 8.6)."""
RTX_DEFAULT_CAPABILITIES = ("80+",)
"""Named no target, TensorRT for RTX builds for 8.0 and newer
(https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html)."""
MIN_WORKSPACE_BYTES = 1 << 20
OPT_BATCH_SIZE = 8
"""The batch that kernels are timed for: about what the batcher joins when sixteen clients ask at once."""

BESIDE_THE_ENCODER = {RANKER.name: "fp32", MATCHER.name: "plain", HEADS.name: "fp32"}
"""What is compiled with any encoder, where the bundle has it, and served with it: engines of standard operators. There is one
precision of the ranker: it is small, and ties between items are broken by the last digit."""

Shape = tuple[int, ...]


class HardwareCompatibility(str, Enum):
    """On which other GPUs a .plan runs; TensorRT for RTX is told by ``target_sm`` instead."""

    NONE = "none"  # on GPUs like the one that it was built on
    AMPERE_PLUS = "ampere_plus"  # compute capability 8.0 and newer
    SAME_COMPUTE_CAPABILITY = "same_compute_capability"  # any model of the same compute capability


@dataclass(frozen=True)
class Profile:
    """The shapes that one optimisation profile takes: of every input the smallest, the one to be fastest at, the largest."""

    shapes: Mapping[str, tuple[Shape, Shape, Shape]]


@dataclass(frozen=True)
class BuildSettings:
    """How to compile. Raises InvalidInput for what the compiler cannot do.

    runtime: the compiler. target_sm: compute capabilities without the dot (``86``), for TensorRT for RTX; TensorRT compiles
    for the GPU that it runs on. version_compatible: a .plan also loads in newer releases of the same major version.
    workspace_bytes: what a kernel may use of the GPU's memory. timing_cache: a file in which TensorRT keeps kernels' times from
    one build to the next. tf32: let fp32 products round their inputs to 10 bits; the ranker never does. container: the tag of the
    container that it is built in, and so of the one that serves it; empty where it is none.
    """

    runtime: Runtime
    target_sm: tuple[str, ...] = ()
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    version_compatible: bool = False
    workspace_bytes: int = 1 << 30
    timing_cache: Path | None = None
    tf32: bool = False
    container: str = ""

    def __post_init__(self) -> None:
        if self.runtime not in COMPILERS:
            raise InvalidInput(f"runtime is {self.runtime.value}; accepted are {', '.join(one.value for one in COMPILERS)}")
        if self.workspace_bytes < MIN_WORKSPACE_BYTES:
            raise InvalidInput(f"workspace_bytes is {self.workspace_bytes}; accepted is {MIN_WORKSPACE_BYTES} (1 MiB) or more")
        if self.runtime is Runtime.TENSORRT and self.target_sm:
            raise InvalidInput(
                f"target_sm is {', '.join(self.target_sm)}; TensorRT compiles for the GPU that it runs on. Build there, with "
                "hardware_compatibility for others like it, or use the runtime tensorrt_rtx"
            )
        if self.runtime is Runtime.TENSORRT_RTX:
            self._check_rtx()

    def _check_rtx(self) -> None:
        if unknown := [sm for sm in self.target_sm if sm not in RTX_CAPABILITIES]:
            raise InvalidInput(f"target_sm names {unknown[0]!r}; accepted are {', '.join(RTX_CAPABILITIES)} (86 is 8.6)")
        if len(set(self.target_sm)) < len(self.target_sm):
            raise InvalidInput(f"target_sm names a compute capability twice: {', '.join(self.target_sm)}")
        if self.timing_cache is not None:
            raise InvalidInput("TensorRT for RTX times no kernels when it compiles ahead of time; leave timing_cache out")
        if self.version_compatible:
            raise InvalidInput("TensorRT for RTX builds no version-compatible engines; leave it out, or use the runtime tensorrt")
        if self.hardware_compatibility is not HardwareCompatibility.NONE:
            raise InvalidInput("TensorRT for RTX has no hardware_compatibility; name the GPUs by target_sm")

    @property
    def suffix(self) -> str:
        """How the engine's file name ends."""
        return SUFFIXES[self.runtime]

    def exact(self) -> BuildSettings:
        """The same without rounding of fp32 products: for the ranker, where the order hangs on the last digits."""
        return dataclasses.replace(self, tf32=False)


def encoder_profiles(max_tokens: int) -> tuple[Profile, ...]:
    """One profile for each length that texts are padded to, so that a short wish has kernels of its own.

    max_tokens: what the encoder reads, and so the longest length (see :meth:`bertrec.text.TextTokenizer.bucket_length`).
    """
    return _token_profiles(ENCODER, max_tokens)


def matcher_profiles(max_tokens: int, item_tokens: int) -> tuple[Profile, ...]:
    """The same for texts with an item of up to ``item_tokens`` behind them, which are padded beyond that to the next bucket."""
    longest = max_tokens + item_tokens
    return _token_profiles(MATCHER, next((length for length in BUCKETS if length >= longest), longest))


def heads_profiles(hidden: int) -> tuple[Profile, ...]:
    """The heads' one profile: only the batch varies. hidden: numbers in an interest vector."""
    return (Profile({INTEREST_VECTOR.name: ((1, hidden), (OPT_BATCH_SIZE, hidden), (MAX_BATCH_SIZE, hidden))}),)


def _token_profiles(spec: ModelSpec, max_tokens: int) -> tuple[Profile, ...]:
    if max_tokens < 1:
        raise InvalidInput(f"max_tokens is {max_tokens}; accepted is 1 or more")
    lengths = [length for length in BUCKETS if length < max_tokens] + [max_tokens]
    profiles = []
    for before, length in zip([0, *lengths], lengths, strict=False):
        # (batch, tokens)
        shapes = ((1, before + 1), (OPT_BATCH_SIZE, length), (MAX_BATCH_SIZE, length))
        profiles.append(Profile({tensor.name: shapes for tensor in spec.inputs}))
    return tuple(profiles)


def ranker_profiles(query_width: int, items: int) -> tuple[Profile, ...]:
    """The ranker's one profile: only the batch varies. query_width: of all signals together."""
    widths = {QUERY_VECTOR.name: query_width, BOOST.name: items}
    return (Profile({name: ((1, width), (OPT_BATCH_SIZE, width), (MAX_BATCH_SIZE, width)) for name, width in widths.items()}),)
