"""The one-file recommender: tokenizer, encoder and text-signal ranker joined into one ONNX graph, and checked."""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from bertrec.bundle import Bundle, Runtime
from bertrec.errors import InvalidBundle, InvalidInput
from bertrec.onefile import BUNDLE_KEY, ENGINE_KEY, MAX_TOKENS_KEY, ONEFILE, OneFileRecommender
from bertrec.tensors import ATTENTION_MASK, ENCODER, INPUT_IDS, INTEREST_VECTOR, MAX_K, PRIOR, RANKER, TEXT, TEXT_SIGNAL
from bertrec.text import clean
from export.onefile_compare import ODD_TEXTS, Reference, compare, real_texts
from export.ranker import read_items
from export.tokenizer_graph import tokenizer_graph
from train.progress import say, show

log = logging.getLogger(__name__)

SCORE_TOLERANCE = 1e-3
"""Sums of 384 products in another order differ in the last digits; a token more or less moves a score by a tenth."""
(_INDEX, _ID, _SCORE) = (tensor.name for tensor in ONEFILE.outputs)


@dataclass(frozen=True)
class TextRanking:
    """The text signal and the prior with their weights worked in: score = items · interest + prior.

    items: (items, hidden) float32. prior: (items,) float32.
    """

    items: NDArray[np.float32]
    prior: NDArray[np.float32]

    @classmethod
    def read(cls, bundle: Bundle, *, popularity: float = 1.0) -> TextRanking:
        """From a bundle's ranker and gate.

        A gate that weighs by the query is made a constant: its mean over the catalogue's texts, without a history. A warning says
        so, since the ranking is then not the pipeline's for every text. Raises InvalidBundle for a bundle without a text signal.
        """
        sides = read_items(bundle.engine_path(RANKER.name, "fp32"))
        if TEXT_SIGNAL not in sides:
            raise InvalidBundle(f"{bundle.folder} has no text signal; its signals are {', '.join(sides)}")
        signals = bundle.signals()
        if any(np.any(signals.gates.weights.get(signal, 0)) for signal in (TEXT_SIGNAL, PRIOR)):
            log.warning(
                "the gate of %s weighs by the query; in one file its mean over the catalogue's texts counts", bundle.folder
            )
        texts = [item.text or item.title for item in bundle.catalogue().items]
        features = signals.features(texts, [()] * len(texts))
        weight = {signal: float(signals.gates.values(features, signal).mean()) for signal in (TEXT_SIGNAL, PRIOR)}
        items = sides[TEXT_SIGNAL].astype(np.float32) * np.float32(weight[TEXT_SIGNAL])
        prior = sides[PRIOR][:, 0] if PRIOR in sides else np.zeros(len(items))
        return cls(items, (prior * weight[PRIOR] * popularity).astype(np.float32))


def build_onefile(bundle: Bundle, engine: str, output: Path, *, popularity: float = 1.0) -> OneFileRecommender:
    """Write the recommender of one encoder engine to ``output``; returns it loaded and checked.

    popularity: how strongly the prior counts, 1 as learned. The file is written beside ``output`` and renamed once its answers to
    texts in many scripts are those of the bundle's own tokenizer, encoder and items.
    Raises InvalidInput for an engine that does not exist or is no ONNX file, for another tokenizer than BERT's, and where the
    disk does not take it; MissingDependency without onnxruntime-extensions; InvalidBundle where the answers differ.
    """
    record = bundle.engine(ENCODER.name, engine)
    if record.runtime != Runtime.ORT.value:
        raise InvalidInput(f"{record.file} is compiled for {record.runtime}; a one-file recommender takes an ONNX file")
    ranking = TextRanking.read(bundle, popularity=popularity)
    model = _joined(bundle, engine, ranking)
    partial = output.with_name(output.name + ".partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{output} cannot be written: {error}. Choose another --output") from error
    try:
        onnx.save_model(model, str(partial))
        _check(OneFileRecommender(partial), Reference(bundle, engine, ranking.items, ranking.prior))
        os.replace(partial, output)
    except OSError as error:
        raise InvalidInput(f"{output} cannot be written: {error}. Free some space or choose another --output") from error
    finally:
        partial.unlink(missing_ok=True)
    return OneFileRecommender(output)


def _joined(bundle: Bundle, engine: str, ranking: TextRanking) -> onnx.ModelProto:
    """TEXT → item_index, item_id, score."""
    encoder = onnx.load(str(bundle.engine_path(ENCODER.name, engine)))
    versions = {one.domain: one.version for one in encoder.opset_import}
    same = {"opset": versions[""], "ir_version": encoder.ir_version}
    tokenizer_file = bundle.folder / bundle.engine(ENCODER.name, engine).tokenizer
    tokenizer = tokenizer_graph(tokenizer_file, bundle.manifest.max_tokens, text=TEXT.name, **same)
    item_ids = [item.item_id for item in bundle.catalogue().items]
    if ranking.items.shape[0] != len(item_ids):
        raise InvalidBundle(f"{bundle.folder} has {len(item_ids)} items and {ranking.items.shape[0]} item vectors")
    ranker = _ranker(ranking, item_ids, **same)
    parts = [
        compose.add_prefix(tokenizer, "tokenizer/", rename_inputs=False),
        compose.add_prefix(encoder, "encoder/"),
        compose.add_prefix(ranker, "ranker/", rename_outputs=False),
    ]
    ids = [(f"tokenizer/{tensor.name}", f"encoder/{tensor.name}") for tensor in (INPUT_IDS, ATTENTION_MASK)]
    encoding = compose.merge_models(parts[0], parts[1], io_map=ids)
    vector = (f"encoder/{INTEREST_VECTOR.name}", f"ranker/{INTEREST_VECTOR.name}")
    model = compose.merge_models(encoding, parts[2], io_map=[vector], name=ONEFILE.name)
    model.producer_name = "bertrec"
    helper.set_model_props(
        model, {BUNDLE_KEY: bundle.fingerprint, ENGINE_KEY: engine, MAX_TOKENS_KEY: str(bundle.manifest.max_tokens)}
    )
    onnx.checker.check_model(model)
    return model


def _ranker(ranking: TextRanking, item_ids: list[str], *, opset: int, ir_version: int) -> onnx.ModelProto:
    """interest_vector (1, hidden) → the best candidates."""
    count = min(MAX_K, len(item_ids))
    nodes = [
        helper.make_node("Gemm", [INTEREST_VECTOR.name, "items", "prior"], ["scores"], transB=1),  # (1, items)
        helper.make_node("TopK", ["scores", "count"], ["best", "places"], axis=-1, largest=1, sorted=1),  # (1, candidates)
        helper.make_node("Squeeze", ["places", "batch"], [_INDEX]),
        helper.make_node("Gather", ["item_ids", _INDEX], [_ID]),
        helper.make_node("Squeeze", ["best", "batch"], [_SCORE]),
    ]
    types = {_INDEX: TensorProto.INT64, _ID: TensorProto.STRING, _SCORE: TensorProto.FLOAT}
    constants = [
        numpy_helper.from_array(ranking.items, "items"),
        numpy_helper.from_array(ranking.prior, "prior"),
        helper.make_tensor("item_ids", TensorProto.STRING, [len(item_ids)], [item_id.encode() for item_id in item_ids]),
        numpy_helper.from_array(np.asarray([count], np.int64), "count"),
        numpy_helper.from_array(np.asarray([0], np.int64), "batch"),
    ]
    graph = helper.make_graph(
        nodes,
        "ranker",
        [helper.make_tensor_value_info(INTEREST_VECTOR.name, TensorProto.FLOAT, [1, ranking.items.shape[1]])],
        [helper.make_tensor_value_info(name, kind, [count]) for name, kind in types.items()],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def _check(recommender: OneFileRecommender, reference: Reference) -> None:
    """Raises InvalidBundle where the file gives an item another score than the bundle's parts do, or misses a better one."""
    for text in map(clean, ODD_TEXTS):
        scores = reference.scores(reference.tokens(text))  # (items,)
        found = recommender.recommend(text, recommender.max_k)
        wanted = np.sort(scores)[::-1][: len(found)]
        given = np.asarray([item.score for item in found])
        own = scores[[item.index for item in found]]
        if (difference := max(np.abs(given - wanted).max(), np.abs(given - own).max())) > SCORE_TOLERANCE:
            raise InvalidBundle(f"the joined graph answers {text[:40]!r} differently: scores differ by {difference:.3g}")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``onefile``."""
    parser = commands.add_parser(
        "onefile", help="text in, ids and scores out: tokenizer, encoder and text ranker in one ONNX file"
    )
    parser.add_argument("--bundle", required=True, type=Path, metavar="bundles/NAME")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.onnx")
    parser.add_argument("--engine", default="fp32", help="the encoder engine to put in; default %(default)s")
    parser.add_argument("--popularity", default=1.0, type=float, help="how strongly the prior counts; default %(default)s")
    parser.add_argument("--compare", default=0, type=int, metavar="N", help="hold the answers to N texts against the bundle's")
    parser.add_argument("--data", help="the data set or folder that --compare reads; by default the one that was trained on")


def run(given: argparse.Namespace) -> int:
    """Run the command ``onefile``."""
    bundle = Bundle.open(given.bundle)
    recommender = build_onefile(bundle, given.engine, given.output, popularity=given.popularity)
    size_mb = given.output.stat().st_size / 1e6
    say(f"written to {given.output}: {size_mb:.1f} MB, engine {given.engine}, bundle {bundle.fingerprint}")
    if given.compare:
        ranking = TextRanking.read(bundle, popularity=given.popularity)
        reference = Reference(bundle, given.engine, ranking.items, ranking.prior)
        source = str(given.data or bundle.manifest.data["name"])
        for title, texts in ((source, real_texts(source, given.compare)), ("odd texts", [clean(text) for text in ODD_TEXTS])):
            found = compare(recommender, reference, texts)
            show(found.table(title))
            say(f"the operator alone differs on: {found.named_causes() or 'nothing'}")
            say(f"differing although normalised: {[text[:60] for text in found.differing[:5]] or 'none'}")
    return 0
