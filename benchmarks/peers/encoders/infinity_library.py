"""infinity-emb in this process: its batching engine without its HTTP server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import numpy as np
import torch
from infinity_emb import AsyncEmbeddingEngine, EngineArgs
from numpy.typing import NDArray

from benchmarks.peers.setup import BATCH, MODEL_FILE, Loaded, Setup


def load(setup: Setup) -> Loaded:
    """variant: the engine, ``torch`` or ``optimum``."""
    torch.set_num_threads(setup.threads)
    os.chdir(setup.model)  # its optimum engine takes the name of a file relative to the working folder for one in the model's
    arguments = EngineArgs(
        model_name_or_path=".",
        engine=setup.variant,
        device="cpu",
        batch_size=BATCH,
        bettertransformer=False,
        pooling_method="mean",
        model_warmup=False,
        lengths_via_tokenize=False,
    )
    threads = _default_threads(setup) if setup.variant == "optimum" else torch.get_num_threads()
    engine = AsyncEmbeddingEngine.from_args(arguments)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine.astart())

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors, _ = loop.run_until_complete(engine.embed(sentences=list(texts)))
        return np.asarray(vectors, np.float32)

    if setup.variant == "optimum":
        for (
            replica
        ) in engine._model_replicas:  # it would read as far as there are positions, whatever the tokenizer's folder says
            replica.config.max_position_embeddings = setup.max_tokens
        return Loaded(encode, threads, ("infinity-emb", "optimum-onnx", "onnxruntime", "numpy"))
    return Loaded(encode, threads, ("infinity-emb", "torch", "transformers", "numpy"))


def _default_threads(setup: Setup) -> int:
    """What ONNX Runtime takes where, as by infinity, it is told nothing: the threads that a session starts, and the caller."""
    import onnxruntime

    before = len(os.listdir("/proc/self/task"))
    session = onnxruntime.InferenceSession(str(setup.model / MODEL_FILE), providers=["CPUExecutionProvider"])
    started = len(os.listdir("/proc/self/task")) - before
    del session
    return 1 + started
