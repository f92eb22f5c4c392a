"""The graph signal: the entities that a text names, and the graph that joins them to the items.

A gazetteer finds the entities (attribute values, colours, fabrics, …) by their phrases, longest first. Each entity has a vector
from a spectral embedding of the item–attribute graph (train/graph.py); a text is the mean of its entities' vectors, scaled to
length 1. The edges themselves say why an item fits: word → entity → item.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bertrec.signals import analyse
from bertrec.tensors import MAX_BATCH_SIZE

GAZETTEER_FILE = "graph_gazetteer.json"
VECTORS_FILE = "graph_vectors.npy"
OFFSETS_FILE = "graph_offsets.npy"
EDGES_FILE = "graph_edges.npy"
WEIGHTS_FILE = "graph_weights.npy"
LINKS_FILE = "graph_links.npy"

DECLARED, MENTIONED = "declared", "mentioned"
"""Relations of an item to an entity: the catalogue says so, or its training texts do. Others are the user's own."""

RELATED_SHARE = 0.5
"""What an edge counts that is reached through a related entity, against one that is reached at once."""

_BETWEEN_CHINESE = re.compile(r"(?<=[\u3400-\u4dbf\u4e00-\u9fff]) (?=[\u3400-\u4dbf\u4e00-\u9fff])")


@dataclass(frozen=True)
class Entity:
    """A value that items can have, and the attribute that it is a value of; empty where that is not known."""

    name: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.name} ({self.attribute})" if self.attribute else self.name


@dataclass(frozen=True)
class Mention:
    """Words of a text, lower-cased, and the entity that they name, an index into ``GraphSignal.entities``."""

    phrase: str
    entity: int


@dataclass(frozen=True)
class GraphPath:
    """A way through the graph from a text to an item.

    phrase: the words of the text. entity: what they name. via: the related entity that the item has, or None where it has the
    named one itself. relation: that of the edge to the item. strength: in (0, 1]. sentence: all this, for a reader.
    """

    phrase: str
    entity: Entity
    via: Entity | None
    relation: str
    strength: float
    sentence: str


def words_of(text: str) -> list[str]:
    """The words that phrases are made of: those of the lexical signal, without its pairs."""
    return [term for term in analyse(text) if " " not in term]


@dataclass(frozen=True)
class Gazetteer:
    """Phrases, each words of :func:`words_of` joined by one space, and the entities that they name."""

    phrases: Mapping[str, int]

    @cached_property
    def _longest(self) -> int:
        """Words in the longest phrase."""
        return max((phrase.count(" ") + 1 for phrase in self.phrases), default=0)

    def mentions(self, text: str) -> Iterator[Mention]:
        """The entities that a text names, in its order; where phrases overlap, the longest from the left counts."""
        words = words_of(text)
        start = 0
        while start < len(words):
            for length in range(min(self._longest, len(words) - start), 0, -1):
                phrase = " ".join(words[start : start + length])
                if (entity := self.phrases.get(phrase)) is not None:
                    yield Mention(_BETWEEN_CHINESE.sub("", phrase), entity)
                    start += length
                    break
            else:
                start += 1


@dataclass(frozen=True)
class GraphSignal:
    """The gazetteer, the vectors of its entities, and the graph.

    phrases: as in :class:`Gazetteer`. vectors: their lengths weigh the entities of a text against each other. Item i
    has the edges ``offsets[i]:offsets[i + 1]``.
    """

    entities: tuple[Entity, ...]
    phrases: Mapping[str, int]
    relations: tuple[str, ...]
    vectors: NDArray[np.float16]  # (entities, graph)
    offsets: NDArray[np.int32]  # (items + 1,)
    edges: NDArray[np.int32]  # (edges, 2): entity, relation
    weights: NDArray[np.float16]  # (edges,), in (0, 1]
    links: NDArray[np.int32]  # (links, 3): entity, relation, entity

    @property
    def dimensions(self) -> int:
        """Length of a graph vector."""
        return int(self.vectors.shape[1])

    @cached_property
    def _gazetteer(self) -> Gazetteer:
        return Gazetteer(self.phrases)

    @cached_property
    def _rarity(self) -> NDArray[np.float64]:
        """(entities,) in (0, 1]: 1 for an entity of one item, near 0 for one of all items."""
        items = len(self.offsets)  # one more than there are items, so that no entity counts nothing
        having = np.maximum(np.bincount(self.edges[:, 0], minlength=len(self.entities)), 1)
        return np.asarray(1.0 - np.log(having) / np.log(max(items, 2)), np.float64)

    @cached_property
    def _mentions(self) -> Callable[[str], tuple[Mention, ...]]:
        """What the gazetteer finds; every item of a list is explained by the same text."""
        return lru_cache(maxsize=MAX_BATCH_SIZE)(lambda text: tuple(self._gazetteer.mentions(text)))

    def mentions(self, text: str) -> list[Mention]:
        """The entities that a text names, in its order; where phrases overlap, the longest from the left counts."""
        return list(self._mentions(text))

    def vectors_of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(batch, graph) float32: the mean over the distinct entities of each text, of length 1; zeros where none is named."""
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            found = sorted({mention.entity for mention in self.mentions(text)})
            vectors[row] = self.vectors[found].astype(np.float32).sum(axis=0)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)

    def paths(self, text: str, item: int) -> tuple[GraphPath, ...]:
        """The ways from a text to item ``item`` of the catalogue, strongest first, one for each entity that has one."""
        start, end = int(self.offsets[item]), int(self.offsets[item + 1])
        edge_of = {int(self.edges[edge, 0]): edge for edge in range(start, end)}
        named: dict[int, Mention] = {}
        for mention in self.mentions(text):
            named.setdefault(mention.entity, mention)
        found = (self._direct(mention, edge_of) or self._related(mention, edge_of) for mention in named.values())
        return tuple(sorted((path for path in found if path), key=lambda path: (-path.strength, path.phrase)))

    def _direct(self, mention: Mention, edge_of: Mapping[int, int]) -> GraphPath | None:
        edge = edge_of.get(mention.entity)
        if edge is None:
            return None
        entity = self.entities[mention.entity]
        return self._path(mention, None, edge, _known(mention.phrase, entity), 1.0)

    def _related(self, mention: Mention, edge_of: Mapping[int, int]) -> GraphPath | None:
        """The strongest way through one of the entities that the user's triples join to the named one."""
        ways = []
        for head, relation, tail in self.links[(self.links[:, [0, 2]] == mention.entity).any(axis=1)].tolist():
            via = tail if head == mention.entity else head
            if (edge := edge_of.get(via)) is not None:
                known = _known(mention.phrase, self.entities[mention.entity])
                said = f"{known}, which “{self.relations[relation]}” joins to {self.entities[via]}"
                ways.append(self._path(mention, self.entities[via], edge, said, RELATED_SHARE))
        return max(ways, key=lambda path: path.strength, default=None)

    def _path(self, mention: Mention, via: Entity | None, edge: int, said: str, share: float) -> GraphPath:
        entity, relation = self.edges[edge].tolist()
        return GraphPath(
            phrase=mention.phrase,
            entity=self.entities[mention.entity],
            via=via,
            relation=self.relations[relation],
            strength=share * float(self.weights[edge]) * float(self._rarity[entity]),
            sentence=f"{said}, and {_joined(self.relations[relation])}",
        )

    def save(self, folder: Path) -> list[Path]:
        """Write the signal as files that open without pickle; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "entities": [astuple(entity) for entity in self.entities],
            "phrases": dict(self.phrases),
            "relations": self.relations,
        }
        (folder / GAZETTEER_FILE).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        arrays = self._arrays()
        for name, array in arrays.items():
            np.save(folder / name, array, allow_pickle=False)
        return [folder / GAZETTEER_FILE, *(folder / name for name in arrays)]

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        return {
            VECTORS_FILE: self.vectors,
            OFFSETS_FILE: self.offsets,
            EDGES_FILE: self.edges,
            WEIGHTS_FILE: self.weights,
            LINKS_FILE: self.links,
        }

    @classmethod
    def load(cls, folder: Path) -> GraphSignal:
        """Read what :meth:`save` wrote."""
        content = json.loads((folder / GAZETTEER_FILE).read_text(encoding="utf-8"))
        return cls(
            entities=tuple(Entity(*entity) for entity in content["entities"]),
            phrases=content["phrases"],
            relations=tuple(content["relations"]),
            vectors=np.load(folder / VECTORS_FILE, allow_pickle=False),
            offsets=np.load(folder / OFFSETS_FILE, allow_pickle=False),
            edges=np.load(folder / EDGES_FILE, allow_pickle=False),
            weights=np.load(folder / WEIGHTS_FILE, allow_pickle=False),
            links=np.load(folder / LINKS_FILE, allow_pickle=False),
        )


def _known(phrase: str, entity: Entity) -> str:
    """What was written and, unless it is the entity's very name, what that means."""
    if words_of(phrase) == words_of(entity.name):
        return f"you wrote “{phrase}”"
    return f"you wrote “{phrase}”, which is {entity}"


def _joined(relation: str) -> str:
    """How an item and an entity belong together."""
    said = {DECLARED: "this item is one of them", MENTIONED: "this item is described so"}
    return said.get(relation, f"“{relation}” joins this item to it")
