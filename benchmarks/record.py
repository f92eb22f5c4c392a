"""What a benchmark has found so far, on disk after each finding, so that Ctrl-C loses only what was being measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import provenance
from train.records import write_json

KEPT = "interrupted; what was measured is kept"
"""What the commands that write a record say on Ctrl-C."""


class Record:
    """A JSON file with where and how something was measured, and the rows found. name: what the file calls the rows."""

    def __init__(self, path: Path, settings: Mapping[str, Any], *, name: str = "rows") -> None:
        """Write the file with no row yet, so that a path that cannot be written is known before hours are spent.

        An earlier result stays in its place until there is a row: Ctrl-C before the first loses neither. Then that it can be
        written is tried beside it.
        """
        self._path, self._name = path, name
        self._content: dict[str, Any] = {"provenance": asdict(provenance()), "complete": False, **settings, name: []}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._holds_earlier = path.is_file()
        tried = path.with_name(path.name + ".new") if self._holds_earlier else path
        write_json(tried, self._content)
        if self._holds_earlier:
            tried.unlink()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows so far."""
        return list(self._content[self._name])

    @property
    def content(self) -> dict[str, Any]:
        """All that the file holds."""
        return dict(self._content)

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep one more row, whatever happens next."""
        self._content[self._name].append(dict(row))
        self._write()

    def note(self, **more: Any) -> None:  # noqa: ANN401  # anything that JSON holds
        """Keep what concerns all rows."""
        self._content.update(more)
        self._write()

    def noted(self, name: str) -> Any:  # noqa: ANN401  # see above
        """What was kept under a name that concerns all rows."""
        return self._content[name]

    def finish(self, **more: Any) -> None:  # noqa: ANN401  # see above
        """Say that nothing is missing, and what follows from all rows together."""
        self.note(**more, complete=True)

    def _write(self) -> None:
        if self._content[self._name] or self._content["complete"]:
            self._holds_earlier = False
        if not self._holds_earlier:
            write_json(self._path, self._content)
