"""Items added to a bundle without training: found by what is said of them, beside the old ones, which stay as they are."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bertrec.bundle import MAPS_FOLDER, Bundle, seal
from bertrec.errors import InvalidBundle, InvalidData, InvalidInput
from client import Recommender
from export.__main__ import main
from export.build import BuildSettings, build_bundle
from export.catalogue import extend_catalogue
from export.ranker import read_items
from tests.tiny import WORDS
from train.fit import fit
from train.settings import PRESETS, Preset

COLOURS, KINDS = WORDS[:6], WORDS[21:27]
NEW = [(colour, KINDS[place]) for place, colour in enumerate(COLOURS)]
"""One of every colour and of every kind is not in the catalogue that is trained on."""


def item(colour: str, kind: str) -> dict[str, str]:
    return {"item_id": f"{colour}-{kind}", "text": f"{colour} {kind}", "colour": colour, "kind": kind}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Bundle:
    folder = tmp_path_factory.mktemp("catalogue")
    items = [item(colour, kind) for colour in COLOURS for kind in KINDS if (colour, kind) not in NEW]
    wishes = ("i want a {}", "{} please", "the {} again", "a {} for me")
    rows = [{"item_id": one["item_id"], "text": wish.format(one["text"])} for one in items for wish in wishes]
    (folder / "items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in items))
    (folder / "interactions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = dataclasses.replace(PRESETS[Preset.QUICK], backbone=str(tiny_backbone), max_minutes=None)
    return build_bundle(fit(str(folder), settings, folder / "run"), folder / "bundle", BuildSettings(engines="fp32"))


@pytest.fixture(scope="module")
def new_items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("new") / "items.jsonl"
    path.write_text("".join(json.dumps(item(*one)) + "\n" for one in NEW))
    return path


@pytest.fixture(scope="module")
def extended(bundle: Bundle, new_items: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return extend_catalogue(bundle, new_items, tmp_path_factory.mktemp("extended") / "bundle")


def test_a_new_item_is_found_by_what_is_said_of_it(extended: Bundle) -> None:
    with Recommender(bundle=extended.folder) as recommender:
        for colour, kind in NEW:
            found = [one.item_id for one in recommender.recommend(f"i want a {colour} {kind}", k=3, popularity=0.0).items]
            assert f"{colour}-{kind}" in found


def test_the_old_items_keep_their_scores_and_their_places(bundle: Bundle, extended: Bundle) -> None:
    count = len(bundle.catalogue())
    assert len(extended.catalogue()) == count + len(NEW)
    assert extended.catalogue().items[:count] == bundle.catalogue().items
    before, after = (read_items(one.engine_path("ranker", "fp32")) for one in (bundle, extended))
    for signal, vectors in before.items():
        np.testing.assert_array_equal(after[signal][:count], vectors)
    assert (after["prior"][count:] <= before["prior"].min() + 1e-5).all()  # nobody chose them yet


def test_a_new_item_is_explained_by_its_attributes(extended: Bundle) -> None:
    colour, kind = NEW[0]
    with Recommender(bundle=extended.folder) as recommender:
        (only,) = recommender.recommend(f"{colour} {kind}", filters={"colour": [colour], "kind": [kind]}).items
    (graph,) = [reason for reason in only.reasons if reason.signal == "graph"]
    assert colour in graph.words


def test_the_manifest_says_what_was_extended(bundle: Bundle, extended: Bundle) -> None:
    assert extended.fingerprint != bundle.fingerprint
    assert extended.manifest.data["extends"] == bundle.manifest.fingerprint
    assert extended.manifest.data["items_added"] == len(NEW)


def test_an_extended_bundle_can_be_extended(extended: Bundle, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title,colour\nlast,silver apron,silver\n")
    again = extend_catalogue(extended, tmp_path / "items.csv", tmp_path / "again")
    assert again.catalogue().items[-1].title == "silver apron"
    assert read_items(again.engine_path("ranker", "fp32"))["text"].shape[0] == len(again.catalogue())


def test_what_cannot_be_added_is_refused_and_nothing_is_left(bundle: Bundle, new_items: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.jsonl"
    known.write_text(json.dumps(item(COLOURS[0], KINDS[1])) + "\n")
    with pytest.raises(InvalidData, match=r"item 1: .* is in the catalogue already; give only new items"):
        extend_catalogue(bundle, known, tmp_path / "out")
    silent = tmp_path / "silent.jsonl"
    silent.write_text('{"item_id": "x"}\n')
    with pytest.raises(InvalidData, match=r"item 1: 'x' has no title, text or attribute"):
        extend_catalogue(bundle, silent, tmp_path / "out")
    with pytest.raises(InvalidInput, match="A bundle is never changed"):
        extend_catalogue(bundle, new_items, bundle.folder)
    assert {path.name for path in tmp_path.iterdir()} == {"known.jsonl", "silent.jsonl"}


def test_the_command_line_extends(bundle: Bundle, new_items: Path, tmp_path: Path) -> None:
    arguments = ["catalogue", "--bundle", str(bundle.folder), "--items", str(new_items), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert Bundle.open(tmp_path / "out").manifest.data["items_added"] == len(NEW)
    assert main(arguments) == 2


def test_a_compact_bundle_is_not_extended(bundle: Bundle, new_items: Path, tmp_path: Path) -> None:
    compact = shutil.copytree(bundle.folder, tmp_path / "compact")
    shutil.rmtree(compact / MAPS_FOLDER)
    seal(compact, bundle.manifest)
    with pytest.raises(InvalidBundle, match=r"is compact: it has no maps/.*without --target edge"):
        extend_catalogue(Bundle.open(compact), new_items, tmp_path / "more")
    assert not (tmp_path / "more").exists()
