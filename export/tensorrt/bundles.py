"""A bundle with compiled engines beside the ONNX files that they were compiled from."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from bertrec.bundle import MANIFEST_FILE, Bundle, EngineRecord, Runtime, seal
from bertrec.errors import InvalidInput
from bertrec.tensors import ENCODER, HEADS, MATCHER, RANKER, TEXT_SIGNAL
from export.folder import written_whole
from export.ranker import read_items
from export.tensorrt.compiler import build_engine
from export.tensorrt.settings import (
    BESIDE_THE_ENCODER,
    BuildSettings,
    Profile,
    encoder_profiles,
    heads_profiles,
    matcher_profiles,
    ranker_profiles,
)
from export.tensorrt.stamps import gpu_capability
from train.progress import say

SPECS = {spec.name: spec for spec in (ENCODER, RANKER, MATCHER, HEADS)}


def compile_bundle(bundle: Bundle, output: Path, *, engines: Sequence[str], settings: BuildSettings) -> Bundle:
    """A bundle in ``output`` that holds, beside all of ``bundle``, the encoder engines ``engines`` and the ranker compiled.

    The heads are compiled as well, and the matcher's engine ``plain``, where the bundle has them.

    A compiled engine is named after its source and its file's suffix: ``plain.plan``. Built beside ``output`` and renamed when
    complete. Raises InvalidInput where ``output`` exists and for an engine that is not there, not for ONNX Runtime, or compiled
    already; and as :func:`build_engine` does.
    """
    if output.exists():
        raise InvalidInput(f"{output} exists. A bundle is never changed: delete it or choose another --output")
    sources = [*_encoders(bundle, engines), *_others(bundle)]
    there = {(record.model, record.name) for record in bundle.manifest.engines if record.file}
    if doubled := [one for one in sources if (one.model, f"{one.name}.{settings.suffix}") in there]:
        raise InvalidInput(f"{bundle.folder} has {doubled[0].name}.{settings.suffix} already; compile the bundle it came from")
    with written_whole(output) as folder:
        shutil.copytree(bundle.folder, folder, dirs_exist_ok=True)
        (folder / MANIFEST_FILE).unlink()
        compiled = [_compile(bundle, source, folder, settings) for source in sources]
        manifest = dataclasses.replace(
            bundle.manifest,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            engines=(*bundle.manifest.engines, *compiled),
        )
        seal(folder, manifest)
    return Bundle.open(output)


def _encoders(bundle: Bundle, names: Sequence[str]) -> list[EngineRecord]:
    if not names:
        raise InvalidInput("no engine is named; accepted are encoder engines of the bundle, such as plain")
    records = [bundle.engine(ENCODER.name, name) for name in dict.fromkeys(names)]
    if compiled := [one for one in records if one.runtime != Runtime.ORT.value]:
        raise InvalidInput(f"{compiled[0].name} is compiled for {compiled[0].runtime} already; name the engine it came from")
    return records


def _others(bundle: Bundle) -> list[EngineRecord]:
    """The engines of the other models. Raises InvalidInput without a ranker, which every bundle has."""
    there = {(record.model, record.name) for record in bundle.manifest.engines if record.file}
    wanted = BESIDE_THE_ENCODER.items()
    return [bundle.engine(model, name) for model, name in wanted if (model, name) in there or model == RANKER.name]


def _compile(bundle: Bundle, source: EngineRecord, folder: Path, settings: BuildSettings) -> EngineRecord:
    path = bundle.folder / source.file
    file = str(Path(source.file).with_suffix(f".{settings.suffix}"))
    say(f"compiling the {source.model} {source.name} with {settings.runtime.value}")
    stamp = build_engine(
        path,
        folder / file,
        spec=SPECS[source.model],
        profiles=_profiles(bundle, source),
        settings=settings.exact() if source.model == RANKER.name else settings,
        precision=source.precision,
    )
    return EngineRecord(
        model=source.model,
        name=f"{source.name}.{settings.suffix}",
        file=file,
        precision=source.precision,
        structure=source.structure,
        runtime=settings.runtime.value,
        tokenizer=source.tokenizer,
        size_bytes=(folder / file).stat().st_size,
        stamp={**stamp, "source": source.file},
        verdict="unmeasured",
        why=_why(settings, str(stamp["version"])),
    )


def _profiles(bundle: Bundle, source: EngineRecord) -> tuple[Profile, ...]:
    if source.model == ENCODER.name:
        return encoder_profiles(bundle.manifest.max_tokens)
    if source.model == MATCHER.name:
        matching = bundle.matching()
        return matcher_profiles(bundle.manifest.max_tokens, matching.item_tokens if matching else 0)
    if source.model == HEADS.name:
        return heads_profiles(bundle.manifest.signals[TEXT_SIGNAL])
    sides = read_items(bundle.folder / source.file)
    return ranker_profiles(sum(side.shape[1] for side in sides.values()), len(next(iter(sides.values()))))


def _why(settings: BuildSettings, version: str) -> str:
    compiled = f"compiled by {settings.runtime.value} {version}"
    if settings.runtime is Runtime.TENSORRT_RTX:
        return f"{compiled}; not measured, since Triton does not load it: an application with TensorRT for RTX has to run it"
    where = "serve it with python -m serving assemble --target gpu, and compare its answers with those of the bundle alone"
    return f"{compiled} on compute capability {gpu_capability()}; not measured here: {where}"
