"""OpenVINO's runtime on the plain ONNX file, and what NNCF makes of it in int8.

Compiled twice: for latency, which a batch alone gets, and for throughput, where a queue keeps as many batches under way as
OpenVINO recommends. Both by the same number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from benchmarks.peers.setup import BATCH, MODEL_FILE, Encode, Loaded, Setup, mean_of_tokens

INT8 = "nncf-int8"
THREADS, HINT = "INFERENCE_NUM_THREADS", "PERFORMANCE_HINT"


def load(setup: Setup) -> Loaded:
    """variant: ``fp32`` or ``nncf-int8``."""
    tokenizer = Tokenizer.from_file(str(setup.model / "tokenizer.json"))
    tokenizer.enable_truncation(setup.max_tokens)
    tokenizer.no_padding()
    core = openvino.Core()
    model = core.read_model(setup.model / MODEL_FILE)
    packages: tuple[str, ...] = ("openvino", "tokenizers", "numpy")
    if setup.variant == INT8:
        calibration = [_tensors([read]) for read in tokenizer.encode_batch_fast(setup.calibration)]
        model, packages = _quantised(core, model, calibration, setup), (*packages, "nncf")
    latency, throughput = (
        core.compile_model(model, "CPU", {THREADS: setup.threads, HINT: hint}) for hint in ("LATENCY", "THROUGHPUT")
    )
    threads = max(int(compiled.get_property(THREADS)) for compiled in (latency, throughput))
    return Loaded(_encode(tokenizer, latency, throughput), threads, packages)


def _encode(tokenizer: Tokenizer, latency: Any, throughput: Any) -> Encode:  # noqa: ANN401  # compiled models
    request, queue = latency.create_infer_request(), openvino.AsyncInferQueue(throughput)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        read = tokenizer.encode_batch_fast(list(texts))
        if len(read) <= BATCH:
            inputs = _tensors(read)
            (hidden,) = request.infer(inputs).values()  # (batch, tokens, hidden)
            return mean_of_tokens(hidden, inputs["attention_mask"])
        order = sorted(range(len(read)), key=lambda row: -len(read[row].ids))
        vectors: list[Any] = [None] * -(-len(read) // BATCH)  # of each batch (batch, hidden)

        def keep(done: Any, given: tuple[int, NDArray[np.int64]]) -> None:  # noqa: ANN401  # an InferRequest
            batch, mask = given
            vectors[batch] = mean_of_tokens(done.get_output_tensor(0).data, mask)

        queue.set_callback(keep)
        for batch in range(len(vectors)):
            inputs = _tensors([read[row] for row in order[batch * BATCH : (batch + 1) * BATCH]])
            queue.start_async(inputs, (batch, inputs["attention_mask"]))
        queue.wait_all()
        return np.asarray(np.concatenate(vectors)[np.argsort(order)], np.float32)

    return encode


def _tensors(read: Sequence[Encoding]) -> dict[str, NDArray[np.int64]]:
    """(batch, tokens) ids and mask, as long as the longest."""
    ids = np.zeros((len(read), max(len(one.ids) for one in read)), np.int64)
    mask = np.zeros_like(ids)
    for row, one in enumerate(read):
        ids[row, : len(one.ids)], mask[row, : len(one.ids)] = one.ids, 1
    return {"input_ids": ids, "attention_mask": mask}


def _quantised(core: Any, model: Any, calibration: list[dict[str, NDArray[np.int64]]], setup: Setup) -> Any:  # noqa: ANN401
    import nncf

    file = Path(setup.own) / "int8.xml"
    if not file.is_file():
        dataset = nncf.Dataset(calibration)
        quantised = nncf.quantize(model, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration))
        openvino.save_model(quantised, file, compress_to_fp16=False)
    return core.read_model(file)
