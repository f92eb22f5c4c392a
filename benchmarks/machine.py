"""What a figure must carry: machine, versions, commit, command."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from train.records import source_changes, source_commit

_PACKAGES = ("bertrec", "numpy", "onnxruntime", "tokenizers", "tritonclient", "nvidia-pytriton")
_FLAGS_THAT_MATTER = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16")


@dataclass(frozen=True)
class Provenance:
    """Where, when and how something was measured."""

    measured: str  # ISO 8601, UTC
    command: str
    commit: str
    uncommitted: str  # a digest of changes to the code since the commit; empty without any
    system: str
    cpu: str
    cpu_flags: tuple[str, ...]  # those that decide which matrix kernels run
    cores: int
    memory_bytes: int
    python: str
    versions: dict[str, str]


def provenance() -> Provenance:
    """Describe this machine and this process."""
    model, flags = _cpu()
    return Provenance(
        measured=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=" ".join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        commit=source_commit(),
        uncommitted=source_changes(),
        system=f"{platform.system()} {platform.machine()}",
        cpu=model,
        cpu_flags=tuple(flag for flag in _FLAGS_THAT_MATTER if flag in flags),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        python=platform.python_version(),
        versions={package: found for package in _PACKAGES if (found := _version(package))},
    )


def _cpu() -> tuple[str, set[str]]:
    """Model name and flags, as the kernel tells them."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields.get("model name", "unknown"), set(fields.get("flags", "").split())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
