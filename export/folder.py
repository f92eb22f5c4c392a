"""A bundle's folder is written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bertrec.errors import InvalidInput


@contextmanager
def written_whole(output: Path) -> Iterator[Path]:
    """A new folder beside ``output`` to write in; it takes that name at the end, and is gone if something goes wrong.

    Raises InvalidInput where the disk does not take it.
    """
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, output)
    except OSError as error:
        raise InvalidInput(
            f"the bundle {output} cannot be written: {error}. Free some space or choose another --output"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
