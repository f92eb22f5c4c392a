"""A tiny but real bundle, made in a second: a randomly initialised BERT, a checkerboard catalogue, real ONNX engines.

Item number i is described by its own two words and by nothing else, so a text that uses them has a known right answer. Its other
signals are weaker: the graph joins it to its two words; whoever chose it chose the items i ± 7 as well; lower numbers are more
popular. It costs 10 · (i + 1), but for the last, which has no price. By the vectors for diversity, 2j and 2j + 1 are alike.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from bertrec.bundle import (
    CATALOGUE_FILE,
    ITEM_LEXICAL_FILE,
    ITEM_TEXT_FILE,
    SIGNALS_FOLDER,
    TOKENIZER_FILE,
    EngineRecord,
    Manifest,
    seal,
)
from bertrec.catalogue import Catalogue, CatalogueItem
from bertrec.confidence import CONFIDENCE, Confidence
from bertrec.fusion import Gates, Signals
from bertrec.graph import DECLARED, Entity, GraphSignal
from bertrec.history import BehaviourSignal
from bertrec.labels import SENTIMENT, SENTIMENTS, Head, Labels
from bertrec.matching import Matching
from bertrec.rules import RULES_FILE
from bertrec.signals import LexicalSignal, analyse
from bertrec.spelling import SpellingCorrector
from bertrec.tensors import MAX_K, SIGNALS
from export.encoder import export_plain, fuse
from export.heads import export_heads
from export.matcher import export_matcher
from export.precision import shrink_embeddings
from export.quantise import quantise_dynamic
from export.ranker import export_ranker
from train.encoder import Encoder
from train.heads.network import Heads, layers
from train.matcher import Matcher

WORDS = (
    "amber bronze cobalt denim ebony fuchsia green hazel indigo jade khaki lilac magenta navy ochre pink quartz red silver teal "
    "yellow apron blouse coat dress earring fedora gown hat jacket kilt loafer mitten nightgown overall "
    "pullover robe skirt trouser uniform vest wrap"
).split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ITEMS = len(WORDS) // 2
COMPANIONS = 7
"""Items whose numbers differ by a multiple of it are chosen by the same people."""
FABRICS = ("wool", "silk", "linen")
KNOWN = ("that", "want", "what", "wish", "long", "very", "warm", "nothing", "catalogue", "knows", "please")
"""Words of the tests' texts that are no misspelt colours or garments."""
RULES = {
    "rules": [
        {"name": "budget", "if": {"budget_below": True}, "then": {"attribute": "price", "above": "budget", "effect": "exclude"}},
    ],
    "blocklist": ["no such item"],
}


def item_text(item: int) -> str:
    """The two words that only item ``item`` is described by."""
    return f"{WORDS[item]} {WORDS[item + ITEMS]}"


def attributes(item: int) -> dict[str, str]:
    """What the catalogue says of item ``item``."""
    declared = {"colour": WORDS[item], "kind": WORDS[item + ITEMS], "fabric": f"{FABRICS[item % 3]}|{FABRICS[(item + 1) % 3]}"}
    return declared if item == ITEMS - 1 else {**declared, "price": f"${10 * (item + 1)}.00"}


def write_backbone(folder: Path) -> Path:
    """A BERT of two layers of 32 units with random weights, and a word-piece tokenizer, as save_pretrained writes them."""
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,'!?-"]
    vocabulary = [*SPECIAL, *WORDS, *letters, *[f"##{letter}" for letter in letters]]
    tokenizer = Tokenizer(models.WordPiece({word: row for row, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def write_bundle(
    folder: Path, backbone: Path, *, matcher: bool = False, heads: bool = False, confidence: Confidence | None = None
) -> Path:
    """A sealed bundle over the checkerboard catalogue, with the encoder engines fp32 and int8.

    matcher, heads: whether it has them too; their weights are random, so that what they say means nothing. confidence: when its
    answers are sure.
    """
    encoder = Encoder.load(backbone, attention="eager")
    folder.mkdir(parents=True)
    (folder / TOKENIZER_FILE).write_bytes((backbone / "tokenizer.json").read_bytes())
    items = tuple(CatalogueItem(str(item), f"Item {item}", item_text(item), attributes(item)) for item in range(ITEMS))
    Catalogue(items).save(folder / CATALOGUE_FILE)
    texts = [item.text for item in items]
    lexical = _lexical(texts)
    graph, behaviour = item_graph(), BehaviourSignal(np.eye(COMPANIONS, dtype=np.float16)[np.arange(ITEMS) % COMPANIONS])
    Signals(lexical, graph, behaviour, Gates(dict.fromkeys(SIGNALS, 0.0))).save(folder / SIGNALS_FOLDER)
    SpellingCorrector({**dict.fromkeys(KNOWN, 0), **dict.fromkeys(WORDS, 4)}).save(folder / SIGNALS_FOLDER)
    (folder / RULES_FILE).write_text(json.dumps(RULES), encoding="utf-8")
    item_lexical = lexical.vectors(texts)
    np.save(folder / SIGNALS_FOLDER / ITEM_LEXICAL_FILE, item_lexical)
    random = np.random.default_rng(0)
    alike = np.repeat(random.normal(size=((ITEMS + 1) // 2, encoder.hidden)), 2, axis=0)[:ITEMS]
    np.save(folder / SIGNALS_FOLDER / ITEM_TEXT_FILE, (alike + random.normal(size=alike.shape) / 50).astype(np.float16))
    (folder / "encoder").mkdir()
    plain, fp32, int8 = folder / "plain.onnx", folder / "encoder/fp32.onnx", folder / "encoder/int8.onnx"
    export_plain(encoder, plain)
    fuse(plain, fp32, heads=encoder.heads, hidden=encoder.hidden, layers=encoder.layers)
    quantise_dynamic(fp32, int8)
    shrink_embeddings(int8, int8)
    plain.unlink()
    sides = {
        "text": np.random.default_rng(0).normal(size=(ITEMS, encoder.hidden)).astype(np.float32) / 10,
        "lexical": 10 * item_lexical,
        "graph": graph.vectors_of(texts),
        "behaviour": 2 * behaviour.factors.astype(np.float32),
        "prior": (np.linspace(0.1, -0.1, ITEMS, dtype=np.float32) + np.float32(0.001))[:, None],
    }
    export_ranker(sides, folder / "ranker/fp32.onnx")
    extras = [*(_write_matcher(folder, backbone) if matcher else []), *(_write_heads(folder, encoder.hidden) if heads else [])]
    manifest = Manifest(
        created="2026-01-01T00:00:00+00:00",
        source_commit="unknown",
        data={"name": "checkerboard"},
        model={"backbone": "tiny", **({} if confidence is None else {CONFIDENCE: asdict(confidence)})},
        max_tokens=64,
        max_k=MAX_K,
        signals={signal: side.shape[1] for signal, side in sides.items()},
        tensors={},
        engines=(
            EngineRecord("encoder", "fp32", "encoder/fp32.onnx", "fp32", batch_invariant=True),
            EngineRecord("encoder", "int8", "encoder/int8.onnx", "int8"),
            EngineRecord("ranker", "fp32", "ranker/fp32.onnx", "fp32", batch_invariant=True),
            *extras,
        ),
    )
    seal(folder, manifest)
    return folder


def _write_matcher(folder: Path, backbone: Path) -> list[EngineRecord]:
    """A matcher that begins as the backbone, in the engines plain, for TensorRT, and fp32."""
    torch.manual_seed(1)
    bert = BertForSequenceClassification.from_pretrained(backbone, num_labels=2, attn_implementation="eager")
    for part, spread in ((bert.bert.pooler.dense, 3.0), (bert.classifier, 0.5)):
        torch.nn.init.normal_(part.weight, std=spread)  # so that probabilities differ
    network = Matcher(bert).float().eval()
    plain, fp32 = folder / "matcher/plain.onnx", folder / "matcher/fp32.onnx"
    export_matcher(network, plain)
    fuse(plain, fp32, heads=network.heads, hidden=network.hidden, layers=network.layers)
    Matching(item_tokens=8, top=5, weight=0.5, recommends=True).save(folder / "matcher")
    return [
        EngineRecord("matcher", "fp32", "matcher/fp32.onnx", "fp32", batch_invariant=True),
        EngineRecord("matcher", "plain", "matcher/plain.onnx", "fp32", batch_invariant=True),
    ]


def _write_heads(folder: Path, hidden: int) -> list[EngineRecord]:
    """Heads for the sentiment and for the fabric."""
    torch.manual_seed(2)
    labels = Labels((Head(SENTIMENT, SENTIMENTS), Head("fabric", FABRICS)))
    network = Heads([layers(hidden, len(head.labels)) for head in labels.heads])
    export_heads(network, folder / "heads/fp32.onnx", hidden=hidden)
    labels.save(folder / "heads/labels.json")
    return [EngineRecord("heads", "fp32", "heads/fp32.onnx", "fp32", batch_invariant=True)]


def _lexical(texts: list[str]) -> LexicalSignal:
    """An LSA whose latent dimensions are the terms themselves, so that every score is known beforehand."""
    terms = tuple(Counter(term for text in texts for term in analyse(text)))
    return LexicalSignal(terms, np.ones(len(terms), np.float32), np.eye(len(terms), dtype=np.float16))


def item_graph() -> GraphSignal:
    """The words as entities, each with a vector of its own, and an edge from each item to its colour and to its kind."""
    entities = tuple(Entity(word, "colour" if row < ITEMS else "kind") for row, word in enumerate(WORDS))
    edges = [(entity, 0) for item in range(ITEMS) for entity in (item, item + ITEMS)]
    return GraphSignal(
        entities=entities,
        phrases={word: row for row, word in enumerate(WORDS)},
        relations=(DECLARED,),
        vectors=np.eye(len(WORDS), dtype=np.float16),
        offsets=np.arange(0, 2 * ITEMS + 1, 2, dtype=np.int32),
        edges=np.asarray(edges, np.int32),
        weights=np.ones(len(edges), np.float16),
        links=np.zeros((0, 3), np.int32),
    )


def write_data(folder: Path, *, per_item: int = 4) -> Path:
    """A data set of the checkerboard in the user's own format: items.jsonl and interactions.jsonl."""
    folder.mkdir(parents=True)
    items = [{"item_id": str(item), "title": f"Item {item}", "colour": WORDS[item]} for item in range(ITEMS)]
    wishes = ("i want {}", "{} please", "my {} is old", "a {} for me", "{}", "the {} again")
    rows = [
        {"item_id": str(item), "text": wishes[number % len(wishes)].format(item_text(item))}
        for number in range(per_item)
        for item in range(ITEMS)
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "interactions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
