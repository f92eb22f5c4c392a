"""The precision that matrix products are computed in while training."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any

import torch


class Precision(str, Enum):
    """fp32 everywhere; bf16 in matrix products, with the weights in fp32; or bf16 where the machine has instructions for it."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


def computes_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware; without that it is slower than fp32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(precision: Precision | str) -> AbstractContextManager[Any]:
    """Within it, torch's matrix products are computed in ``precision`` (Micikevicius et al., 2018).

    Losses are not scaled, since bf16 has the exponents of fp32.
    """
    wanted = Precision(precision)
    if wanted is Precision.FP32 or (wanted is Precision.AUTO and not computes_bf16()):
        return contextlib.nullcontext()
    return torch.autocast("cpu", torch.bfloat16)
