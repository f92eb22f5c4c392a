"""What tritonserver is started with: the pip-installed one, and in a container."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from bertrec.checks import number
from bertrec.errors import InvalidInput
from serving._installation import Installation
from serving.assemble import Repository, Target

EXIT_TIMEOUT_S = 3
"""How long requests in flight may keep a stopping server; then it exits anyway."""

CONTROL_HEADER = "bertrec-control"
"""The header that must hold the server's control key for models to be loaded or unloaded."""

CACHE_VARIABLE = "BERTREC_CACHE_MB"
"""Read by triton_models/model.py."""

MOST_CACHE_MB = 1 << 16


@dataclass(frozen=True)
class Ports:
    """Where the server listens."""

    grpc: int
    http: int
    metrics: int


@dataclass(frozen=True)
class Control:
    """How models of a running server are loaded and unloaded: only by who knows the key.

    Whoever may load a model may hand over its code as well, so the key is new for each server.
    """

    key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def flags(self) -> list[str]:
        """Models change when told, and not otherwise; all are loaded at the start."""
        restricted = f"model-repository:{CONTROL_HEADER}={self.key}"
        return [
            *("--model-control-mode=explicit", "--load-model=*"),
            *(f"--http-restricted-api={restricted}", f"--grpc-restricted-protocol={restricted}"),
        ]


@dataclass(frozen=True)
class Tracing:
    """What becomes of traces. Raises InvalidInput for what cannot be had.

    target: an OTLP collector, such as ``http://127.0.0.1:4318/v1/traces``, where the server's spans hang on the client's; or a
    file, for Triton's own format. rate: one request in so many is traced.
    """

    target: str
    rate: int = 1_000

    def __post_init__(self) -> None:
        if not self.target:
            raise InvalidInput("the traces' target is empty; accepted are the URL of an OTLP collector and a file")
        number("the traces' rate", self.rate, 1, 1_000_000_000)

    def flags(self) -> list[str]:
        """Timestamps of each model that a request passes."""
        if self.target.startswith(("http://", "https://")):
            settings = ["mode=opentelemetry", f"opentelemetry,url={self.target}", "opentelemetry,resource=service.name=bertrec"]
        else:
            settings = ["mode=triton", f"triton,file={self.target}"]
        return [f"--trace-config={one}" for one in ("level=TIMESTAMPS", f"rate={self.rate}", *settings)]


def cache_environment(cache_mb: int) -> dict[str, str]:
    """What tells ``recommend`` how many MiB of answers to keep; 0 for none. Raises InvalidInput for a size that is none."""
    if not 0 <= cache_mb <= MOST_CACHE_MB:
        raise InvalidInput(f"the cache has {cache_mb} MB; accepted are 1 to {MOST_CACHE_MB}, or 0 for no cache")
    return {CACHE_VARIABLE: str(cache_mb)}


def local_command(
    installation: Installation,
    models: Path,
    *,
    folder: Path,
    ports: Ports,
    address: str,
    region_prefix: str,
    control: Control,
    tracing: Tracing | None = None,
) -> list[str]:
    """The command for the pip-installed server; ``folder`` is what :meth:`Installation.lay_out` wrote."""
    return [
        str(installation.server),
        *(f"--model-repository={models}", f"--model-config-name={Target.CPU.value}"),
        "--disable-auto-complete-config",  # the configs are complete; completing them starts every stub twice
        f"--backend-directory={folder / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name={region_prefix}",
        *(f"--grpc-address={address}", f"--grpc-port={ports.grpc}"),
        *(f"--http-address={address}", f"--http-port={ports.http}"),
        *(f"--metrics-address={address}", f"--metrics-port={ports.metrics}", "--allow-gpu-metrics=false"),
        *control.flags(),
        *([] if tracing is None else tracing.flags()),
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
    ]


def equivalent_commands(repository: Repository, *, ports: Ports, cache_mb: int, tracing: Tracing | None = None) -> dict[str, str]:
    """Commands that serve the same repository elsewhere: by a tritonserver on the PATH, and by NVIDIA's container.

    To be given in the folder that the repository lies in.
    """
    more = " ".join([*Control("$CONTROL_KEY").flags(), *([] if tracing is None else tracing.flags())])
    (variable,) = (f"{name}={value}" for name, value in cache_environment(cache_mb).items())
    published = f"-p {ports.http}:8000 -p {ports.grpc}:8001 -p {ports.metrics}:8002"
    container = repository.commands["docker"].replace("-p 8000-8002:8000-8002", f"-e CONTROL_KEY -e {variable} {published}")
    return {
        "key": 'export CONTROL_KEY="$(openssl rand -hex 16)"',
        "tritonserver": f"{variable} {repository.commands['tritonserver']} {more} "
        f"--grpc-port={ports.grpc} --http-port={ports.http} --metrics-port={ports.metrics}",
        "docker": re.sub("'$", f" {more}'", container),
    }
