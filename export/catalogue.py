"""Add items to a bundle without training: they are ranked by what is said of them until somebody has chosen them.

Every signal has a linear map, fitted on the items that were chosen, from what is said of an item to its vector (train/items.py).
New items get theirs by it, as an item without interactions did in training; the encoder and its engines stay as they are.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bertrec.bundle import (
    CATALOGUE_FILE,
    ITEM_LEXICAL_FILE,
    ITEM_TEXT_FILE,
    MANIFEST_FILE,
    MAPS_FOLDER,
    SIGNALS_FOLDER,
    Bundle,
    EngineRecord,
    Runtime,
    seal,
)
from bertrec.catalogue import Catalogue, CatalogueItem, values
from bertrec.encoding import TextEncoder
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidBundle, InvalidData, InvalidInput
from bertrec.fusion import Signals
from bertrec.graph import DECLARED, GraphSignal
from bertrec.history import BehaviourSignal
from bertrec.tensors import BEHAVIOUR, ENCODER, LEXICAL, PRIOR, RANKER, TEXT_SIGNAL
from bertrec.text import clean
from export.folder import written_whole
from export.ranker import export_ranker, read_items
from train.data import Item
from train.fit import KEYWORDS
from train.items import ItemMap
from train.progress import say
from train.tables import read_items as read_table_of_items

REFERENCE = "fp32"


def extend_catalogue(bundle: Bundle, items: Path, output: Path) -> Bundle:
    """A bundle in ``output`` that ranks the items of the file ``items`` (as in a data set's folder) beside those of ``bundle``.

    Built beside ``output`` and renamed when complete. Raises InvalidInput where ``output`` exists, InvalidData where an item
    is in the catalogue already or says nothing of itself, InvalidBundle for a compact bundle.
    """
    if output.exists():
        raise InvalidInput(f"{output} exists. A bundle is never changed: delete it or choose another --output")
    if not (bundle.folder / MAPS_FOLDER).is_dir():
        raise InvalidBundle(
            f"{bundle.folder} is compact: it has no {MAPS_FOLDER}/, which give new items their vectors. Add them to a bundle of "
            "the same run that was built without --target edge"
        )
    new = _new_items(bundle.catalogue(), items)
    with written_whole(output) as folder:
        shutil.copytree(bundle.folder, folder, dirs_exist_ok=True)
        (folder / MANIFEST_FILE).unlink()
        _write(bundle, new, folder)
        manifest = dataclasses.replace(
            bundle.manifest,
            engines=_without_compiled(bundle, folder),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            data={
                **bundle.manifest.data,
                "items": len(bundle.catalogue()) + len(new),
                "extends": bundle.manifest.fingerprint,
                "items_added": len(new),
            },
        )
        seal(folder, manifest)
    return Bundle.open(output)


def _without_compiled(bundle: Bundle, folder: Path) -> tuple[EngineRecord, ...]:
    """The records but those of TensorRT's engines, whose ranker knows the old items only; their files are deleted."""
    kept = []
    for record in bundle.manifest.engines:
        if record.runtime == Runtime.ORT.value:
            kept.append(record)
        else:
            say(f"{record.file} is left out: it was compiled for the old items. Compile again: python -m export tensorrt")
            (folder / record.file).unlink(missing_ok=True)
    return tuple(kept)


def _new_items(catalogue: Catalogue, path: Path) -> list[Item]:
    """The items of the file. Raises InvalidData as :func:`extend_catalogue` says."""
    known = {item.item_id for item in catalogue.items}
    items = list(read_table_of_items(path))
    for row, item in enumerate(items, start=1):
        if item.item_id in known:
            raise InvalidData(f"{path}, item {row}: {item.item_id!r} is in the catalogue already; give only new items")
        if not item.own_text and not item.attributes:
            raise InvalidData(f"{path}, item {row}: {item.item_id!r} has no title, text or attribute to be ranked by")
    if not items:
        raise InvalidData(f"{path} holds no items")
    return items


def _write(bundle: Bundle, new: Sequence[Item], folder: Path) -> None:
    """Catalogue, signals and ranker with the new items behind the old ones."""
    signals = bundle.signals()
    texts = [clean(". ".join(part for part in (item.own_text, _said(item)) if part)) for item in new]
    described = _described(bundle, signals, texts)
    sides = read_items(bundle.engine_path(RANKER.name, REFERENCE))
    for signal, old in sides.items():
        sides[signal] = np.vstack([old, _vectors(bundle, signal, described, len(new))])
    export_ranker(sides, folder / bundle.engine(RANKER.name, REFERENCE).file)
    for signal, name in ((LEXICAL, ITEM_LEXICAL_FILE), (TEXT_SIGNAL, ITEM_TEXT_FILE)):
        np.save(folder / SIGNALS_FOLDER / name, sides[signal].astype(np.float16), allow_pickle=False)
    _extended(signals, new).save(folder / SIGNALS_FOLDER)
    added = [
        CatalogueItem(
            item.item_id, item.title or _said(item), item.text, item.attributes, signals.lexical.keywords([text], KEYWORDS)
        )
        for item, text in zip(new, texts, strict=True)
    ]
    Catalogue((*bundle.catalogue().items, *added)).save(folder / CATALOGUE_FILE)


def _said(item: Item) -> str:
    """The item's attributes as words."""
    return " · ".join(dict.fromkeys(value for joined in item.attributes.values() for value in values(joined)))


def _described(bundle: Bundle, signals: Signals, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Signal → (new items, width) what is said of each new item, of length 1; a signal that reads no texts is absent."""
    encoder = OnnxEngine(bundle.engine_path(ENCODER.name, REFERENCE), ENCODER)
    reading = TextEncoder(bundle, encoder.run, REFERENCE)
    say(f"reading {len(texts)} new items")
    sides = signals.user_sides(texts, reading.encode(reading.tokenise(texts)), [()] * len(texts))
    return {signal: side for signal, side in sides.items() if signal not in (BEHAVIOUR, PRIOR)}


def _vectors(bundle: Bundle, signal: str, described: dict[str, NDArray[np.float32]], count: int) -> NDArray[np.float32]:
    """(new items, width): the item side of one signal; where nothing is said, that of the average item, which is zero."""
    item_map = ItemMap(np.load(bundle.folder / MAPS_FOLDER / f"{signal}.npy", allow_pickle=False))
    if signal == PRIOR:
        return np.repeat(item_map.matrix, count, axis=0)  # of an item that nobody chose
    if signal not in described:
        return np.zeros((count, item_map.matrix.shape[1]), np.float32)
    return np.where(described[signal].any(axis=1, keepdims=True), item_map(described[signal]), np.float32(0))


def _extended(signals: Signals, new: Sequence[Item]) -> Signals:
    """The signals with the new items' edges, and with empty factors for them."""
    graph, behaviour = signals.graph, signals.behaviour
    if graph is not None:
        graph = _with_edges(graph, new)
    if behaviour is not None:
        empty = np.zeros((len(new), behaviour.dimensions), np.float16)
        behaviour = BehaviourSignal(np.vstack([behaviour.factors, empty]))
    return dataclasses.replace(signals, graph=graph, behaviour=behaviour)


def _with_edges(graph: GraphSignal, new: Sequence[Item]) -> GraphSignal:
    """The graph with an edge from each new item to every value that the catalogue declares of it and the graph knows."""
    entity_of = {(entity.attribute.casefold(), entity.name.casefold()): row for row, entity in enumerate(graph.entities)}
    relations = graph.relations if DECLARED in graph.relations else (*graph.relations, DECLARED)
    declared = relations.index(DECLARED)
    edges = [
        [
            (entity_of[key], declared)
            for name, joined in item.attributes.items()
            for value in values(joined)
            if (key := (name.casefold(), value.casefold())) in entity_of
        ]
        for item in new
    ]
    added = np.asarray([edge for own in edges for edge in own], np.int32).reshape(-1, 2)
    ends = graph.offsets[-1] + np.cumsum([len(own) for own in edges])
    return dataclasses.replace(
        graph,
        relations=relations,
        offsets=np.concatenate([graph.offsets, ends]).astype(np.int32),
        edges=np.concatenate([graph.edges, added]),
        weights=np.concatenate([graph.weights, np.ones(len(added), np.float16)]),
    )
