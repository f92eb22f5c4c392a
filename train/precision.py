"""The precision that matrix products are computed in while training (Micikevicius et al., 2018, https://arxiv.org/abs/1710.03740)."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any

import torch

CPU = torch.device("cpu")


class Precision(str, Enum):
    """fp32 everywhere; bf16 or fp16 in matrix products, with the weights in fp32; or what the device computes fastest."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


def computes_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware; without that it is slower than fp32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def dtype_of(precision: Precision | str, device: torch.device = CPU) -> torch.dtype:
    """What matrix products are computed in on a device.

    auto is bf16 where the device has instructions for it, else fp16 on a GPU and fp32 on a CPU.
    """
    wanted = Precision(precision)
    if wanted is Precision.AUTO:
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return torch.bfloat16 if computes_bf16() else torch.float32
    return {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}[wanted]


def autocast(precision: Precision | str, device: torch.device = CPU) -> AbstractContextManager[Any]:
    """Within it, torch's matrix products on the device are computed in ``precision``."""
    dtype = dtype_of(precision, device)
    return contextlib.nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype)


def loss_scaler(precision: Precision | str, device: torch.device = CPU) -> torch.amp.GradScaler:
    """What multiplies a loss, so that fp16's gradients do not vanish, and skips a step in which they overflow.

    It does nothing for fp32 and bf16, which have exponents enough.
    """
    return torch.amp.GradScaler(device.type, enabled=dtype_of(precision, device) is torch.float16)
