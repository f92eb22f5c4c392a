"""A BERT tokenizer as an ONNX graph: onnxruntime-extensions' operator behind a normalisation that makes its tokens ours.

The operator ``BertTokenizer`` differs from tokenizer.json in three ways: it lower-cases and strips accents by tables of its own,
it drops other characters, and of a word with a character that no token has ("coat🧥") it keeps the tokens before that character,
where WordPiece makes the whole word one [UNK] (Devlin et al., 2019, https://arxiv.org/abs/1810.04805). So its own normalisation
is switched off, and every character is replaced first by what the normaliser of tokenizer.json makes of it, which is asked
character by character when the graph is written. What remains is said in docs/onefile.md.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from bertrec.errors import InvalidInput
from bertrec.tensors import ATTENTION_MASK, INPUT_IDS

log = logging.getLogger(__name__)

DOMAIN = "ai.onnx.contrib"
"""The operators of onnxruntime-extensions, https://github.com/microsoft/onnxruntime-extensions/blob/main/docs/custom_ops.md."""
LONGEST_WORD = 100
"""Characters: the operator makes a longer word [UNK], and so must the tokenizer."""

_REMOVED, _UNKNOWN = "\ue000", "\uffff"
"""Stand for a character that the normaliser drops, and for one that no token has. Neither can be in a normalised text."""
_PRIVATE = r"[\x{E000}-\x{F8FF}\x{F0000}-\x{10FFFF}]+"
_FIRST_OF_FAR = 0x3400
"""Below it lie the alphabets, which are mapped character by character; beyond are mostly characters that no token has."""
_LAST = 0x2FFFF
_NOT_CHARACTERS = {*range(0xD800, 0xF900), *(ord(space) for space in "\0\t\n\r")}
"""Surrogates, private use, and what the operators' own format cannot hold; white space among them becomes a space."""


@dataclass(frozen=True)
class WordPieces:
    """What the graph needs of a tokenizer.json.

    tokens: in the order of their ids. first, last: the ids around every text, [CLS] and [SEP]. unknown: [UNK]. chinese: whether
    Chinese characters are words of their own.
    """

    tokenizer: Tokenizer
    tokens: tuple[str, ...]
    first: int
    last: int
    unknown: str
    lowercase: bool
    chinese: bool

    @classmethod
    def read(cls, path: Path) -> WordPieces:
        """Raises InvalidInput for a tokenizer that is not BERT's WordPiece."""
        state = json.loads(path.read_text(encoding="utf-8"))
        model, normaliser = state["model"], state.get("normalizer") or {}
        kinds = (model.get("type"), normaliser.get("type"), (state.get("pre_tokenizer") or {}).get("type"))
        if kinds != ("WordPiece", "BertNormalizer", "BertPreTokenizer"):
            raise InvalidInput(f"{path} has {kinds}; a one-file recommender takes WordPiece, BertNormalizer, BertPreTokenizer")
        tokens = tuple(sorted(model["vocab"], key=model["vocab"].__getitem__))
        if [model["vocab"][token] for token in tokens] != list(range(len(tokens))):
            raise InvalidInput(f"the ids of {path} are not 0 to {len(tokens) - 1}; a one-file recommender takes ids without gaps")
        if (model["max_input_chars_per_word"], model["continuing_subword_prefix"]) != (LONGEST_WORD, "##"):
            raise InvalidInput(
                f"{path} cuts words in another way; accepted are words of {LONGEST_WORD} characters and the prefix ##"
            )
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        around = tokenizer.encode("").ids
        if len(around) != 2:
            raise InvalidInput(f"{path} puts {len(around)} tokens around a text; accepted are two, such as [CLS] and [SEP]")
        first, last = around
        chinese = normaliser["handle_chinese_chars"]
        return cls(tokenizer, tokens, first, last, model["unk_token"], normaliser["lowercase"], chinese)


@dataclass(frozen=True)
class Normalisation:
    """What is done to a text before the operator cuts it.

    characters: a character → what takes its place. unknown_words: a regular expression (RE2) for the words that no token fits.
    """

    characters: dict[str, str]
    unknown_words: str


def tokenizer_graph(
    path: Path, max_tokens: int, *, text: str, opset: int, ir_version: int, normalise: bool = True
) -> onnx.ModelProto:
    """The tokenizer.json at ``path`` as a graph: ``text`` (1,) string → input_ids and attention_mask, (1, tokens) int64.

    A text of more than ``max_tokens`` tokens is cut, and ends with [SEP] as every text does. normalise: False leaves the operator
    to itself, to measure what the normalisation is good for. Raises InvalidInput for a tokenizer that is not BERT's WordPiece.
    """
    pieces = WordPieces.read(path)
    nodes, constants = _normalising(normalisation(pieces), text) if normalise else ([], [])
    settings: dict[str, Any] = {
        "vocab_file": "\n".join(pieces.tokens),
        "do_lower_case": int(pieces.lowercase and not normalise),
        "strip_accents": 0,
        "tokenize_chinese_chars": int(pieces.chinese),
        "unk_token": pieces.unknown,
        "cls_token": pieces.tokens[pieces.first],
        "sep_token": pieces.tokens[pieces.last],
    }
    outputs = ["every_id", "every_type", "every_mask", "every_offset"]
    nodes.append(helper.make_node("BertTokenizer", ["normal" if normalise else text], outputs, domain=DOMAIN, **settings))
    cutting, numbers = _cutting(max_tokens, pieces.last)
    graph = helper.make_graph(
        [*nodes, *cutting],
        "tokenizer",
        [helper.make_tensor_value_info(text, TensorProto.STRING, [1])],
        [helper.make_tensor_value_info(one.name, TensorProto.INT64, [1, "tokens"]) for one in (INPUT_IDS, ATTENTION_MASK)],
        [*constants, *numbers],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def normalisation(pieces: WordPieces) -> Normalisation:
    """Ask the tokenizer's normaliser, and the characters of its tokens, for what the graph must do."""
    normaliser, isolated = pieces.tokenizer.normalizer, _Isolated(pieces.tokenizer)
    found = [token for token in pieces.tokens if isolated.can_be_found(token.removeprefix("##") or token)]
    known = {" "}.union(*(token.removeprefix("##") or token for token in found))
    if halves := [one for one in sorted(known - {" "}) if not isolated[one] and not {one, f"##{one}"}.issubset(found)]:
        log.warning("words with %s, which no token is alone or no token continues, may be cut differently in one file", halves)
    characters: dict[str, str] = {}
    chinese: list[int] = []
    for code in range(1, _LAST + 1):
        if code in _NOT_CHARACTERS:
            continue
        character = chr(code)
        normal = normaliser.normalize_str(character)
        if normal == f" {character} ":
            chinese.append(code)  # the operator puts spaces around them as well
        elif normal != character or code < _FIRST_OF_FAR or isolated[character]:
            replacement = "".join(_written(one, known, isolated) for one in normal) or _REMOVED
            if replacement != character:
                characters[character] = replacement
    far = sorted({ord(one) for one in known if ord(one) >= _FIRST_OF_FAR} | set(chinese))
    words = f"[^ {_ranges(chinese)}]*" if chinese else "[^ ]*"
    unknown = f"[^\\x{{0}}-\\x{{{_FIRST_OF_FAR - 1:X}}}{_ranges(far)}]"
    return Normalisation(characters, words + unknown + words)


class _Isolated(dict[str, bool]):
    """Whether the tokenizer makes a character a word of its own, such as punctuation."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._cut = tokenizer.pre_tokenizer.pre_tokenize_str

    def can_be_found(self, piece: str) -> bool:
        """Whether a word can hold a piece: [MASK] is cut at its brackets, and so its letters are not known for it."""
        return len(piece) == 1 or not any(self[character] for character in piece)

    def __missing__(self, character: str) -> bool:
        self[character] = not character.isspace() and len(self._cut(f"a{character}b")) > 1
        return self[character]


def _written(character: str, known: set[str], isolated: _Isolated) -> str:
    """How one character of a normalised text is handed to the operator."""
    if isolated[character]:
        return f" {character} "
    return character if character in known or ord(character) >= _FIRST_OF_FAR else _UNKNOWN


def _normalising(rules: Normalisation, text: str) -> tuple[list[NodeProto], list[TensorProto]]:
    """The text (1,) → normal (1,), both strings."""
    table = "\n".join(f"{character}\t{replacement}" for character, replacement in rules.characters.items())
    strings = {
        "spaces": r"[\t\n\r]",
        "space": " ",
        "each": "(?s)(.)",
        "nothing": "",
        "removed": _PRIVATE,
        "unknown_words": rules.unknown_words,
        "unknown": _UNKNOWN,
    }
    steps = [
        ("StringRegexReplace", [text, "spaces", "space"], ["one_line"], {}),
        ("StringRegexSplitWithOffsets", ["one_line", "each", "each"], ["characters", "begins", "ends", "rows"], {}),
        ("StringMapping", ["characters"], ["mapped"], {"map": table}),  # (characters,)
        ("StringJoin", ["mapped", "nothing", "axis"], ["joined"], {}),  # (1,)
        ("StringRegexReplace", ["joined", "removed", "nothing"], ["kept"], {}),
        ("StringRegexReplace", ["kept", "unknown_words", "unknown"], ["normal"], {}),
    ]
    nodes = [helper.make_node(kind, given, made, domain=DOMAIN, **settings) for kind, given, made, settings in steps]
    constants = [helper.make_tensor(name, TensorProto.STRING, [1], [value.encode()]) for name, value in strings.items()]
    return nodes, [*constants, numpy_helper.from_array(np.zeros(1, np.int64), "axis")]


def _cutting(max_tokens: int, last: int) -> tuple[list[NodeProto], list[TensorProto]]:
    """every_id (all,) → input_ids, attention_mask (1, tokens): at most ``max_tokens``, and [SEP] at the end."""
    numbers = {"start": [0], "before_last": [-1], "room": [max_tokens - 1], "last": [last], "batch": [0]}
    nodes = [
        helper.make_node("Slice", ["every_id", "start", "before_last"], ["without_last"]),
        helper.make_node("Slice", ["without_last", "start", "room"], ["begun"]),
        helper.make_node("Concat", ["begun", "last"], ["ids"], axis=0),  # (tokens,)
        helper.make_node("Unsqueeze", ["ids", "batch"], [INPUT_IDS.name]),
        helper.make_node("Shape", [INPUT_IDS.name], ["shape"]),
        helper.make_node("Expand", ["one", "shape"], [ATTENTION_MASK.name]),
    ]
    numbers["one"] = [1]
    return nodes, [numpy_helper.from_array(np.asarray(value, np.int64), name) for name, value in numbers.items()]


def _ranges(codes: Sequence[int]) -> str:
    """Code points in order, as the inside of a regular expression's character class."""
    runs: list[list[int]] = []
    for code in codes:
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join(f"\\x{{{first:X}}}-\\x{{{last:X}}}" for first, last in runs)
