"""A bundle that is not exactly what was sealed is refused before anything of it is loaded."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from bertrec.bundle import MANIFEST_FILE, Bundle
from bertrec.errors import InvalidBundle, InvalidInput


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "copy")


def rewrite(folder: Path, **changes: object) -> None:
    """Change the manifest by hand, as somebody would who does not know of the fingerprint."""
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_was_sealed_opens(copy: Path) -> None:
    bundle = Bundle.open(copy)
    assert len(bundle.catalogue()) == 21
    assert bundle.engine_path("encoder", "int8").is_file()
    assert len(bundle.fingerprint) == 12


def test_every_file_is_guarded_against_one_flipped_bit(copy: Path) -> None:
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert len(files) >= 9
    for path in files:
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        with pytest.raises(InvalidBundle, match=path.name):
            Bundle.open(copy)
        path.write_bytes(whole)
    Bundle.open(copy)


def test_missing_and_shortened_files_are_named(copy: Path) -> None:
    path = copy / "ranker" / "fp32.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(InvalidBundle, match=rf"fp32\.onnx has {len(whole) - 1} bytes instead of {len(whole)}.*export build"):
        Bundle.open(copy)
    path.unlink()
    with pytest.raises(InvalidBundle, match=r"ranker/fp32\.onnx is missing"):
        Bundle.open(copy)


def test_engines_may_live_elsewhere_when_asked(copy: Path) -> None:
    shutil.rmtree(copy / "encoder")
    shutil.rmtree(copy / "ranker")
    assert len(Bundle.open(copy, engines=False).catalogue()) == 21
    (copy / "tokenizer.json").unlink()
    with pytest.raises(InvalidBundle, match=r"tokenizer\.json is missing"):
        Bundle.open(copy, engines=False)


@pytest.mark.parametrize("name", ["../outside.npy", "/etc/hostname", "signals/../../outside.npy"])
def test_a_path_that_leaves_the_folder_is_refused(copy: Path, name: str) -> None:
    manifest = json.loads((copy / MANIFEST_FILE).read_text())
    record = next(iter(manifest["files"].values()))
    rewrite(copy, files={**manifest["files"], name: record})
    with pytest.raises(InvalidBundle):  # already by the fingerprint …
        Bundle.open(copy)
    forged = Bundle.open(_restored(copy, manifest)).manifest
    forged = dataclasses.replace(forged, files={**forged.files, name: next(iter(forged.files.values()))})
    (copy / MANIFEST_FILE).write_text(forged.to_json())
    with pytest.raises(InvalidBundle, match="leaves the bundle's folder"):  # … and by its path where that was forged too
        Bundle.open(copy)


def _restored(folder: Path, manifest: dict[str, object]) -> Path:
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    return folder


def test_a_link_out_of_the_folder_is_refused(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "tokenizer.json"
    shutil.move(copy / "tokenizer.json", target)
    (copy / "tokenizer.json").symlink_to(target)
    with pytest.raises(InvalidBundle, match="leaves the bundle's folder"):
        Bundle.open(copy)


def test_other_versions_and_other_things_are_refused(copy: Path, tmp_path: Path) -> None:
    rewrite(copy, schema_version=99)
    with pytest.raises(InvalidBundle, match=r"schema version 99; this release reads version 3.*export build"):
        Bundle.open(copy)
    (copy / MANIFEST_FILE).write_text("[]")
    with pytest.raises(InvalidBundle, match="is not a bundle's manifest"):
        Bundle.open(copy)
    (copy / MANIFEST_FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidBundle, match="is not UTF-8"):
        Bundle.open(copy)
    (copy / MANIFEST_FILE).unlink()
    with pytest.raises(InvalidBundle, match=r"has no manifest\.json"):
        Bundle.open(copy)
    with pytest.raises(InvalidBundle, match="is not a folder"):
        Bundle.open(tmp_path / "nothing")


def test_an_unknown_engine_names_those_there_are(copy: Path) -> None:
    with pytest.raises(InvalidInput, match="no encoder engine 'fp64'; it has fp32, int8"):
        Bundle.open(copy).engine("encoder", "fp64")
