"""A recommender and its process: forks are told so, and a bundle is answered from in a read-only folder and without a network."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.processes import why_no_mounts
from bertrec.errors import InvalidInput
from client import AsyncRecommender, Recommender
from tests.serving.processes import ROOT

WHY_NO_MOUNTS = why_no_mounts()

READ_ONLY = """
set -e
mount --bind "$BUNDLE" "$BUNDLE"
mount -o remount,ro,bind "$BUNDLE"
if touch "$BUNDLE/x" 2> /dev/null; then echo "it can be written" >&2; exit 1; fi
exec "$@"
"""

ASK = """
import socket, sys
from client import Recommender
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except OSError as error:
    print(error.errno)
with Recommender(bundle=sys.argv[1], threads=1) as recommender:
    print(*[item.item_id for item in recommender.recommend("green gown", k=3).items])
"""


def in_a_fork(ask: Callable[[], Any]) -> str:
    """What a forked process got; it is given ten seconds."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()

    def work() -> None:
        try:
            results.put(str(ask()))
        except InvalidInput as error:
            results.put(f"refused: {error}")

    process = context.Process(target=work)
    process.start()
    try:
        return str(results.get(timeout=10))
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("kind", [Recommender, AsyncRecommender])
def test_a_recommender_from_before_a_fork_is_refused_and_its_own_process_goes_on(tiny_bundle: Path, kind: type[Any]) -> None:
    recommender = kind(bundle=tiny_bundle, threads=2)
    said = in_a_fork(lambda: recommender._call("red", None, None))
    assert said.startswith("refused: this recommender was made before the fork, in process ")
    assert said.endswith("; make one in each process")


def test_one_that_is_made_in_the_fork_answers_there(tiny_bundle: Path) -> None:
    with Recommender(bundle=tiny_bundle, threads=2) as recommender:
        expected = recommender.recommend("red", k=1).items[0].item_id
        refused = in_a_fork(lambda: recommender.recommend("red"))
        assert "make one in each process" in refused

        def ask() -> str:
            with Recommender(bundle=tiny_bundle, threads=2) as own:
                return own.recommend("red", k=1).items[0].item_id

        assert in_a_fork(ask) == expected
        assert recommender.recommend("red", k=1).items[0].item_id == expected


@pytest.mark.skipif(WHY_NO_MOUNTS is not None, reason=f"nothing can be mounted here: {WHY_NO_MOUNTS}")
def test_a_bundle_in_a_read_only_folder_is_answered_from_without_a_network(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    with Recommender(bundle=tiny_bundle, threads=1) as recommender:
        expected = " ".join(item.item_id for item in recommender.recommend("green gown", k=3).items)
    done = subprocess.run(
        ["unshare", "-rmn", "sh", "-c", READ_ONLY, "sh", sys.executable, "-c", ASK, str(bundle)],
        cwd=ROOT,
        env={"BUNDLE": str(bundle), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    unreachable, items = done.stdout.splitlines()
    assert (unreachable, items) == ("101", expected)  # ENETUNREACH
