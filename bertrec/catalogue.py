"""The items that can be recommended, in index order, and the masks that a request's rules lay over them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bertrec.answers import Options
from bertrec.errors import InvalidInput


@dataclass(frozen=True)
class CatalogueItem:
    """One item. ``keywords`` are the words that its texts use more than other items' texts do.

    Several values of one attribute are joined by ``|``; a filter accepts the item by any of them.
    """

    item_id: str
    title: str
    text: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """The items in the order of the ranker's item index."""

    items: tuple[CatalogueItem, ...]

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {item.item_id: index for index, item in enumerate(self.items)}

    @cached_property
    def _having(self) -> dict[str, dict[str, list[int]]]:
        """Attribute → value → indices of the items that have it."""
        having: dict[str, dict[str, list[int]]] = {}
        for index, item in enumerate(self.items):
            for name, joined in item.attributes.items():
                for value in values(joined):
                    having.setdefault(name, {}).setdefault(value, []).append(index)
        return having

    def allowed(self, options: Options) -> NDArray[np.bool_]:
        """(items,) bool: what the options let through. Raises InvalidInput for an attribute that no item has."""
        mask = np.ones(len(self.items), bool)
        for name, accepted in options.filters.items():
            if name not in self._having:
                raise InvalidInput(f"filters names the attribute {name!r}; the catalogue has {sorted(self._having)}")
            matching = np.zeros(len(self.items), bool)
            for value in accepted:
                matching[self._having[name].get(value, [])] = True
            mask &= matching
        mask[[self._index_of[item_id] for item_id in options.exclude if item_id in self._index_of]] = False
        return mask

    def save(self, path: Path) -> None:
        """Write one JSON object a line, in index order."""
        path.write_text("".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in self.items), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """Read what :meth:`save` wrote."""
        return cls(tuple(_read(path.read_text(encoding="utf-8").split("\n"))))


def values(joined: str) -> tuple[str, ...]:
    """The values of an attribute, which are joined by ``|``."""
    return tuple(value.strip() for value in joined.split("|") if value.strip())


def _read(lines: Iterable[str]) -> Iterable[CatalogueItem]:
    for line in lines:
        if line:
            given = json.loads(line)
            yield CatalogueItem(**{**given, "keywords": tuple(given["keywords"])})
