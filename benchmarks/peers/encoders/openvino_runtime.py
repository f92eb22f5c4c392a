"""OpenVINO's runtime on the plain ONNX file, and what NNCF makes of it in int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.peers.setup import MODEL_FILE, Loaded, Setup, in_batches, mean_of_tokens

INT8 = "nncf-int8"


def load(setup: Setup) -> Loaded:
    """variant: ``fp32`` or ``nncf-int8``."""
    tokenizer = Tokenizer.from_file(str(setup.model / "tokenizer.json"))
    tokenizer.enable_truncation(setup.max_tokens)
    tokenizer.enable_padding()

    def tokens(texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        read = tokenizer.encode_batch(list(texts))
        ids = np.asarray([one.ids for one in read], np.int64)  # (batch, tokens)
        return {"input_ids": ids, "attention_mask": np.asarray([one.attention_mask for one in read], np.int64)}

    core = openvino.Core()
    model = core.read_model(setup.model / MODEL_FILE)
    packages: tuple[str, ...] = ("openvino", "tokenizers", "numpy")
    if setup.variant == INT8:
        model, packages = _quantised(core, model, [tokens([text]) for text in setup.calibration], setup), (*packages, "nncf")
    compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": setup.threads, "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        inputs = tokens(texts)
        (hidden,) = request.infer(inputs).values()  # (batch, tokens, hidden)
        return mean_of_tokens(hidden, inputs["attention_mask"])

    return Loaded(in_batches(encode), int(compiled.get_property("INFERENCE_NUM_THREADS")), packages)


def _quantised(core: Any, model: Any, calibration: list[dict[str, NDArray[np.int64]]], setup: Setup) -> Any:  # noqa: ANN401
    import nncf

    file = Path(setup.own) / "int8.xml"
    if not file.is_file():
        dataset = nncf.Dataset(calibration)
        quantised = nncf.quantize(model, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration))
        openvino.save_model(quantised, file, compress_to_fp16=False)
    return core.read_model(file)
