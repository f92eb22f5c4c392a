"""Applications of Debian's archive, in their own words, English and Chinese; fetched by ``make data-apps``, see data/README.md.

    data/apps/items.jsonl           item_id (component id), title, text (summary), category (joined by ``|``), package
    data/apps/interactions.jsonl    item_id, text, split (train, validation, test), query (english sentence, chinese summary,
                                    chinese sentence)

:mod:`train.appstream` makes these rows. Without ``query`` they are the format of a user's own folder, which reads them too.
"""

from __future__ import annotations

from pathlib import Path

from bertrec.errors import InvalidData
from train.data import TRAIN, Dataset, Interaction, Item
from train.formats import read_table

FOLDER = Path(__file__).parent.parent / "data" / "apps"
ITEMS_FILE, INTERACTIONS_FILE = "items.jsonl", "interactions.jsonl"
ATTRIBUTES = ("category", "package")


def load_apps(folder: Path = FOLDER) -> Dataset:
    """Some 2,000 applications, and sentences that ask for them; the split is in the files.

    segments: ``query``, see above; ``item``, whether training has texts of the application besides its name and summary.
    Raises InvalidData where the files have not been fetched or cannot be read.
    """
    missing = [name for name in (ITEMS_FILE, INTERACTIONS_FILE) if not (folder / name).exists()]
    if missing:
        raise InvalidData(
            f"data set 'apps' has not been fetched: {folder / missing[0]} is missing; fetch it with: make data-apps"
        )
    table = read_table(folder / ITEMS_FILE, required=("item_id", "title", "text", *ATTRIBUTES))
    ids, titles, texts = (list(map(str, table.column(name))) for name in ("item_id", "title", "text"))
    attributes = [
        {name: str(value) for name, value in zip(ATTRIBUTES, values, strict=True) if value}
        for values in zip(*(table.column(name) for name in ATTRIBUTES), strict=True)
    ]
    return Dataset("apps", tuple(map(Item, ids, titles, texts, attributes)), _interactions(folder / INTERACTIONS_FILE, ids))


def _interactions(path: Path, item_ids: list[str]) -> tuple[Interaction, ...]:
    columns = ("item_id", "text", "split", "query")
    table = read_table(path, required=columns)
    index_of = {item_id: index for index, item_id in enumerate(item_ids)}
    rows = list(zip(*(map(str, table.column(name)) for name in columns), strict=True))
    unknown = [row for row, (item_id, *_) in enumerate(rows) if item_id not in index_of]
    if unknown:
        raise table.error(unknown[0], "item_id", found=repr(rows[unknown[0]][0]), accepted=f"an item_id of {ITEMS_FILE}")
    seen = {item_id for item_id, _, split, _ in rows if split == TRAIN}
    return tuple(
        Interaction(
            item=index_of[item_id],
            text=text,
            split=split,
            segments={"query": query, "item": "seen in training" if item_id in seen else "new"},
        )
        for item_id, text, split, query in rows
    )
