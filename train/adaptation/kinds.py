"""What an encoder can learn from texts alone."""

from __future__ import annotations

from enum import Enum


class Adaptation(str, Enum):
    """Nothing, guessing masked words, or telling a text from others."""

    NONE = "none"
    MLM = "mlm"
    SIMCSE = "simcse"
