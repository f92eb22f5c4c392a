"""Loads and unloads the models of a running Triton, through its repository API."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

from bertrec.errors import InvalidInput, ServerFailed
from serving._flags import CONTROL_HEADER

CONTROL_FILE = "server.json"
"""In a repository that ``python -m serving up --repository`` serves: the server's address and key."""

TIMEOUT_S = 120.0
"""For one model to load: a plan of TensorRT may need minutes to be compiled."""

POLL_S = 0.05


class ModelControl:
    """One server's models, and which of their versions are ready."""

    def __init__(self, url: str, key: str = "") -> None:
        """``url`` such as ``http://127.0.0.1:8000``; ``key`` is the server's control key, where it has one."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise InvalidInput(f"url is {url!r}; accepted is Triton's HTTP address, such as http://127.0.0.1:8000")
        self._url = url
        self._host, self._port = parts.hostname, parts.port or 8000
        self._key = key

    @classmethod
    def of(cls, repository: Path) -> ModelControl:
        """The server that ``python -m serving up --repository`` runs. Raises InvalidInput where none does."""
        try:
            given = json.loads((repository / CONTROL_FILE).read_text(encoding="utf-8"))
            return cls(given["url"], given["key"])
        except (OSError, ValueError, KeyError):
            raise InvalidInput(
                f"no server is known to serve {repository}; start one: python -m serving up --repository {repository}, or name "
                "it: --url http://HOST:8000 (started with --model-control-mode=explicit)"
            ) from None

    def load(self, model: str) -> None:
        """Have the versions served that lie in the model's folder. Raises ServerFailed where one does not load."""
        self._post(f"/v2/repository/models/{model}/load")

    def unload(self, model: str) -> None:
        """Have all versions of a model out of service."""
        self._post(f"/v2/repository/models/{model}/unload")

    def reload(self, model: str) -> None:
        """Unload the model and load it anew: what brings back one whose process died."""
        self.unload(model)
        self.load(model)

    def states(self, *, timeout_s: float = TIMEOUT_S) -> dict[tuple[str, int], str]:
        """(model, version) → READY, UNAVAILABLE, LOADING or UNLOADING."""
        rows = json.loads(self._post("/v2/repository/index", timeout_s=timeout_s))
        return {(row["name"], int(row["version"])): row.get("state", "") for row in rows if row.get("version")}

    def ready(self, model: str) -> set[int]:
        """The versions of a model that answer."""
        return {version for (name, version), state in self.states().items() if name == model and state == "READY"}

    def wait_until_gone(self, model: str, version: int) -> None:
        """Wait until a version is unloaded, and so every request to it was answered. Raises ServerFailed after TIMEOUT_S."""
        deadline = time.monotonic() + TIMEOUT_S
        while (state := self.states().get((model, version), "UNAVAILABLE")) != "UNAVAILABLE":
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self._url}: version {version} of {model} is still {state} after {TIMEOUT_S:g} s")
            time.sleep(POLL_S)

    def _post(self, path: str, *, timeout_s: float = TIMEOUT_S) -> bytes:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            connection.request("POST", path, "{}", {CONTROL_HEADER: self._key})
            response = connection.getresponse()
            said = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServerFailed(f"{self._url} does not answer ({error}); is the server running?") from None
        finally:
            connection.close()
        if response.status != http.client.OK:
            message = " ".join(said.decode(errors="replace").split())
            raise ServerFailed(f"{self._url}{path} was refused with HTTP {response.status}: {message}")
        return said
