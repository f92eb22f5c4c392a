"""The command line's options for how a server is reached: its TLS, the token, the deadline and the retries."""

from __future__ import annotations

import argparse
import os
from typing import TypedDict

from bertrec.errors import InvalidInput

from .recommender import DEFAULT_TIMEOUT_S
from .settings import MOST_ATTEMPTS, Retries, Tls

TOKEN_VARIABLE = "BERTREC_TOKEN"
MOST_TOKEN_BYTES = 64 * 1024


class Reaching(TypedDict):
    """Arguments of :class:`client.Recommender`."""

    timeout_s: float
    retries: Retries
    tls: Tls | None
    token: str | None


def add_reaching(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command that asks a server."""
    parser.add_argument(
        "--timeout-s", type=float, default=DEFAULT_TIMEOUT_S, help="wait for the server at most so long (default: %(default)g)"
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=Retries.attempts - 1,
        metavar="N",
        help="ask again at most so often within that time (default: %(default)s)",
    )
    parser.add_argument("--ca", metavar="FILE.pem", help="certificates that a grpcs:// or https:// server's must descend from")
    parser.add_argument("--certificate", metavar="FILE.pem", help="this client's own, where the server asks for one; with --key")
    parser.add_argument("--key", metavar="FILE.pem", help="the key of --certificate")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"its content is sent as authorization: Bearer (default: the environment variable {TOKEN_VARIABLE}, if it is set)",
    )


def reaching(given: argparse.Namespace) -> Reaching:
    """What the options say. Raises InvalidInput; a token is never repeated."""
    if not 0 <= given.retries < MOST_ATTEMPTS:
        raise InvalidInput(f"--retries is {given.retries}; accepted is a whole number from 0 to {MOST_ATTEMPTS - 1}")
    files = [name for name in ("ca", "certificate", "key", "token_file") if getattr(given, name) is not None]
    if files and given.url is None:
        raise InvalidInput(f"--{files[0].replace('_', '-')} goes with --url: this process is not reached through a network")
    encrypted = set(files) - {"token_file"}
    return Reaching(
        timeout_s=given.timeout_s,
        retries=Retries(attempts=given.retries + 1),
        tls=Tls(given.ca, given.certificate, given.key) if encrypted else None,
        token=os.environ.get(TOKEN_VARIABLE) or None if given.token_file is None else _token(given.token_file),
    )


def _token(path: str) -> str:
    wanted = "accepted is a file with the token and nothing else"
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read(MOST_TOKEN_BYTES + 1).strip()
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidInput(f"--token-file {path} cannot be read ({what}); {wanted}") from None
    if not token or len(token) > MOST_TOKEN_BYTES:
        raise InvalidInput(f"--token-file {path} is {'too large' if token else 'empty'}; {wanted}")
    return token
