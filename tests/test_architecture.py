"""The arrows of docs/design.md: who may import whom, what stays optional, and that nothing is ever unpickled."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
OURS = {"bertrec", "client", "train", "export", "serving", "benchmarks", "tests", "triton_models"}

MAY_IMPORT = {
    "bertrec": {"bertrec"},
    "client": {"bertrec"},  # and itself, by relative imports: it is mounted as bertrec.client in the wheel
    "triton_models": {"bertrec"},
    "train": {"bertrec", "train"},
    "export": {"bertrec", "train", "export"},
    "serving": {"bertrec", "export", "client", "serving"},
    "benchmarks": OURS - {"tests"},
}
"""Stage → the project's packages that it may import."""

THIRD_PARTY = {
    "bertrec": {"numpy", "symspellpy", "tokenizers", "onnxruntime", "onnxruntime_extensions", "vaderSentiment"},
    "client": {"grpc", "numpy", "starlette", "tenacity", "tritonclient", "urllib3", "uvicorn"},
    "triton_models": {"numpy", "triton_python_backend_utils"},
}
"""What those that run without the training environment may import besides the standard library."""

HEAVY = ("torch", "transformers", "tensorrt", "sklearn", "scipy", "pandas", "pyarrow")

EXTRAS = {"onnxruntime", "onnxruntime_extensions", "tritonclient"}

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@dataclass(frozen=True)
class Import:
    """One import: of which module, and how many dots before it."""

    where: str
    module: str
    level: int

    @property
    def package(self) -> str:
        return self.module.split(".")[0]


def modules(stage: str) -> list[Path]:
    return sorted((CHECKOUT / stage).rglob("*.py"))


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(CHECKOUT)}:{line}"


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(place(path, node.lineno), alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield Import(place(path, node.lineno), node.module or "", node.level)


def stage_imports(stage: str) -> list[Import]:
    found = [one for path in modules(stage) for one in imports(path)]
    assert found, f"{stage} has no modules: this test looks in the wrong place"
    return found


@pytest.mark.parametrize("stage", MAY_IMPORT)
def test_arrows_point_one_way(stage: str) -> None:
    allowed = MAY_IMPORT[stage]
    wrong = [
        f"{one.where} imports {one.module}" for one in stage_imports(stage) if one.package in OURS - allowed and not one.level
    ]
    assert wrong == []


@pytest.mark.parametrize("stage", THIRD_PARTY)
def test_what_serves_needs_little(stage: str) -> None:
    allowed = MAY_IMPORT[stage] | THIRD_PARTY[stage] | set(sys.stdlib_module_names) | {"typing_extensions"}
    wrong = [f"{one.where} imports {one.module}" for one in stage_imports(stage) if not one.level and one.package not in allowed]
    assert wrong == []


def test_relative_imports_stay_inside_the_client() -> None:
    for path in modules("client"):
        depth = len(path.relative_to(CHECKOUT / "client").parts)
        assert [one.where for one in imports(path) if one.level > depth] == []


def test_onnxruntime_and_triton_are_named_where_sessions_and_clients_are_made() -> None:
    users = {one.where.split(":")[0] for stage in ("bertrec", "client") for one in stage_imports(stage) if one.package in EXTRAS}
    assert users == {"bertrec/engine.py", "bertrec/onefile.py", "client/backends/triton_grpc.py"}


BLOCKED = f"""
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
try:
    import torch
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the blocker does not work")
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_bertrec_and_client_load_without_the_training_environment() -> None:
    names = [
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")
        for stage in ("bertrec", "client")
        for path in modules(stage)
    ]
    assert {"bertrec.engine", "client.backends.edge", "client.__main__"} <= set(names)
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *names], cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_client_loads_its_backends_only_when_they_are_needed() -> None:
    check = "import sys, client; print(sorted({'onnxruntime', 'tritonclient', 'grpc', 'urllib3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("stage", sorted(OURS))
def test_nothing_is_unpickled(stage: str) -> None:
    wrong = [f"{one.where} imports {one.module}" for one in stage_imports(stage) if one.package in PICKLES]
    for path in modules(stage):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (why := _unpickles(node)):
                wrong.append(f"{place(path, node.lineno)} {why}")
    assert wrong == []


def test_nothing_is_measured_in_a_process_that_has_loaded_torch() -> None:
    code = "import sys, benchmarks.__main__; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("source", "unpickles"),
    [
        ("np.load(path)", False),
        ("np.load(path, allow_pickle=False)", False),
        ("np.load(path, allow_pickle=True)", True),
        ("np.save(path, values, allow_pickle=flag)", True),
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("torch.load(path, weights_only=True)", False),
        ("pd.read_pickle(path)", True),
    ],
)
def test_unpickling_is_recognised(source: str, unpickles: bool) -> None:
    call = ast.parse(source, mode="eval").body
    assert isinstance(call, ast.Call)
    assert bool(_unpickles(call)) == unpickles


def _unpickles(call: ast.Call) -> str | None:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    called = ast.unparse(call.func)
    if "allow_pickle" in given and not _is(given["allow_pickle"], False):
        return "says allow_pickle"
    if called == "torch.load" and not _is(given.get("weights_only"), True):
        return "calls torch.load without weights_only=True"
    if called.endswith(("pd.read_pickle", "pandas.read_pickle")):
        return f"calls {called}"
    return None


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
