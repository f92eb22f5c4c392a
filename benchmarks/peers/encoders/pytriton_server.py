"""pytriton: transformers with torch behind a Triton server on this machine, asked over gRPC."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytriton.client import ModelClient
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers.encoders import transformers_torch
from benchmarks.peers.encoders.ports import HOST, free_ports
from benchmarks.peers.setup import BATCH, ITEMS_FILE, Loaded, Setup, in_batches

NAME, TIMEOUT_S = "encoder", 60.0


def load(setup: Setup) -> Loaded:
    """variant: not read."""
    model = transformers_torch.load(setup)
    assert model.encode is not None
    read = model.encode

    @batch  # type: ignore[untyped-decorator]  # pytriton need not be installed
    def infer(text: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return {"vector": read([row[0].decode() for row in text])}

    # Its python backend takes the first libpython that the loader finds, and must have the one of this interpreter.
    library = str(sysconfig.get_config_var("LIBDIR"))
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [library, os.environ.get("LD_LIBRARY_PATH")]))
    hidden = int(np.load(f"{setup.material}/{ITEMS_FILE}", mmap_mode="r", allow_pickle=False).shape[1])
    http, grpc, metrics = free_ports(3)
    config = TritonConfig(
        http_address=HOST, grpc_address=HOST, metrics_address=HOST, http_port=http, grpc_port=grpc, metrics_port=metrics
    )
    server = Triton(config=config)
    server.bind(
        model_name=NAME,
        infer_func=infer,
        inputs=[Tensor(name="text", dtype=bytes, shape=(1,))],
        outputs=[Tensor(name="vector", dtype=np.float32, shape=(hidden,))],
        config=ModelConfig(max_batch_size=BATCH),
    )
    server.run()
    client = ModelClient(f"grpc://{HOST}:{grpc}", NAME, init_timeout_s=TIMEOUT_S, inference_timeout_s=TIMEOUT_S)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        asked = np.asarray([[text.encode()] for text in texts], object)  # (batch, 1)
        return np.asarray(client.infer_batch(text=asked)["vector"], np.float32)

    return Loaded(in_batches(encode), torch.get_num_threads(), ("nvidia-pytriton", "torch", "transformers", "numpy"))
