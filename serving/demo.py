"""python -m serving.demo: three wishes to a real Triton, and one to the CPU fallback when the server is gone."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bertrec.errors import BertrecError
from client.recommender import Recommender
from client.rendering import as_table
from serving.triton import TritonServer

WISHES = (
    "a warm coat that is not bulky",
    "I want a dress for a summer wedding, with sleeves, and I am short",
    "soft jeans that do not stretch out after a day",
)
ITEMS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m serving.demo", description=__doc__)
    parser.add_argument("--repository", required=True, type=Path, metavar="DIR", help="written by python -m serving assemble")
    parser.add_argument("--bundle", required=True, type=Path, metavar="bundles/NAME", help="answers while the server cannot")
    given = parser.parse_args(arguments)
    try:
        _show(given.repository, given.bundle)
    except BertrecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _show(repository: Path, bundle: Path) -> None:
    began = time.monotonic()
    print("starting tritonserver …", flush=True)
    with TritonServer(repository) as server:
        print(f"tritonserver is ready at {server.grpc_url} after {time.monotonic() - began:.1f} s", flush=True)
        with Recommender(server.grpc_url, fallback=bundle) as recommender:
            for wish in WISHES:
                _ask(recommender, wish)
            server.stop()
            print("\nthe server was stopped; the same client is asked the first wish again")
            _ask(recommender, WISHES[0])


def _ask(recommender: Recommender, wish: str) -> None:
    print(f"\n> {wish}\n{as_table(recommender.recommend(wish, k=ITEMS))}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
