"""The table: aligned whatever the script, harmless whatever the title."""

from __future__ import annotations

from client import Answer, RankedItem, Reason, ServedBy
from client.rendering import as_record, as_table

REASONS = (Reason("lexical", 1.5, ("coat",)), Reason("text", -0.25))


def answer(*titles: str) -> Answer:
    items = tuple(RankedItem(f"{number:03}", 1.25, title, REASONS) for number, title in enumerate(titles))
    return Answer(items, False, "fp32", "0123456789ab", ServedBy.TRITON, 4.24)


def test_a_table_is_what_it_should_be() -> None:
    assert as_table(answer("Coat")) == (
        "rank  item  title  score  reasons\n"
        "   1  000   Coat    1.25  your words: coat +1.50; the meaning of your wish -0.25\n"
        "served by triton, engine fp32, bundle 0123456789ab, 4.2 ms"
    )


def test_wide_and_combining_characters_keep_the_columns() -> None:
    plain, wide, combining = as_table(answer("coats", "外套", "cote\u0301s")).splitlines()[1:4]
    assert plain.index("1.25") == wide.index("1.25") + 2 == combining.index("1.25") - 1


def test_control_characters_do_not_reach_the_terminal() -> None:
    table = as_table(answer("a\x1b[2Jb\nc\x07"))
    assert "a [2Jb c " in table
    assert len(table.splitlines()) == 3


def test_a_record_has_plain_values() -> None:
    record = as_record("coat", answer("Coat"))
    assert (record["served_by"], type(record["served_by"]), record["latency_ms"]) == ("triton", str, 4.24)
