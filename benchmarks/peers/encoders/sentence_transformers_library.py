"""sentence-transformers: torch, its ONNX and OpenVINO backends, and what it optimises and quantises itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from benchmarks.peers.setup import BATCH, Loaded, Setup

PACKAGES = ("sentence-transformers", "torch", "transformers", "numpy")


def load(setup: Setup) -> Loaded:
    """variant: ``torch``, ``onnx``, ``onnx-O3``, ``onnx-O4``, ``onnx-int8``, ``openvino`` or ``openvino-int8``."""
    torch.set_num_threads(setup.threads)
    backend, _, optimised = setup.variant.partition("-")
    packages: tuple[str, ...]
    if backend == "onnx":
        model, packages = _onnx(setup.copy(), optimised, setup.threads), (*PACKAGES, "onnxruntime", "optimum-onnx")
    elif backend == "openvino":
        model, packages = _openvino(setup, optimised), (*PACKAGES, "openvino", "optimum-intel", "nncf")
    else:
        model, packages = SentenceTransformer(str(setup.model), device="cpu"), PACKAGES

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(model.encode(list(texts), batch_size=BATCH, show_progress_bar=False), np.float32)

    return Loaded(encode, torch.get_num_threads() if backend == "torch" else setup.threads, packages)


def _onnx(folder: Path, optimised: str, threads: int) -> SentenceTransformer:
    import onnxruntime
    from sentence_transformers import export_dynamic_quantized_onnx_model, export_optimized_onnx_model

    def opened(file: str | None) -> SentenceTransformer:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        given: dict[str, Any] = {"provider": "CPUExecutionProvider", "session_options": options}
        given |= {"export": True} if file is None else {"file_name": f"onnx/{file}"}
        return SentenceTransformer(str(folder), backend="onnx", model_kwargs=given, device="cpu")

    if not (folder / "onnx/model.onnx").is_file():
        opened(None).save_pretrained(str(folder))
    if not optimised:
        return opened("model.onnx")
    file = "model_qint8_avx2.onnx" if optimised == "int8" else f"model_{optimised}.onnx"
    if not (folder / "onnx" / file).is_file():
        if optimised == "int8":
            export_dynamic_quantized_onnx_model(opened("model.onnx"), "avx2", str(folder), file_suffix="qint8_avx2")
        else:
            export_optimized_onnx_model(opened("model.onnx"), optimised, str(folder), file_suffix=optimised)
    return opened(file)


def _openvino(setup: Setup, optimised: str) -> SentenceTransformer:
    folder = setup.copy()

    def opened(file: str | None) -> SentenceTransformer:
        given: dict[str, Any] = {"ov_config": {"INFERENCE_NUM_THREADS": setup.threads, "PERFORMANCE_HINT": "LATENCY"}}
        given |= {"export": True} if file is None else {"file_name": f"openvino/{file}"}
        return SentenceTransformer(str(folder), backend="openvino", model_kwargs=given, device="cpu")

    if not (folder / "openvino/openvino_model.xml").is_file():
        opened(None).save_pretrained(str(folder))
    if not optimised:
        return opened("openvino_model.xml")
    if not (folder / "openvino/openvino_model_int8.xml").is_file():
        _quantise_openvino(opened("openvino_model.xml").tokenizer, setup, folder / "openvino")
    return opened("openvino_model_int8.xml")


def _quantise_openvino(tokenizer: Any, setup: Setup, folder: Path) -> None:  # noqa: ANN401  # of transformers
    """What export_static_quantized_openvino_model does, by NNCF itself: that would fetch its texts from a hub."""
    import nncf
    import openvino

    model = openvino.Core().read_model(folder / "openvino_model.xml")
    names = {name for one in model.inputs for name in one.get_names()}
    read = [tokenizer(text, truncation=True, max_length=setup.max_tokens, return_tensors="np") for text in setup.calibration]
    samples = nncf.Dataset([{name: np.asarray(value, np.int64) for name, value in one.items() if name in names} for one in read])
    quantised = nncf.quantize(model, samples, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(read))
    openvino.save_model(quantised, folder / "openvino_model_int8.xml", compress_to_fp16=False)
