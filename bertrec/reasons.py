"""Why an item: each term of its score, in words that a shopper understands.

The words of the lexical signal are exact, and the paths of the graph signal are its own edges; of the text signal no words can be
told. A sentence that claims a cause is only said where the term speaks for the item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertrec.answers import Reason
from bertrec.catalogue import Catalogue
from bertrec.fusion import Signals
from bertrec.history import MAX_HISTORY
from bertrec.tensors import BEHAVIOUR, GRAPH, LEXICAL, MATCHER, PRIOR, RULES, TEXT_SIGNAL

MOST_NAMED = 2
"""Past items, or words of the text, that a sentence names; a reader looks no further."""

_Said = tuple[str, tuple[str, ...]]
"""A sentence and its words."""


@dataclass(frozen=True)
class Asked:
    """What reasons look at. written: the user wrote the text; otherwise it was made of the titles of his history.

    history: catalogue indices. boosts: name of each rule that fired → (items,) what it added to the scores.
    """

    text: str
    written: bool
    history: Sequence[int]
    boosts: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Reasons:
    """Explains the items of one bundle."""

    signals: Signals
    catalogue: Catalogue
    item_lexical: NDArray[np.float32]  # (items, lexical)

    def of(
        self, asked: Asked, items: Sequence[int], names: Sequence[str], terms: NDArray[np.float32]
    ) -> list[tuple[Reason, ...]]:
        """For each item, one reason for each term that is not zero, the strongest first. terms: (items, names)."""
        carriers = self.signals.lexical.carriers(asked.text, self.item_lexical[list(items)])
        explained = []
        for item, words, scores in zip(items, carriers, terms.tolist(), strict=True):
            said = [
                (name, score, self._said(asked, item, name, score, words))
                for name, score in zip(names, scores, strict=True)
                if score
            ]
            reasons = (Reason(name, score, sentence, found) for name, score, (sentence, found) in said)
            explained.append(tuple(sorted(reasons, key=lambda reason: -reason.score)))
        return explained

    def _said(self, asked: Asked, item: int, name: str, score: float, carriers: tuple[str, ...]) -> _Said:
        wish = "your wish" if asked.written else "what you chose before"
        if name == LEXICAL and carriers:
            return f"{'your words' if asked.written else 'words of what you chose'}: {', '.join(carriers)}", carriers
        if name == GRAPH:
            return self._graph(asked, item, score)
        if name == BEHAVIOUR:
            return self._behaviour(asked, item, score)
        if name == RULES:
            rules = tuple(rule for rule, boost in asked.boosts.items() if boost[item])
            return f"the rule{'s' if len(rules) > 1 else ''} {_quoted(rules)}", rules
        said = {
            TEXT_SIGNAL: f"the meaning of {wish}",
            LEXICAL: f"the words of {wish}",
            PRIOR: "how often others choose it",
            MATCHER.name: f"its description, read beside {wish}",
        }
        return said[name], ()

    def _graph(self, asked: Asked, item: int, score: float) -> _Said:
        """The strongest path from the text to the item, and without one what the text names."""
        assert self.signals.graph is not None  # there is such a term
        paths = self.signals.graph.paths(asked.text, item)
        if paths and score > 0 and asked.written:
            return paths[0].sentence, tuple(path.phrase for path in paths)
        named = tuple(dict.fromkeys(mention.phrase for mention in self.signals.graph.mentions(asked.text)))
        return f"how near it is to {_quoted(named[:MOST_NAMED])}", named

    def _behaviour(self, asked: Asked, item: int, score: float) -> _Said:
        """The past items whose factors have the highest cosine to the item's, the latest first among equals."""
        assert self.signals.behaviour is not None  # there is such a term
        past = list(dict.fromkeys(reversed(asked.history[-MAX_HISTORY:])))
        factors = self.signals.behaviour.factors
        cosines = factors[past].astype(np.float32) @ factors[item].astype(np.float32)  # (past,)
        nearest = [past[row] for row in np.argsort(-cosines, kind="stable").tolist() if cosines[row] > 0][:MOST_NAMED]
        if not nearest or score <= 0:
            return "what others chose beside your choices", ()
        titles = tuple(self.catalogue.items[index].title or self.catalogue.items[index].item_id for index in nearest)
        return f"because you chose {_quoted(titles)}", titles


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"“{name}”" for name in names)
