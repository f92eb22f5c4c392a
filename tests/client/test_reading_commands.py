"""The commands match, classify, embed and monitor, from arguments to what is printed."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from bertrec.labels import NEGATIVE, SENTIMENTS
from client import Classified, InvalidInput, Recommender, ServedBy
from client.__main__ import main
from client.readings import Watch


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    said = capsys.readouterr()
    return status, said.out, said.err


def give(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))


def test_match_writes_a_probability_for_each_item(capsys: pytest.CaptureFixture[str], full_bundle: Path) -> None:
    status, out, _ = run(capsys, "match", "a green gown", "--items", "7,0", "--bundle", str(full_bundle), "--json")
    record = json.loads(out)
    with Recommender(bundle=full_bundle) as recommender:
        wanted = recommender.match("a green gown", ["7", "0"])
    assert status == 0
    assert [(one["item_id"], one["probability"]) for one in record["matches"]] == [
        (one.item_id, pytest.approx(one.probability, abs=1e-5)) for one in wanted.matches
    ]
    _, out, _ = run(capsys, "match", "a green gown", "--items", "7,0", "--bundle", str(full_bundle))
    assert out.splitlines()[1] == f"  {wanted.matches[0].probability:6.1%}  7  Item 7"


def test_classify_reads_lines_and_reports_the_bad_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, full_bundle: Path
) -> None:
    give(monkeypatch, "a green gown\n\u200b\nred\n")
    status, out, err = run(capsys, "classify", "-", "--bundle", str(full_bundle), "--json")
    assert status == 2 and err.startswith("error: line 2: text 0 is empty")
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["text"] for record in records] == ["a green gown", "red"]
    assert all(set(record["labels"]) == {"sentiment", "fabric"} and 0 < record["recommends"] < 1 for record in records)
    _, out, _ = run(capsys, "classify", "red", "--bundle", str(full_bundle))
    assert [line.split(":")[0].strip() for line in out.splitlines()] == ["red", "sentiment", "fabric", "recommends it"]


def test_embed_writes_the_vector(capsys: pytest.CaptureFixture[str], tiny_bundle: Path) -> None:
    _, out, _ = run(capsys, "embed", "red", "--bundle", str(tiny_bundle), "--json")
    with Recommender(bundle=tiny_bundle) as recommender:
        assert json.loads(out)["vector"] == pytest.approx(recommender.embed("red").vector.tolist(), abs=1e-6)
    _, out, _ = run(capsys, "embed", "red", "--bundle", str(tiny_bundle))
    assert out.splitlines()[1].startswith("  32 numbers: ")


def watch(*arguments: str) -> Watch:
    from client.__main__ import _parser

    return Watch(_parser().parse_args(["monitor", "--window", "20", *arguments]))


def said(sentiment: str, fabric: str) -> Classified:
    labels = {
        "sentiment": {one: float(one == sentiment) for one in SENTIMENTS},
        "fabric": {"wool": 0.0, "silk": 0.0, fabric: 1.0},
    }
    return Classified(labels, None, False, "fp32", "0", served_by=ServedBy.EDGE, latency_ms=1.0)


def test_a_topic_that_is_suddenly_spoken_of_badly_raises_an_alert() -> None:
    watching = watch("--json")
    stream = [said("positive", fabric) for _ in range(100) for fabric in ("wool", "silk")]
    assert [watching.see(one) for one in stream] == [None] * 200
    alerts = [found for _ in range(20) if (found := watching.see(said(NEGATIVE, "silk"))) is not None]
    assert json.loads(alerts[0])["topic"] == "silk"
    assert watching.see(said(NEGATIVE, "wool")) is None


def test_monitor_reads_a_stream_and_says_what_it_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, full_bundle: Path, tiny_bundle: Path
) -> None:
    give(monkeypatch, "a green gown\nred\n")
    assert run(capsys, "monitor", "--bundle", str(full_bundle)) == (0, "", "")
    give(monkeypatch, "red\n")
    status, _, err = run(capsys, "monitor", "--bundle", str(full_bundle), "--topic", "mood")
    assert status == 2 and "head is 'mood'; this bundle has sentiment, fabric" in err
    give(monkeypatch, "red\n")
    status, _, err = run(capsys, "monitor", "--bundle", str(tiny_bundle))
    assert status == 2 and "classify needs a bundle with heads" in err
    assert run(capsys, "monitor", "--bundle", str(full_bundle), "--window", "1")[0] == 2
    assert run(capsys, "monitor")[2].startswith("error: say whom to ask")


def test_a_bundle_without_topics_cannot_be_watched() -> None:
    alone = Classified({"sentiment": {NEGATIVE: 1.0}}, None, False, "", "", served_by=ServedBy.EDGE, latency_ms=1.0)
    with pytest.raises(InvalidInput, match="has no head for topics, only sentiment"):
        watch().see(alone)


def test_with_a_baseline_a_topic_raises_an_alert_in_its_first_window(tmp_path: Path) -> None:
    stream = [said(NEGATIVE, "silk")] * 20
    assert [found for one in stream if (found := watch().see(one))] == []
    counts = tmp_path / "counts.json"
    counts.write_text('{"silk": {"negative": 5, "texts": 400}}')
    watching = watch("--json", "--baseline", str(counts))
    (alert,) = (json.loads(found) for one in stream if (found := watching.see(one)) is not None)
    assert (alert["topic"], alert["position"], alert["before"]) == ("silk", 20, {"negative": 5, "texts": 400})


def test_earlier_texts_are_classified_and_counted_before_the_stream(tmp_path: Path) -> None:
    texts = tmp_path / "earlier.txt"
    texts.write_text("good\n\nbad\n" * 100)
    asked: list[str] = []

    def classify(given: list[str]) -> list[Classified]:
        asked.extend(given)
        return [said("positive" if text == "good" else NEGATIVE, "wool") for text in given]

    watching = watch("--json", "--baseline", str(texts))
    watching.begin(classify)
    assert asked == ["good", "bad"] * 100
    (alert,) = (json.loads(found) for _ in range(20) if (found := watching.see(said(NEGATIVE, "wool"))) is not None)
    assert alert["before"] == {"negative": 100, "texts": 200}


def test_alpha_is_the_level_that_an_alert_falls_to(tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    counts.write_text('{"silk": {"negative": 100, "texts": 400}}')
    stream = [said(NEGATIVE if number < 13 else "positive", "silk") for number in range(20)]  # 13 of 20, by chance once in 3,482
    for alpha, alerts in (("0.05", 0), ("0.2", 1)):  # each look may be wrong once in 10,000, and in 2,500
        watching = watch("--alpha", alpha, "--baseline", str(counts))
        assert sum(watching.see(one) is not None for one in stream) == alerts


def test_a_baseline_is_read_by_the_command_and_refused_where_it_is_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, full_bundle: Path, tmp_path: Path
) -> None:
    file = tmp_path / "earlier.txt"
    file.write_text("a green gown\nred\n" * 50)
    give(monkeypatch, "red\n")
    assert run(capsys, "monitor", "--bundle", str(full_bundle), "--baseline", str(file)) == (0, "", "")
    status, _, err = run(capsys, "monitor", "--bundle", str(full_bundle), "--alpha", "1")
    assert status == 2 and "alpha is 1.0; accepted is a number above 0 and below 1" in err
    for name, content, why in (
        ("missing.txt", None, "No such file"),
        ("shares.json", '{"silk": 0.2}', "accepted is a file with one text a line"),
        ("halves.json", '{"silk": {"negative": 0.5, "texts": 2}}', "no whole number"),
        ("many.json", '{"silk": {"negative": 3, "texts": 2}}', "3 of 2 texts are negative"),
        ("list.json", "[1]", "accepted is a file"),
    ):
        wrong = tmp_path / name
        if content is not None:
            wrong.write_text(content)
        status, _, err = run(capsys, "monitor", "--bundle", str(full_bundle), "--baseline", str(wrong))
        assert status == 2 and f"--baseline {wrong} cannot be read" in err and why in err
        assert err.count("\n") == 1
