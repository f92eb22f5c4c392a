"""Brings back models whose process died inside a living server.

Triton 2.51 does not: a killed stub of the python backend stays dead, each request to its model waits for a second and fails, and
the server, the model and the index go on to say ready.
"""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path

from bertrec.errors import ServerFailed
from serving.control import ModelControl

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""How long the server may take to tell what it serves."""

Found = set[tuple[str, int]]


class Watch:
    """Looks at one server's stubs; :meth:`look` is to be called about once a second."""

    def __init__(self, server_pid: int, control: ModelControl) -> None:
        self._pid = server_pid
        self._control = control
        self._missed: Found = set()
        self._failed: dict[str, str] = {}  # model that was unloaded here and is not loaded again → why

    def look(self) -> list[str]:
        """Load those models anew that miss a process for the second time in a row, and return the names of those that loaded.

        One that does not load is tried again at the next look: it is unloaded then, and would not be found missing any more.
        Raises ServerFailed where the server does not answer.
        """
        states = self._control.states(timeout_s=LOOK_S)
        ready = {key for key, state in states.items() if state == "READY"}
        missing = ready - _living(self._pid)
        dead = sorted({model for model, _ in missing & self._missed})
        self._missed = missing
        for model in dead:
            log.warning("the process of model %s died; it is loaded anew", model)
        still_there = {model for model, _ in states}  # an update may have taken one away meanwhile
        self._failed = {model: why for model, why in self._failed.items() if model in still_there}
        return [model for model in sorted({*dead, *self._failed}) if self._bring_back(model)]

    def _bring_back(self, model: str) -> bool:
        try:
            self._control.reload(model)
        except ServerFailed as error:
            if self._failed.get(model) != str(error):  # once, and not each second
                log.warning("model %s does not load, which is tried again: %s", model, error)
            self._failed[model] = str(error)
            return False
        if self._failed.pop(model, None):
            log.warning("model %s is loaded again", model)
        return True


def _living(server_pid: int) -> Found:
    """(model, version) of the server's living stubs, by their command lines."""
    found: Found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) != server_pid or state == "Z":
                continue
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
            if named := re.search(r"/([^/\0]+)/(\d+)/model\.\w+\0", command):
                found.add((named[1], int(named[2])))
    return found
