"""optimum's ORTModelForFeatureExtraction: its own export, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from optimum.onnxruntime import ORTModelForFeatureExtraction
from transformers import AutoTokenizer

from benchmarks.peers.setup import Loaded, Setup, in_batches, mean_of_tokens


def load(setup: Setup) -> Loaded:
    """variant: not read."""
    exported = Path(setup.own) / "exported"
    if not exported.is_dir():
        ORTModelForFeatureExtraction.from_pretrained(setup.model, export=True).save_pretrained(exported)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setup.threads
    model = ORTModelForFeatureExtraction.from_pretrained(exported, session_options=options, provider="CPUExecutionProvider")
    tokenizer = AutoTokenizer.from_pretrained(setup.model)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=setup.max_tokens, return_tensors="np")
        hidden = model(**tokens).last_hidden_state  # (batch, tokens, hidden)
        return mean_of_tokens(np.asarray(hidden), tokens["attention_mask"])

    threads = model.model.get_session_options().intra_op_num_threads
    return Loaded(in_batches(encode), int(threads), ("optimum", "optimum-onnx", "onnxruntime", "transformers", "numpy"))
