"""A word-piece vocabulary cut to what a corpus uses and a fallback, and the encoder's table of embeddings with it.

Half of MiniLM's fp32 file and two fifths of its int8 one are the embeddings of 30,522 word pieces, of which the clothing reviews
use a third. What is dropped is cut into shorter pieces instead (Abdaoui et al., Load What You Need, 2020,
https://arxiv.org/abs/2010.05609). train/vocabulary.py does the same to unigram tokenizers, before training.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from bertrec.errors import InvalidInput
from bertrec.tensors import INPUT_IDS
from train.evaluate import run_dataset, run_examples
from train.lexicon import read_lexicon
from train.run import Run
from train.vocabulary import renumber_special

FREQUENT = 4_000
"""The commonest pieces of the original vocabulary, which is in that order: kept for texts to come. Of 2,265 held-out clothing
reviews 90.0 % kept all their tokens instead of 88.5 % without any, for 0.4 MB of int8. NDCG@10 by the text alone was .3674 both
times, and .3669 with the whole vocabulary."""
PREFIX, UNUSED = "##", "[unused"
POSITIONS = "position_embeddings"
"""In the names of the table, and of its scales, that has a row for each place in a text."""
_BATCH = 1_024

_SAME_VALUES = ("Cast", "Identity")
_TABLE_READERS = {"Gather": (1, 0), "EmbedLayerNormalization": (0, 2), "QEmbedLayerNormalization": (0, 2)}
"""Operator → which of its inputs are the token ids, and which is the table that they choose rows of."""
_TABLE_MAKERS = ("Cast", "DequantizeLinear", "Identity")


@dataclass(frozen=True)
class TrimmedVocabulary:
    """kept: (kept,) int64, the old ids by new id, in ascending order. tokenizer: the text of the new tokenizer.json."""

    kept: NDArray[np.int64]
    tokenizer: str


def trim_wordpiece(tokenizer: Path, texts: Iterable[str], *, frequent: int = FREQUENT, at_least: int = 1) -> TrimmedVocabulary:
    """Cut the vocabulary of a tokenizer.json to the pieces of ``texts``, every single character and the ``frequent`` commonest.

    These texts are cut into the same pieces as before; only the ids change. Word pieces are found greedily, longest first, so
    that another text can only be cut shorter where a piece of its own is gone; and a word whose characters are all pieces of
    their own, as in every BERT that was released, is never [UNK] for it.

    at_least: how often a piece must be in ``texts`` to be kept for it; above 1, some of these texts are cut shorter as well.
    Raises InvalidInput for what is not WordPiece, for a negative ``frequent`` and for ``at_least`` below 1.
    """
    state = json.loads(tokenizer.read_text(encoding="utf-8"))
    if state["model"]["type"] != "WordPiece":
        raise InvalidInput(f"{tokenizer} is {state['model']['type']}; accepted is WordPiece (train/vocabulary.py trims Unigram)")
    if frequent < 0 or at_least < 1:
        raise InvalidInput(f"frequent is {frequent} and at_least {at_least}; accepted is at least 0, and at least 1")
    vocabulary: dict[str, int] = state["model"]["vocab"]
    special = {token["id"] for token in state["added_tokens"]} | {vocabulary[state["model"]["unk_token"]]}
    always = special | _fallback(vocabulary)
    others = sorted(row for token, row in vocabulary.items() if row not in always and not token.startswith(UNUSED))
    used = [row for row, count in _counts(tokenizer, texts).items() if count >= at_least]
    kept = sorted(always.union(used, others[:frequent]))
    _renumber(state, kept)
    return TrimmedVocabulary(np.asarray(kept, np.int64), json.dumps(state, ensure_ascii=False))


def corpus_texts(run: Run) -> Iterator[str]:
    """What the users of a run may be expected to write: its training texts, all of its catalogue's words, and the lexicon."""
    dataset, lexicon = run_dataset(run), read_lexicon()
    yield from run_examples(run, dataset).train.texts
    for item in dataset.items:
        yield from (item.title, item.text, *item.attributes, *item.attributes.values())
    yield from chain.from_iterable((value, *words) for value, words in lexicon.values.items())
    for entities in lexicon.words.values():
        yield from chain.from_iterable((name, *words) for name, words in entities.items())


def trim_encoder(source: Path, output: Path, kept: Sequence[int] | NDArray[np.int64], *, positions: int | None = None) -> None:
    """Write the encoder ``source`` (ONNX, plain, fused or quantised) to ``output`` with the embeddings of the old ids ``kept``.

    Its answers to the new ids are to the bit those to the old ones. Tables that the ids choose rows of are cut; where the ids
    themselves are computed with, as in the static student's pairs, the old ones are looked up. positions: of so many tokens, the
    most that a text is cut to, the vectors are kept; all by default. Raises InvalidInput where no table is found, and for an id
    beyond its end.
    """
    model = onnx.load(str(source))
    rows = np.asarray(kept, np.int64)
    tables, elsewhere = _uses(model.graph, source)
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    size = max(known[name].dims[0] for name in tables)
    if not len(rows) or rows.min() < 0 or rows.max() >= size:
        raise InvalidInput(
            f"the ids to keep are {len(rows)} up to {rows.max(initial=-1)}; {source} has embeddings of 0 to {size - 1}"
        )
    for name in tables:
        known[name].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(known[name])[rows], name))
    for name, tensor in known.items():
        if positions is not None and POSITIONS in name and tensor.dims and tensor.dims[0] > positions:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:positions], name))
    _restore_ids(model.graph, elsewhere, rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, str(output))


def _counts(tokenizer: Path, texts: Iterable[str]) -> Counter[int]:
    """How often each id is in the texts, those around a text among them."""
    cut = Tokenizer.from_file(str(tokenizer))
    cut.no_padding()
    cut.no_truncation()
    cut.encode_special_tokens = True  # as bertrec/text.py reads
    counts, rest = Counter[int](), iter(texts)
    while batch := list(islice(rest, _BATCH)):
        for encoding in cut.encode_batch(batch):
            counts.update(encoding.ids)
    return counts


def _fallback(vocabulary: Mapping[str, int]) -> set[int]:
    """The ids of single characters at the beginning of a word and inside; and of whatever holds a character without these."""
    content = {token: token.removeprefix(PREFIX) or token for token in vocabulary if not token.startswith(UNUSED)}
    alone = {text for text in content.values() if len(text) == 1 and {text, PREFIX + text} <= vocabulary.keys()}
    return {vocabulary[token] for token, text in content.items() if len(text) == 1 or not alone.issuperset(text)}


def _renumber(state: dict[str, Any], kept: Sequence[int]) -> None:
    """Rewrite the parsed tokenizer.json for the tokens ``kept``, which are numbered anew from 0 in their old order."""
    new = {old: row for row, old in enumerate(kept)}
    model = state["model"]
    model["vocab"] = {token: new[row] for token, row in model["vocab"].items() if row in new}
    renumber_special(state, new)


def _uses(graph: GraphProto, source: Path) -> tuple[set[str], list[tuple[NodeProto, int]]]:
    """What the token ids are used for: the names of the tables that they choose rows of, and the other inputs that they are."""
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ids, tables, elsewhere = {INPUT_IDS.name}, set[str](), []
    for node in graph.node:  # in the order of computation
        places = [place for place, name in enumerate(node.input) if name in ids]
        wanted, table = _TABLE_READERS.get(node.op_type, (-1, -1))
        if places and node.op_type in _SAME_VALUES:
            ids.update(node.output)
        elif places == [wanted]:
            tables.update(_constants_of(node.input[table], makers, constants))
        elif node.op_type != "Shape":
            elsewhere += [(node, place) for place in places]
    if not tables:
        raise InvalidInput(
            f"{source} has no table that {INPUT_IDS.name} chooses rows of; accepted is an encoder engine's ONNX file"
        )
    return tables, elsewhere


def _constants_of(name: str, makers: Mapping[str, NodeProto], constants: Mapping[str, TensorProto]) -> set[str]:
    """The initialisers with a row for every token that a table is made of: itself, or its integers and their scales."""
    if name in constants:
        return {name} if constants[name].dims else set()
    maker = makers.get(name)
    if maker is None or maker.op_type not in _TABLE_MAKERS:
        raise InvalidInput(f"the embeddings {name!r} are not constant; accepted is an encoder engine's ONNX file")
    found = [_constants_of(one, makers, constants) for one in maker.input if one]
    rows = constants[next(iter(found[0]))].dims[0]
    return {one for part in found for one in part if constants[one].dims[0] == rows}


def _restore_ids(graph: GraphProto, places: Sequence[tuple[NodeProto, int]], kept: NDArray[np.int64]) -> None:
    """Give the old ids to the nodes that compute with them."""
    if not places:
        return
    for node, place in places:
        if node.input[place] != INPUT_IDS.name:
            raise InvalidInput(
                f"{node.op_type} {node.name} computes with converted token ids; trim the network before its export"
            )
        node.input[place] = "old_ids"
    graph.initializer.append(numpy_helper.from_array(kept, "kept_ids"))
    graph.node.insert(0, helper.make_node("Gather", ["kept_ids", INPUT_IDS.name], ["old_ids"], name="old_ids"))
