"""How the commands of the stages end: with their own exit status, or with one line that says why not."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bertrec.errors import BertrecError

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count


def run_command(command: Callable[[], int], *, interrupted: str) -> int:
    """The command's exit status; 2 for what cannot be done, a full disk included; 130 on Ctrl-C, with what that leaves."""
    try:
        return command()
    except (BertrecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  # the commands' own output
        return BAD_INPUT
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)  # noqa: T201
        return INTERRUPTED
