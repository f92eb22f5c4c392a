"""Reads the deployment files as the tools that use them would."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).parents[2]
DEPLOY = CHECKOUT / "serving/deploy"
BASE = DEPLOY / "kustomize/base"
OBSERVABILITY = CHECKOUT / "serving/observability"


class _Strict(yaml.SafeLoader):  # type: ignore[misc]  # its stubs are a package of their own
    """Refuses a key that comes twice, of which YAML's loader keeps the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        assert len(keys) == len(set(keys)), f"a key comes twice at {node.start_mark}"
        return super().construct_mapping(node, deep)


def read(path: Path) -> Any:
    """The one document of a YAML file."""
    return yaml.load(path.read_text(encoding="utf-8"), _Strict)


def manifests() -> dict[str, Any]:
    """Kind → manifest, of all that the base's kustomization names."""
    found = [read(BASE / name) for name in read(BASE / "kustomization.yaml")["resources"]]
    return {one["kind"]: one for one in found}


def dockerfile(name: str) -> dict[str, list[str]]:
    """Instruction → its arguments, in their order; lines that are continued are one."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / name).read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            instruction, rest = line.split(maxsplit=1)
            assert instruction.isupper(), line
            found.setdefault(instruction, []).append(rest)
    return found


def words(command: str) -> list[str]:
    """The words of a JSON-form command."""
    return [word.strip(",") for word in shlex.split(command.strip("[]"))]
