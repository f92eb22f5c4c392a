"""The table: aligned whatever the script, harmless whatever the title."""

from __future__ import annotations

from dataclasses import replace

from client import Answer, Correction, RankedItem, Reason, ServedBy
from client.rendering import as_record, as_table

REASONS = (Reason("lexical", 1.5, "your words: coat", ("coat",)), Reason("text", -0.25, "the meaning of your wish"))


def answer(*titles: str) -> Answer:
    items = tuple(RankedItem(f"{number:03}", 1.25, title, REASONS) for number, title in enumerate(titles))
    return Answer(items, False, "fp32", "0123456789ab", served_by=ServedBy.TRITON, latency_ms=4.24)


def test_a_table_is_what_it_should_be() -> None:
    assert as_table(answer("Coat")) == (
        "rank  item  title  score  reasons\n"
        "   1  000   Coat    1.25  your words: coat +1.50; the meaning of your wish -0.25\n"
        "served by triton, engine fp32, bundle 0123456789ab, 4.2 ms"
    )


def test_a_row_names_the_weightiest_reasons() -> None:
    reasons = tuple(Reason(name, score, name) for name, score in (("a", 3.0), ("b", 0.5), ("c", 0.1), ("d", -2.0), ("e", 0.001)))
    shown = as_table(replace(answer("Coat"), items=(RankedItem("7", 1.6, "Coat", reasons),)))
    assert shown.splitlines()[1].endswith("a +3.00; d -2.00; b +0.50")


def test_a_table_says_what_was_read_and_which_rules_fired() -> None:
    read = replace(answer(), rules=("budget", "season"), corrections=(Correction("dres", "dress"), Correction("gren", "green")))
    assert as_table(read).splitlines()[:3] == [
        "no item passes the filters, exclusions and rules",
        "read “dres” as “dress”, “gren” as “green”",
        "rules that fired: budget, season",
    ]


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
