"""Fit the graph signal: the gazetteer, the item–attribute graph, and its spectral embedding.

The graph joins items to what the catalogue declares of them, to what the user's triples say, and to the words of the lexicon
that their training texts use clearly more often than chance. The embedding is that of Dhillon (2001), "Co-clustering documents
and words using bipartite spectral graph partitioning": the leading singular vectors of the degree-normalised adjacency.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize

from bertrec.graph import DECLARED, MENTIONED, Entity, Gazetteer, GraphSignal, words_of
from train.data import Dataset, Item
from train.examples import OWN_TEXT, Examples, Pairs
from train.lexicon import Lexicon, forms, phrase_of, read_lexicon

MOST_MENTIONED = 12
"""Edges that an item's training texts may give it, the surest first."""
LEAST_TEXTS = 2
"""Texts of an item that must name an entity, where it has more than two."""
LEAST_DEVIATIONS = 2.0
"""Standard deviations (of a Poisson count) by which an item's texts must name an entity more often than chance."""
FULL_LIFT = 8.0
"""An entity named so many times as often as by chance is as sure as a declared one."""
RELATED_WEIGHT = 0.5
"""What an item inherits of an entity that the user's triples join to one of its own."""
LEAST_LIFT, ENOUGH_TEXTS = 1.1, 20
"""A phrase that so many texts use, but hardly rather for the items that have its value, means something else."""

LEAST_SHARED, ENOUGH_VALUES = 1.25, 20
"""An attribute that so many items have, but whose values so few share on average, is an identifier."""

TITLE = "title"
"""Attribute of the entities that stand for items."""

_TRAILING_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")


@dataclass(frozen=True)
class FittedGraph:
    """The served signal, and the items' own vectors: (items, graph) float32, of length 1, or zeros for one without edges."""

    signal: GraphSignal
    items: NDArray[np.float32]


@dataclass
class _Graph:
    """The graph while it grows. edges: (item, entity) → relation and weight; links: (entity, relation, entity)."""

    entities: list[Entity] = field(default_factory=list)
    index_of: dict[tuple[str, str], int] = field(default_factory=dict)
    phrases: dict[str, int] = field(default_factory=dict)
    edges: dict[tuple[int, int], tuple[str, float]] = field(default_factory=dict)
    links: list[tuple[int, str, int]] = field(default_factory=list)

    def entity(self, name: str, attribute: str) -> int:
        """The index of an entity, which is made where it is new."""
        key = (attribute.casefold(), name.casefold())
        if key not in self.index_of:
            self.index_of[key] = len(self.entities)
            self.entities.append(Entity(name, attribute))
        return self.index_of[key]

    def call(self, entity: int, phrases: Iterable[str]) -> None:
        """Give an entity phrases; one that another has already stays there."""
        for phrase in phrases:
            self.phrases.setdefault(phrase, entity)


def fit_graph(dataset: Dataset, examples: Examples, *, dimensions: int, seed: int) -> FittedGraph:
    """The graph signal of a data set with at most ``dimensions`` dimensions; items are in the order of ``examples.catalogue``."""
    items = [dataset.items[row] for row in examples.catalogue.tolist()]
    lexicon, graph = read_lexicon(), _Graph()
    _declare(graph, items)
    _add_triples(graph, items, dataset.triples)
    given = frozenset(graph.phrases)
    own = _add_words(graph, lexicon)
    _add_titles(graph, items, examples.train.texts)
    written = _written(dataset, examples)
    _link_mentioned(graph, own, written, _texts_with(graph, written.texts))
    _drop_unlinked(graph)
    _add_other_words(graph, lexicon, given)
    _drop_misleading(graph, written, _texts_with(graph, written.texts))
    return _embed(graph, len(items), dimensions, seed)


def _declare(graph: _Graph, items: Sequence[Item]) -> None:
    """Entities, phrases and edges from the attributes; a phrase of two values goes to the one of fewer items, or the later."""
    identifiers = _identifiers(items)
    for row, item in enumerate(items):
        for attribute, joined in item.attributes.items():
            if attribute not in identifiers:
                for value in filter(phrase_of, _values(joined)):
                    graph.edges[row, graph.entity(value, attribute)] = (DECLARED, 1.0)
    _name_declared(graph)


def _identifiers(items: Sequence[Item]) -> set[str]:
    """The attributes that tell items apart and join none, such as a package name."""
    values: dict[str, list[str]] = defaultdict(list)
    for item in items:
        for attribute, joined in item.attributes.items():
            values[attribute] += _values(joined)
    return {name for name, had in values.items() if ENOUGH_VALUES <= len(had) < LEAST_SHARED * len(set(had))}


def _name_declared(graph: _Graph) -> None:
    having = np.bincount([entity for _, entity in graph.edges], minlength=len(graph.entities))
    order = sorted(range(len(graph.entities)), key=lambda entity: (having[entity], -entity))
    _call_all(graph, [(entity, [graph.entities[entity].name]) for entity in order])


def _values(joined: str) -> list[str]:
    return [value.strip() for value in re.split(r"[|;]", joined) if value.strip()]


def _add_triples(graph: _Graph, items: Sequence[Item], triples: Sequence[tuple[str, str, str]]) -> None:
    """Item–entity and entity–entity edges from the user's triples; an item at both ends stands for its title at the second."""
    row_of = {item.item_id: row for row, item in enumerate(items)}
    for head, relation, tail in triples:
        if head in row_of or tail in row_of:
            item, other = (head, tail) if head in row_of else (tail, head)
            entity = _title(graph, items, row_of[other]) if other in row_of else _entity_called(graph, other, relation)
            graph.edges.setdefault((row_of[item], entity), (relation, 1.0))
        else:
            graph.links.append((_entity_called(graph, head, ""), relation, _entity_called(graph, tail, relation)))


def _title(graph: _Graph, items: Sequence[Item], row: int) -> int:
    """The entity that stands for an item, joined to it."""
    entity = graph.entity(_TRAILING_YEAR.sub("", items[row].title) or items[row].item_id, TITLE)
    graph.edges[row, entity] = (DECLARED, 1.0)
    return entity


def _entity_called(graph: _Graph, name: str, attribute: str) -> int:
    """The entity that a triple names: a known one by its phrase, or else a new one."""
    known = graph.phrases.get(phrase_of(name))
    if known is None:
        known = graph.entity(name, attribute)
        graph.call(known, forms(name))
    return known


def _add_words(graph: _Graph, lexicon: Lexicon) -> set[int]:
    """The lexicon's own entities, which are returned; one that the catalogue has as well lends that its words."""
    given = dict(graph.phrases)
    own: set[int] = set()
    called: list[tuple[int, list[str]]] = []
    for attribute, entities in lexicon.words.items():
        for name, others in entities.items():
            entity = given.get(phrase_of(name))
            if entity is None:
                entity = graph.entity(name, attribute)
                own.add(entity)
            called.append((entity, [name, *others]))
    _call_all(graph, called)
    return own


def _add_other_words(graph: _Graph, lexicon: Lexicon, given: frozenset[str]) -> None:
    """Other words for the values that the data itself has; those that name an entity already stay there."""
    named = {name: phrase for name in lexicon.values if (phrase := phrase_of(name)) in given}
    _call_all(graph, [(graph.phrases[phrase], lexicon.values[name]) for name, phrase in named.items()])


def _call_all(graph: _Graph, called: Sequence[tuple[int, Sequence[str]]]) -> None:
    """Give each entity its names and their other forms; a name itself comes before a form of another."""
    for entity, names in called:
        graph.call(entity, [form for name in names for form in forms(name)[:1]])
    for entity, names in called:
        graph.call(entity, [form for name in names for form in forms(name)])


def _add_titles(graph: _Graph, items: Sequence[Item], texts: Sequence[str]) -> None:
    """Every title that is a name: of two words or more, or one that no training text writes small (Casablanca, not Heat)."""
    small = {word for text in texts for word in re.findall(r"\b[a-z]\w+", text)}
    for row, item in enumerate(items):
        phrase = phrase_of(_TRAILING_YEAR.sub("", item.title))
        if phrase and (" " in phrase or (len(phrase) > 3 and phrase not in small)):
            graph.call(_title(graph, items, row), [phrase])


def _written(dataset: Dataset, examples: Examples) -> Pairs:
    """The training texts that somebody wrote about the item; a text made from a history speaks of other items."""
    about = [row == OWN_TEXT or bool(dataset.interactions[row].text) for row in examples.train.rows.tolist()]
    return examples.train.take(np.flatnonzero(about))


def _texts_with(graph: _Graph, texts: Sequence[str]) -> Mapping[str, list[int]]:
    """Phrase → the texts, by number, that name an entity by it."""
    gazetteer = Gazetteer(graph.phrases)
    using: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        for phrase in {" ".join(words_of(mention.phrase)) for mention in gazetteer.mentions(text)}:
            using[phrase].append(row)
    return using


def _drop_misleading(graph: _Graph, written: Pairs, using: Mapping[str, Sequence[int]]) -> None:
    """Take phrases away that many texts use, though hardly rather for the items that have the entity ("in general").

    Not titles: who names one asks for what is like it.
    """
    items_of: dict[int, list[int]] = defaultdict(list)
    for item, entity in graph.edges:
        items_of[entity].append(item)
    counts = np.bincount(written.items)
    for phrase, texts in using.items():
        having = items_of.get(graph.phrases[phrase])
        is_title = graph.entities[graph.phrases[phrase]].attribute == TITLE
        if having and len(texts) >= ENOUGH_TEXTS and not is_title:
            expected = counts[[item for item in having if item < len(counts)]].sum() / len(written)
            share = np.isin(written.items[texts], having).mean()
            if share < min(LEAST_LIFT * expected, (1 + expected) / 2):  # all but everything has it: half of the rest will do
                del graph.phrases[phrase]


def _link_mentioned(graph: _Graph, own: set[int], written: Pairs, using: Mapping[str, Sequence[int]]) -> None:
    """Join items to the lexicon's own entities that their training texts name clearly more often than all texts do."""
    naming: dict[int, set[int]] = defaultdict(set)  # entity → the texts that name it
    for phrase, texts in using.items():
        if (entity := graph.phrases[phrase]) in own:
            naming[entity].update(texts)
    texts_of = np.bincount(written.items)  # (items,)
    found: list[tuple[float, int, int]] = []
    for entity, naming_it in naming.items():
        counts = np.bincount(written.items[list(naming_it)], minlength=len(texts_of))  # (items,) texts that name it
        expected = texts_of * (len(naming_it) / len(written))
        least = np.maximum(np.minimum(LEAST_TEXTS, texts_of), 1)
        for item in np.flatnonzero((counts >= least) & (counts - expected >= LEAST_DEVIATIONS * np.sqrt(expected))).tolist():
            found.append((float(counts[item] / expected[item]), item, entity))
    left = np.full(len(texts_of), MOST_MENTIONED)
    for lift, item, entity in sorted(found, key=lambda edge: (-edge[0], *edge[1:])):
        if left[item] and lift > 1:
            left[item] -= 1
            graph.edges.setdefault((item, entity), (MENTIONED, min(1.0, float(np.log(lift) / np.log(FULL_LIFT)))))


def _drop_unlinked(graph: _Graph) -> None:
    """Forget entities that no item has and that no triple joins to another, and their phrases."""
    used = sorted({entity for _, entity in graph.edges} | {entity for head, _, tail in graph.links for entity in (head, tail)})
    renamed = {old: new for new, old in enumerate(used)}
    graph.entities = [graph.entities[old] for old in used]
    graph.phrases = {phrase: renamed[entity] for phrase, entity in graph.phrases.items() if entity in renamed}
    graph.edges = {(item, renamed[entity]): edge for (item, entity), edge in graph.edges.items()}
    graph.links = [(renamed[head], relation, renamed[tail]) for head, relation, tail in graph.links]


def _embed(graph: _Graph, items: int, dimensions: int, seed: int) -> FittedGraph:
    """Entity vectors by which an item, and any text, is the sum of its entities: folding into the spectral embedding."""
    given = [relation for relation, _ in graph.edges.values()] + [relation for _, relation, _ in graph.links]
    relations = tuple(dict.fromkeys([DECLARED, MENTIONED, *given]))
    ordered = sorted(graph.edges)
    pairs = np.asarray(ordered, np.int32).reshape(-1, 2)
    weights = np.asarray([graph.edges[pair][1] for pair in ordered], np.float32)
    links = np.asarray([(head, relations.index(relation), tail) for head, relation, tail in graph.links], np.int32).reshape(-1, 3)
    adjacency = scipy.sparse.csr_matrix((weights, (pairs[:, 0], pairs[:, 1])), (items, len(graph.entities)))
    vectors = _entity_vectors(_with_related(adjacency, links), dimensions, seed)  # (entities, graph)
    signal = GraphSignal(
        entities=tuple(graph.entities),
        phrases=graph.phrases,
        relations=relations,
        vectors=vectors.astype(np.float16),
        offsets=np.searchsorted(pairs[:, 0], np.arange(items + 1)).astype(np.int32),
        edges=np.stack([pairs[:, 1], [relations.index(graph.edges[pair][0]) for pair in ordered]], axis=1).astype(np.int32),
        weights=weights.astype(np.float16),
        links=links,
    )
    return FittedGraph(signal, np.asarray(normalize(adjacency @ vectors), np.float32))


def _with_related(adjacency: scipy.sparse.csr_matrix, links: NDArray[np.int32]) -> scipy.sparse.csr_matrix:
    """The adjacency, and in it a share of what the links join to the entities of an item."""
    entities = adjacency.shape[1]
    ones = np.full(len(links), RELATED_WEIGHT, np.float32)
    joined = scipy.sparse.csr_matrix((ones, (links[:, 0], links[:, 2])), (entities, entities))
    return (adjacency + adjacency @ (joined + joined.T)).tocsr()


def _entity_vectors(adjacency: scipy.sparse.csr_matrix, dimensions: int, seed: int) -> NDArray[np.float32]:
    """(entities, graph): right singular vectors of the normalised adjacency, over the square root of the degree (folding in)."""
    degrees = [np.asarray(adjacency.sum(axis=axis)).ravel() for axis in (1, 0)]  # of items, of entities
    rows, columns = (scipy.sparse.diags(1.0 / np.sqrt(np.where(degree > 0, degree, np.inf))) for degree in degrees)
    possible = min(dimensions, *adjacency.shape)  # the solver cannot give more
    if not adjacency.nnz:
        return np.zeros((adjacency.shape[1], max(possible, 1)), np.float32)
    decomposition = TruncatedSVD(possible, n_iter=4, random_state=seed).fit(rows @ adjacency @ columns)
    vectors = np.asarray(columns @ decomposition.components_.T, np.float32)
    return vectors / np.float32(np.linalg.norm(vectors, axis=1).max())  # only ratios count, and half precision wants them near 1
