"""bertrec itself: an encoder engine of a bundle, or the whole fused pipeline as the edge serves it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.setup import TOP, Loaded, Setup
from bertrec.answers import Options
from bertrec.bundle import Bundle
from bertrec.encoding import TextEncoder
from bertrec.engine import OnnxEngine
from bertrec.session_options import SessionOptions
from bertrec.tensors import ENCODER
from bertrec.text import clean
from client.backends.edge import EdgeBackend

PACKAGES = ("onnxruntime", "tokenizers", "numpy")
TIMEOUT_S = 600.0


def load(setup: Setup) -> Loaded:
    """variant: ``ENGINE``, or ``pipeline ENGINE`` for the fused recommender."""
    kind, _, engine = setup.variant.rpartition(" ")
    return _pipeline(setup, engine) if kind else _encoder(setup, engine)


def _encoder(setup: Setup, engine: str) -> Loaded:
    bundle = Bundle.open(setup.bundle)
    session = OnnxEngine(bundle.engine_path(ENCODER.name, engine), ENCODER, SessionOptions(setup.threads))
    encoder = TextEncoder(bundle, session.run, engine)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        return encoder.encode(encoder.tokenise([clean(text) for text in texts]))

    return Loaded(encode, setup.threads, PACKAGES)


def _pipeline(setup: Setup, engine: str) -> Loaded:
    bundle = Bundle.open(setup.bundle)
    backend = EdgeBackend(setup.bundle, engine=engine, session=SessionOptions(setup.threads))
    index = {item.item_id: row for row, item in enumerate(bundle.catalogue().items)}

    def rank(texts: Sequence[str]) -> NDArray[np.int64]:
        answers = backend.answer(list(texts), Options(k=TOP), timeout_s=TIMEOUT_S)
        return np.asarray([[index[item.item_id] for item in answer.items] for answer in answers], np.int64)

    return Loaded(None, setup.threads, PACKAGES, rank)
