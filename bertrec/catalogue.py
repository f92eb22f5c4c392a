"""The items that can be recommended, in index order, and the masks that requests lay over them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bertrec.budget import number_in
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

    @cached_property
    def _numbers_of(self) -> dict[str, NDArray[np.float64]]:
        """Attribute → what :meth:`numbers` found, once it was asked for."""
        return {}

    def indices(self, item_ids: Iterable[str]) -> tuple[int, ...]:
        """The indices of those item ids that are in the catalogue, in their order."""
        return tuple(self._index_of[item_id] for item_id in item_ids if item_id in self._index_of)

    def allowed(self, filters: Mapping[str, Sequence[str]], exclude: Iterable[str]) -> NDArray[np.bool_]:
        """(items,) bool: what has an accepted value of each attribute and is not excluded.

        Raises InvalidInput for an attribute that no item has.
        """
        mask = np.ones(len(self.items), bool)
        for name, accepted in filters.items():
            mask &= self.having(name, accepted, "filters")
        mask[list(self.indices(exclude))] = False
        return mask

    def having(self, attribute: str, accepted: Iterable[str], place: str) -> NDArray[np.bool_]:
        """(items,) bool: which items have one of the values.

        Raises InvalidInput, naming ``place``, where no item has the attribute.
        """
        indices_of = self._of(attribute, place)
        found = np.zeros(len(self.items), bool)
        for value in accepted:
            found[indices_of.get(value, [])] = True
        return found

    def numbers(self, attribute: str, place: str) -> NDArray[np.float64]:
        """(items,) float64: the first number of each item's attribute, NaN where it has none.

        Raises InvalidInput, naming ``place``, where no item has one.
        """
        self._of(attribute, place)
        if attribute not in self._numbers_of:
            found = [number_in(item.attributes.get(attribute, "")) for item in self.items]
            self._numbers_of[attribute] = np.asarray([np.nan if number is None else number for number in found], np.float64)
        if np.isnan(self._numbers_of[attribute]).all():
            raise InvalidInput(f"{place} compares the attribute {attribute!r} with a number; no item has a number there")
        return self._numbers_of[attribute]

    def _of(self, attribute: str, place: str) -> dict[str, list[int]]:
        if attribute not in self._having:
            raise InvalidInput(f"{place} names the attribute {attribute!r}; the catalogue has {sorted(self._having)}")
        return self._having[attribute]

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
