"""Hidden states of the frozen lower layers, computed once and kept, and encoding of whole lists of texts.

Texts are sorted by length within chunks, so that a batch is padded little.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bertrec.text import TextTokenizer, Tokens
from train.encoder import Encoder
from train.precision import Precision, autocast
from train.progress import progress
from train.team import ALONE, Team

BATCH = 32
CACHE_LIMIT_BYTES = 6_000_000_000
"""Beyond this the frozen layers are computed anew in every pass: slower, and it fits."""


@dataclass(frozen=True)
class FrozenStates:
    """What the frozen layers make of each text: its states (tokens, hidden), one text after another, in half precision."""

    tokens: Sequence[Tokens]
    frozen_layers: int
    states: NDArray[np.float16] | None  # (all tokens, hidden); None: too large to keep
    offsets: NDArray[np.int64]  # (texts + 1,)
    zero_shot: NDArray[np.float32]  # (texts, hidden): the pre-trained encoder's vectors
    done: NDArray[np.bool_]  # (texts,): False where the time did not suffice

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(texts,) tokens of each text."""
        return np.diff(self.offsets)

    def batch(self, rows: NDArray[np.int64], encoder: Encoder) -> tuple[Tensor, Tensor]:
        """(batch, tokens, hidden) float32 states and (batch, tokens) mask of some texts."""
        if self.states is None:
            input_ids, mask = _padded_on(encoder, [self.tokens[row].ids for row in rows])
            with torch.no_grad():
                return encoder.lower(input_ids, mask, self.frozen_layers), mask
        lengths = self.lengths[rows]
        hidden = torch.zeros(len(rows), int(lengths.max()), self.states.shape[1])
        mask = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
        for position, (row, length) in enumerate(zip(rows.tolist(), lengths.tolist(), strict=True)):
            first = self.offsets[row]
            hidden[position, :length] = torch.from_numpy(self.states[first : first + length])
            mask[position, :length] = 1
        return hidden.to(encoder.device), mask.to(encoder.device)


def compute_states(
    encoder: Encoder,
    tokens: Sequence[Tokens],
    *,
    trained_layers: int,
    seed: int,
    deadline: float | None = None,
    precision: Precision = Precision.FP32,
    team: Team = ALONE,
) -> FrozenStates:
    """Run the pre-trained encoder over every text, keeping the states below its ``trained_layers`` upper layers.

    deadline: ``time.monotonic()`` at which to stop; the texts left then, drawn at random by ``seed``, are not ``done``.
    precision: of its matrix products.
    Each process of a team reads its share, and all have all of it in the end.
    """
    frozen_layers = max(encoder.layers - trained_layers, 0)
    lengths = np.asarray([len(text.ids) for text in tokens], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    size_bytes = int(offsets[-1]) * encoder.hidden * 2
    states = np.zeros((offsets[-1], encoder.hidden), np.float16) if size_bytes * team.size <= CACHE_LIMIT_BYTES else None
    zero_shot = np.zeros((len(tokens), encoder.hidden), np.float32)
    done = np.zeros(len(tokens), bool)
    encoder.eval()
    with progress("reading texts with the frozen layers", len(tokens)) as advance, torch.inference_mode():
        batches = list(length_sorted_batches(lengths, BATCH, np.random.default_rng(seed)))
        for rows in batches[team.rank :: team.size]:
            if deadline is not None and time.monotonic() > deadline:
                break
            input_ids, mask = _padded_on(encoder, [tokens[row].ids for row in rows])
            with autocast(precision, encoder.device):
                hidden = encoder.lower(input_ids, mask, frozen_layers)  # (batch, tokens, hidden)
                zero_shot[rows] = encoder.upper(hidden, mask, frozen_layers).float().cpu().numpy()
            if states is not None:
                for row, text in zip(rows.tolist(), hidden.cpu(), strict=True):
                    states[offsets[row] : offsets[row + 1]] = text[: lengths[row]].float().numpy()
            done[rows] = True
            advance(team.size * len(rows))
    read = done.astype(np.uint8)
    team.join(read)
    team.join(zero_shot)
    if states is not None:
        team.join(states)
    return FrozenStates(tokens, frozen_layers, states, offsets, zero_shot, read.astype(bool))


def encode_states(encoder: Encoder, states: FrozenStates, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(rows, hidden) float32: the interest vectors of some of the texts, by the encoder as it is now."""
    vectors = np.zeros((len(rows), encoder.hidden), np.float32)
    encoder.eval()
    with progress("encoding", len(rows)) as advance, torch.inference_mode():
        for positions in length_sorted_batches(states.lengths[rows], BATCH):
            hidden, mask = states.batch(rows[positions], encoder)
            vectors[positions] = encoder.upper(hidden, mask, states.frozen_layers).cpu().numpy()
            advance(len(positions))
    return vectors


def encode_texts(network: nn.Module, tokenizer: TextTokenizer, texts: Sequence[str], label: str) -> NDArray[np.float32]:
    """(texts, hidden) float32: the interest vectors of cleaned texts."""
    return encode_tokens(network, tokenizer.tokenise(texts), label)


def encode_tokens(network: nn.Module, tokens: Sequence[Tokens], label: str) -> NDArray[np.float32]:
    """(texts, hidden) float32: what a network makes of token ids, be it an encoder or a student."""
    lengths = np.asarray([len(text.ids) for text in tokens], np.int64)
    vectors = np.zeros((len(tokens), int(network.hidden)), np.float32)  # type: ignore[arg-type]  # of every network here
    network.eval()
    with progress(label, len(tokens)) as advance, torch.inference_mode():
        for rows in length_sorted_batches(lengths, BATCH):
            vectors[rows] = network(*padded([tokens[row].ids for row in rows])).float().numpy()
            advance(len(rows))
    return vectors


def length_sorted_batches(
    lengths: NDArray[np.int64], size: int, random: np.random.Generator | None = None
) -> Iterator[NDArray[np.int64]]:
    """Rows in batches of similar length: all sorted, or, with ``random``, shuffled and sorted within chunks of 32 batches."""
    if random is None:
        order = np.argsort(lengths, kind="stable")
        yield from np.split(order, range(size, len(order), size)) if len(order) else []
        return
    order = random.permutation(len(lengths))
    for start in range(0, len(order), 32 * size):
        chunk = order[start : start + 32 * size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches = np.split(chunk, range(size, len(chunk), size))
        for batch in random.permutation(len(batches)):
            yield batches[batch]


def shuffled_batches(rows: NDArray[np.int64], size: int, epochs: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """The rows in batches, in another order in every epoch."""
    for _ in range(epochs):
        order = rows[random.permutation(len(rows))]
        yield from np.split(order, range(size, len(order), size)) if len(order) else []


def _padded_on(encoder: Encoder, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The same as :func:`padded`, where the encoder is."""
    input_ids, mask = padded(ids)
    return input_ids.to(encoder.device), mask.to(encoder.device)


def padded(ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(batch, tokens) int64 ids and mask, padded to the longest."""
    longest = max(len(text) for text in ids)
    input_ids = torch.zeros(len(ids), longest, dtype=torch.int64)
    mask = torch.zeros(len(ids), longest, dtype=torch.int64)
    for row, text in enumerate(ids):
        input_ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return input_ids, mask
