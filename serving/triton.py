"""Starts the tritonserver that comes with nvidia-pytriton on an assembled repository, and stops it without a trace."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from bertrec.errors import ServerFailed
from bertrec.tensors import MODELS
from serving import _supervise
from serving._flags import EXIT_TIMEOUT_S, Control, Ports, Tracing, cache_environment, local_command
from serving._installation import Installation
from serving.assemble import MODELS_FOLDER, Target, describe

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
GRACE_S = EXIT_TIMEOUT_S + 7.0
"""How long a stopping server may take in all; unloading a model alone takes it a second or two. Then it is killed."""

POLL_S = 0.02
READY_PATH = "/v2/health/ready"

REASONS = (
    (r"failed to load '([^']+)' version \d+: (.*?)\"?$", r"model \1 does not load: \2"),
    (r"Poll failed for model directory '([^']+)': (.*?)\"?$", r"model \1 cannot be read: \2"),
)
"""Lines of Triton's log that say why it failed, most telling first, and how to say it."""

LEAST_SHARED_MEMORY = 32 * 2**20
"""Each model's process, four to eight, takes 1 MiB at the start and more for large batches. Docker gives 64 MiB if not told."""

START_ATTEMPTS = 3
"""Somebody else may take a free port between its choice and the server's start; then others are chosen."""


class TritonServer:
    """One tritonserver process. As a context manager it is started on entering and stopped on leaving.

    It also ends when the program that started it does, be it killed.
    """

    def __init__(
        self,
        repository: Path,
        *,
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        address: str = LOOPBACK,
        log_path: Path | None = None,
        ready_timeout_s: float = 60.0,
        cache_mb: int = 0,
        tracing: Tracing | None = None,
    ) -> None:
        """``repository`` is what :func:`serving.assemble.assemble` wrote, for the target cpu.

        Port 0 has a free one chosen. The server's own log goes to ``log_path``, if given. ``cache_mb`` is the memory, in MiB,
        in which ``recommend`` keeps answers, to be given again to an equal request; 0 for none.
        Raises InvalidInput for a cache that has no such size.
        """
        self._caching = cache_environment(cache_mb)
        self._control = Control()
        self._tracing = tracing
        self._repository = Path(repository)
        self._wanted = Ports(grpc_port, http_port, metrics_port)
        self._address = address
        self._log_path = log_path
        self._ready_timeout_s = ready_timeout_s
        self._ports: Ports | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._log: IO[bytes] | None = None
        self._folder: Path | None = None
        self._region_prefix = _supervise.region_prefix(secrets.token_hex(4))

    def start(self) -> TritonServer:
        """Start the server and wait until it and all its models are ready.

        Raises ServerFailed, saying why in one line, where it does not start; MissingDependency where it is not installed.
        """
        if self.is_alive():
            raise ServerFailed(f"this server was started already, as process {self._pid}")
        _check_target(self._repository)
        installation = Installation.find()
        _supervise.remove_abandoned_regions()
        _supervise.remove_abandoned_folders(Path(tempfile.gettempdir()))
        _check_shared_memory()
        for attempt in range(1, START_ATTEMPTS + 1):
            self._ports = _choose_ports(self._address, self._wanted)
            try:
                self._launch(installation, self._ports)
                self._wait_until_ready(self._ports)
                break
            except _PortTaken as error:
                self.kill()
                if attempt == START_ATTEMPTS:
                    raise ServerFailed(str(error)) from None
            except BaseException:
                self.kill()  # it answers nobody yet
                raise
        log.info("Triton serves %s at %s and %s (process %s)", self._repository, self.grpc_url, self.http_url, self._pid)
        return self

    @property
    def grpc_url(self) -> str:
        """Such as ``grpc://127.0.0.1:8001``."""
        return f"grpc://{self._host}:{self._started.grpc}"

    @property
    def http_url(self) -> str:
        """Such as ``http://127.0.0.1:8000``."""
        return f"http://{self._host}:{self._started.http}"

    @property
    def metrics_url(self) -> str:
        """Such as ``http://127.0.0.1:8002/metrics``."""
        return f"http://{self._host}:{self._started.metrics}/metrics"

    @property
    def ports(self) -> Ports:
        """Those that it listens on: a number each, also where 0 was wanted."""
        return self._started

    @property
    def control(self) -> Control:
        """What it takes to load and unload models (:mod:`serving.update`)."""
        return self._control

    @property
    def pid(self) -> int:
        """The process id of tritonserver, which is also its process group's."""
        if self._pid is None:
            raise ServerFailed("the server was not started")
        return self._pid

    def is_alive(self) -> bool:
        """Whether the server runs."""
        return self._supervisor is not None and self._supervisor.poll() is None

    def stop(self) -> None:
        """Let requests in flight end, stop the server, and remove what it leaves behind. Does nothing if it was stopped."""
        if self._supervisor is not None:
            assert self._supervisor.stdin is not None
            with contextlib.suppress(BrokenPipeError), self._supervisor.stdin as stdin:
                stdin.write(b"\n")  # the sign to stop; its end would do, but a forked child may hold a copy of the pipe
            self._supervisor.wait()
            self._supervisor = None
            _supervise.remove_regions(self._region_prefix)  # again, if it was the supervisor that somebody killed
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def kill(self) -> None:
        """Kill the server and its stubs at once, as a crash would; then clean up as :meth:`stop` does."""
        if self.is_alive() and self._pid is not None:  # None: interrupted before the supervisor had said it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
        self.stop()

    def __enter__(self) -> TritonServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def _started(self) -> Ports:
        if self._ports is None:
            raise ServerFailed("the server was not started")
        return self._ports

    @property
    def _host(self) -> str:
        """The address to connect to; a server bound to every address is reached over the loopback one."""
        return LOOPBACK if self._address == "0.0.0.0" else self._address

    def _launch(self, installation: Installation, ports: Ports) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix=_supervise.folder_prefix("triton")))
        installation.lay_out(self._folder)
        self._log = self._log_path.open("w+b") if self._log_path else tempfile.TemporaryFile()
        command = local_command(
            installation,
            self._repository / MODELS_FOLDER,
            folder=self._folder,
            ports=ports,
            address=self._address,
            region_prefix=self._region_prefix,
            control=self._control,
            tracing=self._tracing,
        )
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", _supervise.__file__, self._region_prefix, str(self._folder), str(GRACE_S), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**installation.environment(self._folder), **self._caching},
            start_new_session=True,  # Ctrl-C at the terminal is for the program, which then stops the server in order
        )
        assert self._supervisor.stdout is not None
        with self._supervisor.stdout as output:
            self._pid = int(output.readline() or 0)

    def _wait_until_ready(self, ports: Ports) -> None:
        deadline = time.monotonic() + self._ready_timeout_s
        while not (_is_ok(self._host, ports.http, READY_PATH) and _is_open(self._host, ports.metrics)):
            if not self.is_alive():
                raise self._failure("Triton did not start")
            if time.monotonic() > deadline:
                raise self._failure(f"Triton was not ready after {self._ready_timeout_s:g} s")
            time.sleep(POLL_S)
        found = {path.name for path in (self._repository / MODELS_FOLDER).iterdir()}
        for model in sorted(found | {model.name for model in MODELS}):  # ready means: all models that it found
            if not _is_ok(self._host, ports.http, f"/v2/models/{model}/ready"):
                raise self._failure(f"Triton serves no model {model}")

    def _failure(self, what: str) -> ServerFailed:
        assert self._log is not None
        self._log.seek(0)
        text = self._log.read().decode(errors="replace")
        if found := re.search(r"Socket '([^']+)' already in use", text):
            return _PortTaken(f"{what}: {found[1]} is taken by another program; choose another port, or 0 for a free one")
        more = f" (more in {self._log_path})" if self._log_path else ""
        return ServerFailed(f"{what}: {_reason(text)}{more}")


class _PortTaken(ServerFailed):
    """A port was taken between its choice and the server's start."""


def _check_target(repository: Path) -> None:
    target = describe(repository).target
    if target != Target.CPU.value:
        raise ServerFailed(
            f"{repository} is for the target {target}, which needs NVIDIA's container; assemble one for this machine: "
            f"python -m serving assemble --target {Target.CPU.value} --bundle BUNDLE --output DIR"
        )


def _check_shared_memory() -> None:
    free = shutil.disk_usage(_supervise.REGIONS).free
    if free < LEAST_SHARED_MEMORY:
        raise ServerFailed(
            f"{_supervise.REGIONS} has {free // 2**20} MiB free; Triton's python backend needs {LEAST_SHARED_MEMORY // 2**20}: "
            "remove what others left there, mount it larger, or start the container with --shm-size=256m"
        )


def _choose_ports(address: str, wanted: Ports) -> Ports:
    """The ports to use; each is bound for a moment, all at once, so that no two are the same."""
    with contextlib.ExitStack() as held:
        chosen = {}
        for name, port in vars(wanted).items():
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address, port))
            except (OSError, OverflowError) as error:
                raise ServerFailed(f"{name} port {port} on {address} cannot be used ({error}); choose another, or 0") from None
            chosen[name] = listener.getsockname()[1]
        return Ports(**chosen)


def _is_ok(host: str, port: int, path: str) -> bool:
    """Whether the server answers a GET with 200: how Triton says that something is ready."""
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _is_open(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _reason(text: str) -> str:
    """Why the server failed, by its log."""
    for pattern, reason in REASONS:
        if found := re.search(pattern, text, re.MULTILINE):
            return found.expand(reason)
    lines = [line.strip() for line in text.splitlines() if re.match(r"E\d{4} |error", line)]
    return (lines or text.splitlines() or ["it said nothing"])[-1]
