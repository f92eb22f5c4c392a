"""fastembed with a custom model: the fused ONNX file, as those that it ships are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from numpy.typing import NDArray

from benchmarks.peers.setup import BATCH, FUSED_FILE, ITEMS_FILE, Loaded, Setup

NAME = "local/fine-tuned"


def load(setup: Setup) -> Loaded:
    """variant: not read."""
    hidden = int(np.load(f"{setup.material}/{ITEMS_FILE}", mmap_mode="r", allow_pickle=False).shape[1])
    TextEmbedding.add_custom_model(
        model=NAME,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=NAME),
        dim=hidden,
        model_file=FUSED_FILE,
    )
    model = TextEmbedding(NAME, specific_model_path=str(setup.model), threads=setup.threads)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(list(model.embed(list(texts), batch_size=BATCH)), np.float32)

    threads = model.model.model.get_session_options().intra_op_num_threads
    return Loaded(encode, int(threads), ("fastembed", "onnxruntime", "tokenizers", "numpy"))
