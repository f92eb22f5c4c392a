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
    """One item. ``keywords`` are the words that its texts use more than other items' texts do."""

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
    def _columns(self) -> dict[str, NDArray[np.str_]]:
        """Attribute → (items,) str, the item's value, empty where it has none."""
        names = {name for item in self.items for name in item.attributes}
        return {name: np.asarray([item.attributes.get(name, "") for item in self.items]) for name in names}

    def allowed(self, options: Options) -> NDArray[np.bool_]:
        """(items,) bool: what the options let through. Raises InvalidInput for an attribute that no item has."""
        mask = np.ones(len(self.items), bool)
        for name, values in options.filters.items():
            if name not in self._columns:
                raise InvalidInput(f"filters names the attribute {name!r}; the catalogue has {sorted(self._columns)}")
            mask &= np.isin(self._columns[name], values)
        mask[[self._index_of[item_id] for item_id in options.exclude if item_id in self._index_of]] = False
        return mask

    def save(self, path: Path) -> None:
        """Write one JSON object a line, in index order."""
        path.write_text("".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in self.items), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """Read what :meth:`save` wrote."""
        return cls(tuple(_read(path.read_text(encoding="utf-8").split("\n"))))


def _read(lines: Iterable[str]) -> Iterable[CatalogueItem]:
    for line in lines:
        if line:
            given = json.loads(line)
            yield CatalogueItem(**{**given, "keywords": tuple(given["keywords"])})
