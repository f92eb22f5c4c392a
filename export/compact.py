"""A bundle's parts in less space, for the edge: int8 matrices, fewer terms and dimensions, and nothing that only an export reads.

What is cut is chosen by how much the scores would change, over texts as the bundle itself tells of them: idf says what share of
the texts has a term, and terms are taken to come independently. So no training text is needed, and no run.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bertrec.bundle import ITEM_LEXICAL_FILE, ITEM_TEXT_FILE, MANIFEST_FILE, MAPS_FOLDER, SIGNALS_FOLDER, EngineRecord
from bertrec.compact import load_floats, quantise_rows, save_matrix
from bertrec.errors import InvalidBundle, InvalidInput
from bertrec.rules import RULES_FILE
from bertrec.signals import LexicalSignal
from bertrec.spelling import FILE as SPELLING_FILE
from bertrec.spelling import SpellingCorrector
from bertrec.tensors import LEXICAL, RANKER, TEXT_SIGNAL
from export.ranker import RankerPrecision, export_ranker, read_items
from train.spelling import within_reach

COMMON = 0.5
"""The largest share of texts that a term is taken to occur in; one that occurs in more still varies in how often."""
NEGLIGIBLE = 1e-9
"""A direction of so small a share of the largest's variance is taken for none."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class CompactSettings:
    """How small to write. Raises InvalidInput for what is not a whole number of at least 1.

    precision: of the ranker's file. lexical_terms: how many terms to keep. lexical_dimensions: of the lexical signal.
    text_rank: of the matrix of the items' text vectors. None keeps them all, and so does a number that is not smaller.
    """

    precision: RankerPrecision = RankerPrecision.INT8
    lexical_terms: int | None = None
    lexical_dimensions: int | None = None
    text_rank: int | None = None

    def __post_init__(self) -> None:
        for name in ("lexical_terms", "lexical_dimensions", "text_rank"):
            given = getattr(self, name)
            if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
                raise InvalidInput(f"{name} is {given!r}; accepted are None, to keep all, and whole numbers of at least 1")


SMALL = CompactSettings()
"""Rounds, and cuts nothing: 5.1 MB of clothes' 11.6 MB, for 0.2% of NDCG@10 on the 2,265 test texts (0.0% to 0.4%)."""
TINY = CompactSettings(lexical_terms=5_000, lexical_dimensions=128, text_rank=192)
"""For an encoder of a few megabytes: 2.4 MB, for 0.9% (0.1% to 1.8%). Of ten cuts below 2.5 MB the best on validation."""


@dataclass(frozen=True)
class CompactParts:
    """What the manifest must say of the parts. signals: name → width of its part of the query vector, in order.

    before_bytes, after_bytes: of the whole folder.
    """

    ranker: EngineRecord
    signals: Mapping[str, int]
    before_bytes: int
    after_bytes: int


def compact_bundle_parts(folder: Path, settings: CompactSettings) -> CompactParts:
    """Rewrite the parts of a bundle that is being written in ``folder``, before it is sealed; its encoders stay as they are.

    ranker/fp32.onnx makes place for one of the precision, and the maps for new items go: whoever wants to add items adds them to
    the bundle with the maps. The words of a term that is dropped count as unknown from then on.
    Raises InvalidInput for a sealed bundle, InvalidBundle for a folder without ranker/fp32.onnx.
    """
    if (folder / MANIFEST_FILE).exists():
        raise InvalidInput(f"{folder} holds a sealed bundle, which is never changed; compact the folder before it is sealed")
    reference = folder / RANKER.name / "fp32.onnx"
    if not reference.is_file():
        raise InvalidBundle(f"{reference} is missing, which the compact ranker is made from")
    before = _size(folder)
    items = read_items(reference)
    _compact_lexical(folder / SIGNALS_FOLDER, items, settings)
    bases = _compact_text(folder / SIGNALS_FOLDER, items, settings)
    signals = {signal: bases.get(signal, vectors).shape[1] for signal, vectors in items.items()}
    _compact_spelling(folder / SIGNALS_FOLDER)
    reference.unlink()
    ranker = reference.with_name(f"{settings.precision.value}.onnx")
    export_ranker(items, ranker, precision=settings.precision, bases=bases)
    shutil.rmtree(folder / MAPS_FOLDER, ignore_errors=True)
    for path in folder.rglob("*.json"):
        if path.name != RULES_FILE:
            _without_spaces(path)
    return CompactParts(_record(folder, ranker, settings.precision), signals, before, _size(folder))


def _compact_spelling(folder: Path) -> None:
    """The spelling corrector, where there is one, with the words alone that its corrections depend on."""
    if (folder / SPELLING_FILE).is_file():
        within_reach(SpellingCorrector.load(folder)).save(folder)


def cut_lexical(
    lexical: LexicalSignal, items: Matrix, *, terms: int | None = None, dimensions: int | None = None
) -> tuple[LexicalSignal, Matrix]:
    """The signal with fewer terms and dimensions, and the map (lexical, dimensions) that takes its items' vectors there.

    items: (items, lexical) what the cut is judged by. A term matters by the variance that it brings to the scores. The
    dimensions are those of the best approximation of all scores by fewer: the singular vectors of (texts × items), with the
    texts by their covariance. A text is scaled to length 1 whatever it lost, so the map shrinks the items by the mean loss.
    """
    share = np.minimum(np.exp(1.0 - lexical.idf.astype(np.float64)), COMMON)  # (terms,): idf = ln(1 / share) + 1
    projection = lexical.directions(np.arange(len(lexical.terms))).astype(np.float64)  # (terms, lexical)
    idf, whole = lexical.idf.astype(np.float64), items.T @ items  # (lexical, lexical)
    covariance = _covariance(projection, share, idf)
    variances = share * idf**2 * np.einsum("td,de,te->t", projection, whole, projection, optimize=True)  # (terms,)
    kept = np.sort(np.argsort(-variances, kind="stable")[:terms])
    of_kept = _covariance(projection[kept], share[kept], idf[kept])
    if dimensions is None or dimensions >= lexical.dimensions:
        basis = np.eye(lexical.dimensions)
    else:
        basis = _best_basis(of_kept, whole, dimensions)  # (lexical, dimensions)
    seen = basis.T @ of_kept @ basis  # (dimensions, dimensions)
    shrunk = np.sqrt(np.trace(seen) / np.trace(covariance))
    cut = LexicalSignal(
        tuple(lexical.terms[row] for row in kept.tolist()), lexical.idf[kept], (projection[kept] @ basis).astype(np.float16)
    )
    return cut, of_kept @ basis @ np.linalg.pinv(seen, rcond=NEGLIGIBLE, hermitian=True) * shrunk


def principal_rows(matrix: NDArray[np.float32], rank: int | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(rows, rank) and its basis (rank, columns), orthonormal: their product is the best approximation of that rank.

    Cosines of rows are those of their approximations.
    """
    exact = matrix.astype(np.float64)
    _, vectors = np.linalg.eigh(exact.T @ exact)
    basis = _signed(vectors[:, ::-1][:, :rank])
    return (exact @ basis).astype(np.float32), basis.T.astype(np.float32)


def _compact_lexical(signals: Path, items: dict[str, NDArray[np.float32]], settings: CompactSettings) -> None:
    """Rewrite the lexical signal and the items' vectors that tell its words; those of the ranker are replaced in ``items``."""
    lexical, item_lexical = LexicalSignal.load(signals), load_floats(signals / ITEM_LEXICAL_FILE)
    terms, dimensions = settings.lexical_terms, settings.lexical_dimensions
    if (terms or len(lexical.terms)) < len(lexical.terms) or (dimensions or lexical.dimensions) < lexical.dimensions:
        lexical, turn = cut_lexical(lexical, items[LEXICAL].astype(np.float64), terms=terms, dimensions=dimensions)
        items[LEXICAL] = (items[LEXICAL] @ turn).astype(np.float32)
        item_lexical = (item_lexical @ turn).astype(np.float32)
    small = quantise_rows(lexical.directions(np.arange(len(lexical.terms))))
    dataclasses.replace(lexical, projection=small.values, scales=small.scales).save(signals)
    save_matrix(signals / ITEM_LEXICAL_FILE, quantise_rows(item_lexical))


def _compact_text(
    signals: Path, items: dict[str, NDArray[np.float32]], settings: CompactSettings
) -> dict[str, NDArray[np.float32]]:
    """Rewrite the items' vectors for diversity; returns the basis of the ranker's, which are replaced, where it has one."""
    bases: dict[str, NDArray[np.float32]] = {}
    item_text, rank = load_floats(signals / ITEM_TEXT_FILE), settings.text_rank
    if rank is not None and rank < min(items[TEXT_SIGNAL].shape):
        items[TEXT_SIGNAL], bases[TEXT_SIGNAL] = principal_rows(items[TEXT_SIGNAL], rank)
        item_text, _ = principal_rows(item_text, rank)
    save_matrix(signals / ITEM_TEXT_FILE, quantise_rows(item_text))
    return bases


def _covariance(projection: Matrix, share: Matrix, idf: Matrix) -> Matrix:
    """(lexical, lexical): the mean over texts of u uᵀ, with u a text's weights @ projection, each term in ``share`` of them."""
    mean = (share * idf) @ projection  # (lexical,)
    varying = (share * (1.0 - share) * idf**2)[:, None]  # (terms, 1)
    return np.asarray((projection * varying).T @ projection + np.outer(mean, mean))


def _best_basis(texts: Matrix, items: Matrix, dimensions: int) -> Matrix:
    """(lexical, dimensions), orthonormal, of the texts' directions that tell the items' scores best.

    texts, items: (lexical, lexical) covariances. With R² = texts, the singular vectors of R · items are those of all scores.
    """
    values, vectors = np.linalg.eigh(texts)
    kept = values > NEGLIGIBLE * values[-1]
    root = (vectors[:, kept] * np.sqrt(values[kept])) @ vectors[:, kept].T
    inverse = (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T
    _, directions = np.linalg.eigh(root @ items @ root)
    basis, _ = np.linalg.qr(inverse @ directions[:, ::-1][:, :dimensions])
    return _signed(basis)


def _signed(basis: Matrix) -> Matrix:
    """The basis with the largest entry of every column positive, since its sign is arbitrary, and a file should not be."""
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None], axis=0)  # (1, columns)
    return np.asarray(basis * np.where(largest < 0, -1.0, 1.0))


def _without_spaces(path: Path) -> None:
    """Write a JSON file anew, without the spaces and line ends that only people need."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def _record(folder: Path, ranker: Path, precision: RankerPrecision) -> EngineRecord:
    return EngineRecord(
        model=RANKER.name,
        name=precision.value,
        file=ranker.relative_to(folder).as_posix(),
        precision=precision.value,
        size_bytes=ranker.stat().st_size,
        batch_invariant=True,
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
