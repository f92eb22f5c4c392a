"""docs/gpu.md: no GPU is at hand, so that at least each command it names is one that exists, with options that it has."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

import benchmarks.__main__
import export.__main__
import serving.__main__
from benchmarks.plan_page import NO_GPU

PAGE = Path(__file__).parents[2] / "docs/gpu.md"
PARSERS = {"benchmarks": benchmarks.__main__._parser, "export": export.__main__._parser, "serving": serving.__main__._parser}


def commands(page: str) -> list[str]:
    """What stands in the page's code as ``python -m …``, lines that are continued joined."""
    code = [line.strip() for line in page.splitlines() if line.startswith("    ")]
    return [found for line in code if (found := line[line.find("python -m ") :].strip(" '")).startswith("python -m ")]


COMMANDS = commands(PAGE.read_text(encoding="utf-8"))


def parsed(command: str) -> argparse.Namespace:
    """Raises SystemExit for what does not parse."""
    module, *arguments = shlex.split(command)[2:]
    if module == "export.tensorrt":
        module, arguments = "export", ["tensorrt", *arguments]
    return PARSERS[module]().parse_args(arguments)


def test_the_page_names_the_benchmarks_of_both_roads() -> None:
    named = [re.match(r"python -m (\S+ ?\S*)", command) for command in COMMANDS]
    found = [one[1] for one in named if one]
    assert found.count("benchmarks load") == 2
    assert {"benchmarks plan", "benchmarks throughput", "benchmarks latency", "export build", "serving assemble"} <= set(found)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_parses(command: str) -> None:
    assert parsed(command)


def test_a_command_that_does_not_exist_would_be_found(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("python -m benchmarks load --bundle bundles/gpu --no-such-option 1")
    assert "--no-such-option" in capsys.readouterr().err


def test_the_page_says_that_nothing_was_measured_on_a_gpu_and_is_linked_where_it_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "**Measured on a GPU so far: nothing.**" in page
    linked = re.search(r"gpu\.md#([\w-]+)", NO_GPU)
    titles = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert linked is not None and linked[1] in [title.lower().replace(" ", "-") for title in titles]
