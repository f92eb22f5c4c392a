"""The examples of docs/client.md are Python, and ask and set up what there is."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import client
from bertrec.answers import Options

PAGE = Path(__file__).parents[2] / "docs/client.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
HOW = {"timeout_s", "request_id", "traceparent"}


def calls() -> list[ast.Call]:
    """Of all examples; await is allowed, as in a notebook."""
    trees = [compile(block, str(PAGE), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT) for block in BLOCKS]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def named(call: ast.Call) -> dict[str, Any]:
    return {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}


def test_every_option_that_an_example_names_is_accepted_and_each_has_an_example() -> None:
    asked = [named(call) for call in calls() if isinstance(call.func, ast.Attribute) and call.func.attr == "recommend"]
    options = [{name: value for name, value in one.items() if name not in HOW} for one in asked]
    for one in options:
        Options(**one)
    assert {"k", "exclude", "filters", "history", "diversity", "popularity", "rules"} <= {name for one in options for name in one}


def test_every_name_and_argument_of_the_client_is_one() -> None:
    schemes = set()
    for call in calls():
        if isinstance(call.func, ast.Name) and hasattr(client, call.func.id):
            accepted = inspect.signature(getattr(client, call.func.id)).parameters
            assert {str(one.arg) for one in call.keywords} <= set(accepted), call.func.id
            for given in [*call.args, *(one for arg in call.args if isinstance(arg, ast.List) for one in arg.elts)]:
                if isinstance(given, ast.Constant):
                    schemes.add(str(given.value).partition("://")[0])
    assert schemes == {"grpc", "grpcs", "http"}
    imported = re.findall(r"from bertrec\.client import (.*)", "\n".join(BLOCKS))
    assert all(hasattr(client, name) for names in imported for name in names.split(", "))
