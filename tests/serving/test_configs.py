"""The checked-in Triton configs: valid by Triton's own protobuf, and in step with bertrec.tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]  # its stubs are a package of their own
from tritonclient.grpc import model_config_pb2

from bertrec.onefile import ONEFILE
from bertrec.tensors import ALL_MODELS, ENCODER, HEADS, MATCHER, MAX_BATCH_SIZE, QUESTIONS, RANKER, ModelSpec, TensorSpec
from bertrec.text import BUCKETS
from export.tensorrt.settings import Profile, encoder_profiles, heads_profiles, matcher_profiles, ranker_profiles
from serving.assemble import TEMPLATES, Target

MATCHER_PROFILES = matcher_profiles(64, 24)
"""Of the defaults of FitSettings and MatcherSettings."""
CONFIGS = [(spec, target) for spec in ALL_MODELS for target in Target]

# https://github.com/triton-inference-server/onnxruntime_backend/blob/r24.10/README.md, of those that are used here.
TENSORRT_PARAMETERS = {
    "precision_mode",
    "max_workspace_size_bytes",
    "trt_layer_norm_fp32_fallback",
    "trt_engine_cache_enable",
    "trt_timing_cache_enable",
    "trt_timing_cache_path",
    "trt_profile_min_shapes",
    "trt_profile_opt_shapes",
    "trt_profile_max_shapes",
}


def config_of(spec: ModelSpec, target: Target) -> Any:
    path = TEMPLATES / spec.name / "configs" / f"{target.value}.pbtxt"
    return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def dtype_name(data_type: int) -> str:
    name = str(model_config_pb2.DataType.Name(data_type)).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def as_config(tensor: TensorSpec) -> tuple[str, str, list[int]]:
    """How the config must write a tensor: without its batch dimension, and -1 for a named one."""
    return tensor.name, tensor.dtype, [size if isinstance(size, int) else -1 for size in tensor.shape[1:]]


@pytest.mark.parametrize(("spec", "target"), CONFIGS)
def test_config_holds_what_tensors_say(spec: ModelSpec, target: Target) -> None:
    config = config_of(spec, target)
    assert config.name == spec.name
    if spec in QUESTIONS:  # it is handed all that waits, and makes batches of it itself
        assert config.max_batch_size >= 4 * int(config.parameters["most_waiting_texts"].string_value)
    else:
        assert config.max_batch_size == MAX_BATCH_SIZE
    assert [(one.name, dtype_name(one.data_type), list(one.dims)) for one in config.input] == [
        as_config(one) for one in spec.inputs
    ]
    assert [(one.name, dtype_name(one.data_type), list(one.dims)) for one in config.output] == [
        as_config(one) for one in spec.outputs
    ]


@pytest.mark.parametrize(("spec", "target"), CONFIGS)
def test_every_model_joins_requests_and_serves_every_version(spec: ModelSpec, target: Target) -> None:
    config = config_of(spec, target)
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.ListFields()  # with a queue policy or priorities, Triton 2.51 loses wake-ups
    assert config.version_policy.HasField("all")


@pytest.mark.parametrize("spec", ALL_MODELS)
def test_there_is_a_config_for_each_target_and_no_other(spec: ModelSpec) -> None:
    files = {path.name for path in (TEMPLATES / spec.name / "configs").iterdir()}
    assert files == {f"{target.value}.pbtxt" for target in Target}


@pytest.mark.parametrize("target", Target)
def test_engines_run_where_the_target_says_and_python_models_on_the_cpu(target: Target) -> None:
    group = model_config_pb2.ModelInstanceGroup
    for spec in QUESTIONS:
        assert config_of(spec, target).backend == "python"
        assert [one.kind for one in config_of(spec, target).instance_group] == [group.KIND_CPU]
    wanted = group.KIND_CPU if target is Target.CPU else group.KIND_GPU
    backend, file = ("tensorrt", "model.plan") if target is Target.GPU else ("onnxruntime", "model.onnx")
    for spec in (ENCODER, RANKER):
        config = config_of(spec, target)
        assert (config.backend, config.default_model_filename) == (backend, file)
        assert [one.kind for one in config.instance_group] == [wanted]


@pytest.mark.parametrize("target", Target)
def test_matcher_and_heads_are_plans_for_the_gpu_and_onnx_files_for_the_others(target: Target) -> None:
    wanted = ("tensorrt", "model.plan") if target is Target.GPU else ("onnxruntime", "model.onnx")
    for spec in (MATCHER, HEADS):
        config = config_of(spec, target)
        assert (config.backend, config.default_model_filename) == wanted
        kind = config.instance_group[0].kind
        assert (kind == model_config_pb2.ModelInstanceGroup.KIND_CPU) == (target is Target.CPU)
        assert all(set(sample.inputs) == {tensor.name for tensor in spec.inputs} for sample in config.model_warmup)


@pytest.mark.parametrize("spec", QUESTIONS)
def test_the_configs_of_a_python_model_differ_in_comments_only(spec: ModelSpec) -> None:
    assert config_of(spec, Target.CPU) == config_of(spec, Target.GPU) == config_of(spec, Target.GPU_ORT)


def test_plans_are_served_with_a_profile_for_each_length() -> None:
    """As many as a plan for 64 tokens has, FitSettings' default; the assembling writes as many as the plan at hand has."""
    plans = {
        ENCODER: encoder_profiles(64),
        RANKER: ranker_profiles(100, 1_000),
        MATCHER: MATCHER_PROFILES,
        HEADS: heads_profiles(9),
    }
    for spec, profiles in plans.items():
        (group,) = config_of(spec, Target.GPU).instance_group
        assert list(group.profile) == [str(index) for index in range(len(profiles))]
        assert all(shapes[2][0] == MAX_BATCH_SIZE for one in profiles for shapes in one.shapes.values())


def test_warm_up_fits_the_profiles_of_a_plan() -> None:
    for spec, profiles in ((ENCODER, encoder_profiles(64)), (MATCHER, MATCHER_PROFILES)):
        rows, tokens = profiles[-1].shapes["input_ids"][2]
        for sample in config_of(spec, Target.GPU).model_warmup:
            assert sample.batch_size <= rows
            assert sample.inputs["input_ids"].dims[0] <= tokens


@pytest.mark.parametrize("spec", [ENCODER, MATCHER])
def test_a_bert_of_gpu_ort_is_compiled_by_tensorrt_in_half_precision_and_never_from_a_stale_cache(spec: ModelSpec) -> None:
    (accelerator,) = config_of(spec, Target.GPU_ORT).optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert set(accelerator.parameters) == TENSORRT_PARAMETERS
    assert accelerator.parameters["precision_mode"] == "FP16"
    assert accelerator.parameters["trt_engine_cache_enable"] == "0"
    for bound in ("min", "opt", "max"):
        shapes = dict(one.split(":") for one in accelerator.parameters[f"trt_profile_{bound}_shapes"].split(","))
        assert set(shapes) == {tensor.name for tensor in spec.inputs}
        assert len(set(shapes.values())) == 1
    assert accelerator.parameters["trt_profile_max_shapes"].startswith(f"input_ids:{MAX_BATCH_SIZE}x{BUCKETS[-1]}")
    assert not config_of(spec, Target.GPU).optimization.HasField("execution_accelerators")


@pytest.mark.parametrize(("spec", "profiles"), [(ENCODER, encoder_profiles(64)), (MATCHER, MATCHER_PROFILES)])
def test_a_cuda_graph_is_of_one_text_at_a_length_that_texts_are_padded_to(spec: ModelSpec, profiles: Sequence[Profile]) -> None:
    cuda = config_of(spec, Target.GPU).optimization.cuda
    ends = [one.shapes["input_ids"][2][1] for one in profiles]
    assert cuda.graphs
    assert [list(one.input["input_ids"].dim) for one in cuda.graph_spec] == [[end] for end in ends]
    assert all(one.batch_size == 1 and set(one.input) == {tensor.name for tensor in spec.inputs} for one in cuda.graph_spec)


@pytest.mark.parametrize("target", Target)
def test_warm_up_gives_every_input_of_the_encoder(target: Target) -> None:
    samples = config_of(ENCODER, target).model_warmup
    assert samples
    for sample in samples:
        assert sorted(sample.inputs) == sorted(one.name for one in ENCODER.inputs)
        assert len({tuple(one.dims) for one in sample.inputs.values()}) == 1


def test_every_model_folder_is_known() -> None:
    assert {path.name for path in Path(TEMPLATES).iterdir() if path.is_dir()} == {spec.name for spec in (*ALL_MODELS, ONEFILE)}
