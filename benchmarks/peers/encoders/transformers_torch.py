"""transformers with torch: AutoModel as everybody writes it, or compiled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from benchmarks.peers.setup import Loaded, Setup, in_batches

COMPILED = "compiled"


def load(setup: Setup) -> Loaded:
    """variant: ``eager`` or ``compiled``."""
    torch.set_num_threads(setup.threads)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(setup.own) / "inductor")  # what was compiled is there at the next run
    tokenizer = AutoTokenizer.from_pretrained(setup.model)
    model = AutoModel.from_pretrained(setup.model, add_pooling_layer=False).eval()
    run = torch.compile(model, dynamic=True) if setup.variant == COMPILED else model

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=setup.max_tokens, return_tensors="pt")
        with torch.inference_mode():
            hidden = run(**tokens).last_hidden_state  # (batch, tokens, hidden)
            mask = tokens["attention_mask"].unsqueeze(-1)  # (batch, tokens, 1)
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)  # (batch, hidden)
            vectors: NDArray[np.float32] = torch.nn.functional.normalize(mean).numpy()
        return vectors

    return Loaded(in_batches(encode), torch.get_num_threads(), ("torch", "transformers", "tokenizers", "numpy"))
