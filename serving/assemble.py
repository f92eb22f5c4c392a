"""From a bundle to a folder that Triton serves as it stands.

<output>/
  repository.json                        what was assembled from what, and how to serve it
  models/recommend/configs/*.pbtxt       models/recommend/<version>/{model.py, bertrec/, bundle/, engine.txt}
  models/{match,classify,embed}/…        the same; match and classify where the bundle has a matcher, and heads
  models/encoder/configs/*.pbtxt         models/encoder/<version>/model.onnx, or model.plan for the target gpu
  models/ranker/configs/*.pbtxt          models/ranker/<version>/model.onnx, or model.plan
  models/{matcher,heads}/configs/*.pbtxt models/{matcher,heads}/<version>/…, the same, where the bundle has them
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

import bertrec
from bertrec.bundle import MANIFEST_FILE, SIGNALS_FOLDER, Bundle, EngineRecord, Runtime
from bertrec.errors import InvalidBundle, InvalidInput
from bertrec.fusion import SENTIMENT, Gates
from bertrec.services import can_answer
from bertrec.tensors import ENCODER, HEADS, MATCHER, RANKER
from export.tensorrt.settings import BESIDE_THE_ENCODER
from export.tensorrt.stamps import check_stamp, container_tag, rebuild_command

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent.parent / "triton_models"
PYTHON_MODEL = "model.py"
REPOSITORY_FILE = "repository.json"
MODELS_FOLDER = "models"
CONTAINER = "nvcr.io/nvidia/tritonserver:{tag}-py3"
DEFAULT_TAG = "24.10"
FUSED_DOMAIN = b"com.microsoft"
GRAPH_SPEC = r" *graph_spec \{.*\}\n"


class Target(str, Enum):
    """Where the repository is to be served; the name of the config files that it uses."""

    CPU = "cpu"
    GPU = "gpu"  # engines compiled beforehand, by the tensorrt backend
    GPU_ORT = "gpu-ort"  # ONNX files, compiled by TensorRT inside the onnxruntime backend when it starts


@dataclass(frozen=True)
class Repository:
    """What repository.json says: what was assembled, and the commands that serve it."""

    bundle: str  # the bundle's whole fingerprint
    source: str  # sha256 over bertrec and triton_models, which are copied too
    target: str
    engine: str
    version: int
    commands: dict[str, str]
    last_version: int = 0  # the highest number that an update ever used; 0 where there was none


def assemble(bundle_folder: Path, output: Path, *, target: Target, engine: str | None = None, version: int = 1) -> Path:
    """Write the Triton repository for the bundle in ``bundle_folder`` to ``output``, and return ``output``.

    engine: the encoder's, by default the bundle's choice. The bundle is verified wholly first. The folder appears complete or
    not at all; one that holds the same already is left as it is, one that holds an older assembly is replaced, and any other
    that is not empty is refused, as is one that was updated since: it may hold the only copy of what is served.
    Raises InvalidBundle for a bundle that is not whole, and for a compiled engine whose stamp does not fit; InvalidInput for an
    unknown engine or target, for an engine that the target cannot load, or an unfit ``output``.
    """
    target = _target(target)
    if version < 1:
        raise InvalidInput(f"version is {version}; accepted is a whole number of at least 1")
    bundle = Bundle.open(bundle_folder)
    engine = bundle.default_engine if engine is None else engine
    engines = _engines(bundle, engine, target)
    commands = _commands(target, engines[0], _packages(bundle))
    wanted = Repository(bundle.manifest.fingerprint, _source(), target.value, engine, version, commands)
    if target is Target.GPU_ORT:
        _warn_of_fused_operators(bundle.folder / engines[0].file)
    output = Path(output)
    if _holds(output) == wanted:
        log.info("%s holds this repository already; it is used as it is", output)
        return output
    with _replacing(output) as folder:
        for name in (*(spec.name for spec in can_answer(bundle)), *(record.model for record in engines)):
            shutil.copytree(TEMPLATES / name / "configs", folder / MODELS_FOLDER / name / "configs")
        for record in engines:
            place = folder / MODELS_FOLDER / record.model
            _copy(bundle.folder / record.file, place / str(version) / f"model{Path(record.file).suffix}")
            if record.stamp.get("profiles"):
                _use_profiles(place / "configs" / f"{target.value}.pbtxt", record.stamp["profiles"])
        for spec in can_answer(bundle):
            _write_python_model(folder / MODELS_FOLDER / spec.name / str(version), bundle, engine)
        (folder / REPOSITORY_FILE).write_text(json.dumps(asdict(wanted), indent=2) + "\n", encoding="utf-8")
    log.info("assembled %s: bundle %s, engine %s, target %s", output, bundle.fingerprint, engine, target.value)
    return output


def describe(repository: Path) -> Repository:
    """What an assembled repository holds. Raises InvalidInput where the folder is none."""
    try:
        return Repository(**json.loads((repository / REPOSITORY_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise InvalidInput(
            f"{repository} is not an assembled repository; one is written by: "
            "python -m serving assemble --bundle BUNDLE --target cpu --output DIR"
        ) from None


def _target(given: str) -> Target:
    try:
        return Target(given)
    except ValueError:
        raise InvalidInput(f"target is {given!r}; accepted are {', '.join(one.value for one in Target)}") from None


def _engines(bundle: Bundle, engine: str, target: Target) -> tuple[EngineRecord, ...]:
    """The records of encoder and ranker, and of matcher and heads where there are. Raises as :func:`assemble` says."""
    encoder = bundle.engine(ENCODER.name, engine)
    if encoder.runtime == Runtime.TENSORRT_RTX.value:
        raise InvalidInput(
            f"{encoder.file} is compiled for TensorRT for RTX, which Triton cannot load. For the target gpu, compile on the GPU: "
            f"{rebuild_command(encoder, Runtime.TENSORRT, bundle.folder)} (docs/gpu.md)"
        )
    if target is Target.GPU:
        if encoder.runtime != Runtime.TENSORRT.value:
            raise InvalidInput(
                f"{encoder.file} is an ONNX file, and the target gpu serves compiled engines. {_to_compile(bundle, encoder)}"
            )
        suffix = Path(encoder.file).suffix
        others = [_of_standard_operators(bundle, model, encoder, suffix) for model in _beside_the_encoder(bundle)]
        _check_stamps(bundle, encoder, others)
        return encoder, *others
    if encoder.runtime != Runtime.ORT.value:
        raise InvalidInput(
            f"{encoder.file} is compiled by TensorRT; the target {target.value} serves ONNX files. Use --target gpu"
        )
    return encoder, *(
        _of_standard_operators(bundle, model, encoder)
        if target is Target.GPU_ORT and model == MATCHER.name
        else bundle.engine(model, name)
        for model, name in _beside_the_encoder(bundle).items()
    )


def _beside_the_encoder(bundle: Bundle) -> dict[str, str]:
    """Model → the engine that ONNX Runtime would use, of those that the bundle has."""
    names = {RANKER.name: bundle.ranker_engine, MATCHER.name: bundle.matcher_engine, HEADS.name: bundle.heads_engine}
    return {model: name for model, name in names.items() if name is not None}


def _of_standard_operators(bundle: Bundle, model: str, encoder: EngineRecord, suffix: str = "") -> EngineRecord:
    """A model's engine that TensorRT compiles, or, by its suffix, has compiled. Raises InvalidInput, saying what makes one."""
    name = BESIDE_THE_ENCODER[model]
    there = {one.name for one in bundle.manifest.engines if one.model == model and one.file}
    if f"{name}{suffix}" in there:
        return bundle.engine(model, f"{name}{suffix}")
    steps = [] if name in there else ["python -m export build --run RUN --output NEW_BUNDLE --target gpu"]
    steps += [rebuild_command(encoder, Runtime.TENSORRT, bundle.folder if name in there else "NEW_BUNDLE")] if suffix else []
    without = "" if model == RANKER.name else f"; or leave it out of a bundle: --without {model}"
    raise InvalidInput(
        f"{bundle.folder} has no {model} engine {name}{suffix}; it has {', '.join(sorted(there))}. "
        f"Make one: {' and then '.join(steps)} (docs/gpu.md){without}"
    )


def _to_compile(bundle: Bundle, encoder: EngineRecord) -> str:
    """How to get a compiled engine from an ONNX one."""
    if FUSED_DOMAIN in (bundle.folder / encoder.file).read_bytes():
        first = "Export one of standard operators (python -m export build … --engines fp32,plain), which can be compiled"
        return f"{first} (docs/gpu.md), or served as it is: --target gpu-ort --engine plain"
    command = rebuild_command(encoder, Runtime.TENSORRT, bundle.folder)
    return f"Compile it on the GPU: {command} (docs/gpu.md); or assemble with --target gpu-ort"


def _check_stamps(bundle: Bundle, encoder: EngineRecord, others: Sequence[EngineRecord]) -> None:
    """All are compiled from what lies in the bundle, by one TensorRT, for one kind of GPU, and for this container."""
    for record in (encoder, *others):
        source = bundle.manifest.files.get(str(record.stamp.get("source")))
        check_stamp(
            record,
            runtime=Runtime.TENSORRT,
            container=container_tag(),
            source_sha256=source.sha256 if source else "",
            bundle=bundle.folder,
        )
    for other, what in itertools.product(others, ("version", "container", "compute_capabilities")):
        if encoder.stamp[what] != other.stamp[what]:
            raise InvalidBundle(
                f"{encoder.file} and {other.file} were compiled for different things: {what} {encoder.stamp[what]} and "
                f"{other.stamp[what]}. Compile all at once: {rebuild_command(encoder, Runtime.TENSORRT, bundle.folder)}"
            )


def _use_profiles(config: Path, profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]]) -> None:
    """Let Triton use every optimisation profile of the engine, where it would use the first alone; and a CUDA graph of each.

    profiles: tensor → least, usual and largest shape. A graph is of one row at the largest length: texts are padded to it.
    """
    text = config.read_text(encoding="utf-8")
    names = ", ".join(f'"{index}"' for index in range(len(profiles)))
    text = re.sub(r"profile: \[[^\]]*\]", f"profile: [ {names} ]", text)
    if found := re.search(rf"(?:{GRAPH_SPEC})+", text):
        graphs = "".join(_graph_spec({name: shapes[-1][1:] for name, shapes in one.items()}) for one in profiles)
        text = text[: found.start()] + graphs + text[found.end() :]
    config.write_text(text, encoding="utf-8")


def _graph_spec(dims: Mapping[str, Sequence[int]]) -> str:
    """A line for the graph of one row whose inputs have these dimensions."""
    inputs = (f'input {{ key: "{name}" value {{ dim: [ {", ".join(map(str, one))} ] }} }}' for name, one in dims.items())
    return f"    graph_spec {{ batch_size: 1 {' '.join(inputs)} }}\n"


def _warn_of_fused_operators(engine: Path) -> None:
    if FUSED_DOMAIN in engine.read_bytes():
        log.warning(
            "%s has fused operators of ONNX Runtime's own (%s), which TensorRT cannot compile; CUDA runs them instead. "
            "For TensorRT, export an engine without fusion",
            engine,
            FUSED_DOMAIN.decode(),
        )


def _commands(target: Target, encoder: EngineRecord, packages: str) -> dict[str, str]:
    """How to serve the repository, from the folder that it lies in."""
    options = f"--model-config-name={target.value}"
    if encoder.stamp.get("options", {}).get("version_compatible"):
        options += " --backend-config=tensorrt,version-compatible=true"
    gpus = "" if target is Target.CPU else " --gpus all"
    container = CONTAINER.format(tag=encoder.stamp.get("container") or DEFAULT_TAG)
    return {
        "tritonserver": f"tritonserver --model-repository={MODELS_FOLDER} {options}",
        "docker": f"docker run --rm{gpus} --shm-size=256m -p 8000-8002:8000-8002 -v $PWD/{MODELS_FOLDER}:/models {container} "
        f"sh -c 'pip install {packages} && tritonserver --model-repository=/models {options}'",
    }


def _packages(bundle: Bundle) -> str:
    """What the Python models import that NVIDIA's container lacks."""
    gates = Gates.load(bundle.folder / SIGNALS_FOLDER)
    return "editdistpy symspellpy tokenizers" + (" vaderSentiment" if SENTIMENT in gates.features else "")


def _write_python_model(folder: Path, bundle: Bundle, engine: str) -> None:
    """The version folder of a model that clients ask: its code, the package, and the bundle without its engine files."""
    folder.mkdir(parents=True)
    _copy(TEMPLATES / PYTHON_MODEL, folder / PYTHON_MODEL)
    for path in _package_files():
        _copy(path, folder / "bertrec" / path.relative_to(_package()))
    engine_files = {record.file for record in bundle.manifest.engines}
    for name in (MANIFEST_FILE, *bundle.manifest.files):
        if name not in engine_files:
            _copy(bundle.folder / name, folder / "bundle" / name)
    (folder / "engine.txt").write_text(f"{engine}\n", encoding="utf-8")


def _package() -> Path:
    assert bertrec.__file__ is not None
    return Path(bertrec.__file__).parent


def _package_files() -> list[Path]:
    """The package's own modules; not the client, which an installed bertrec holds as well."""
    return sorted(_package().glob("*.py"))


def _source() -> str:
    """sha256 over all that is copied beside the bundle."""
    digest = hashlib.sha256()
    for folder, paths in ((_package(), _package_files()), (TEMPLATES, sorted(TEMPLATES.rglob("*.p[yb]*")))):
        for path in paths:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _holds(output: Path) -> Repository | None:
    """What ``output`` holds, None for nothing. Raises InvalidInput where that is not ours to replace."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    try:
        held = describe(output)
    except InvalidInput:
        raise InvalidInput(f"{output} holds something else than an assembled repository; choose another --output") from None
    if held.last_version:
        raise InvalidInput(
            f"{output} was updated since it was assembled, and holds version {held.version}, bundle {held.bundle}; choose "
            "another --output, or delete it first"
        )
    return held


@contextmanager
def _replacing(output: Path) -> Iterator[Path]:
    """A new folder beside ``output`` that takes its place once the block has succeeded, and is removed if it did not."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        yield new
        try:
            if output.exists():
                os.rename(output, old)
            os.rename(new, output)
        finally:
            if old.exists() and not output.exists():  # interrupted between the two
                os.rename(old, output)


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)
