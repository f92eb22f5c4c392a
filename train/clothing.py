"""The bundled data set: Women's E-Commerce Clothing Reviews (CC0), see data/README.md."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet

from train.data import Dataset, Interaction, Item

PATH = Path(__file__).parent.parent / "data" / "clothing_reviews.parquet"
ATTRIBUTES = {"Division Name": "division", "Department Name": "department", "Class Name": "class"}


def load_clothing(path: Path = PATH) -> Dataset:
    """23,486 reviews of 1,206 items; rows without a review text are dropped, a review's title is put before its text."""
    rows = [row for row in pyarrow.parquet.read_table(path).to_pylist() if (row["Review Text"] or "").strip()]
    items: dict[int, Item] = {}
    for row in rows:
        attributes = {name: row[column] for column, name in ATTRIBUTES.items() if row[column]}
        known = items.get(row["Clothing ID"])
        if known is None or len(known.attributes) < len(attributes):
            items[row["Clothing ID"]] = Item(item_id=str(row["Clothing ID"]), attributes=attributes)
    index_of = {clothing_id: index for index, clothing_id in enumerate(items)}
    interactions = tuple(
        Interaction(
            item=index_of[row["Clothing ID"]],
            text=f"{row['Title']}. {row['Review Text']}" if row["Title"] else row["Review Text"],
            headline=row["Title"] or "",
            segments={"department": row["Department Name"] or "none", "age": _band(row["Age"])},
            rating=float(row["Rating"]),
            label=float(row["Recommended IND"]),
        )
        for row in rows
    )
    return Dataset("clothing", tuple(items.values()), interactions)


def _band(age: int) -> str:
    """The decade of an age; the few below 30 and from 70 on are one band each."""
    return "under 30" if age < 30 else "70 and over" if age >= 70 else f"{age // 10 * 10} to {age // 10 * 10 + 9}"
