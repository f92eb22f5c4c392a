"""Which execution provider an engine asks for, which it got, and that it says so."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest

from bertrec.engine import GPU_PROVIDERS, OnnxEngine
from bertrec.errors import InvalidBundle, InvalidInput, MissingDependency
from bertrec.session_options import Device, SessionOptions
from bertrec.tensors import ENCODER

ROOT = Path(__file__).parents[2]
GPU_PACKAGE = "onnxruntime-gpu==1.31.1"
SECONDS_FOR_PIP = 60
GIVEN = {"input_ids": np.full((2, 16), 7, np.int64), "attention_mask": np.ones((2, 16), np.int64)}

here_is_no_gpu_package = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="onnxruntime-gpu is installed here"
)


@pytest.fixture
def encoder_file(tiny_bundle: Path) -> Path:
    return tiny_bundle / "encoder/fp32.onnx"


def test_the_cpu_is_the_default_and_nothing_is_said(encoder_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert OnnxEngine(encoder_file, ENCODER, SessionOptions(1)).provider == "CPUExecutionProvider"
    assert caplog.text == ""


def test_gpu_asks_for_tensorrt_first_and_for_cuda_without_tf32() -> None:
    assert [name for name, _ in GPU_PROVIDERS] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    assert dict(GPU_PROVIDERS)["CUDAExecutionProvider"] == {"use_tf32": "0"}


@here_is_no_gpu_package
def test_asking_for_the_gpu_gives_the_cpu_with_a_warning_and_the_same_answer(
    encoder_file: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = OnnxEngine(encoder_file, ENCODER, SessionOptions(1, Device.GPU))
    assert engine.provider == "CPUExecutionProvider"
    assert "runs on CPUExecutionProvider; the GPU was asked for, best by TensorrtExecutionProvider" in caplog.text
    assert "pip install 'bertrec[gpu]'" in caplog.text
    expected = OnnxEngine(encoder_file, ENCODER, SessionOptions(1)).run(GIVEN)["interest_vector"]
    np.testing.assert_array_equal(engine.run(GIVEN)["interest_vector"], expected)
    assert [str(one.message) for one in recwarn if "provider" in str(one.message)] == []  # said once, by us
    assert capsys.readouterr().out == ""


@here_is_no_gpu_package
def test_a_file_that_does_not_load_is_refused_on_either_device(tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    for device in Device:
        with pytest.raises(InvalidBundle, match=r"noise\.onnx does not load in onnxruntime"):
            OnnxEngine(tmp_path / "noise.onnx", ENCODER, SessionOptions(device=device))


def test_an_unknown_device_and_a_compiled_engine_are_refused(encoder_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="device is 'tpu'; accepted are cpu, gpu"):
        OnnxEngine(encoder_file, ENCODER, SessionOptions(device="tpu"))
    for name in ("plain.plan", "plain.rtx"):
        with pytest.raises(InvalidInput, match=rf"{name} is compiled by TensorRT, and this runs ONNX files"):
            OnnxEngine(tmp_path / name, ENCODER)


def install(folder: Path, **versions: str) -> None:
    """What pip records of an installation, and nothing else."""
    for name, version in versions.items():
        record = folder / f"{name}-{version}.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")


ANEW = "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'bertrec[{}]'"


@here_is_no_gpu_package
@pytest.mark.parametrize("both", [False, True])
def test_both_packages_beside_each_other_are_why_there_is_no_gpu(
    encoder_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, both: bool
) -> None:
    install(tmp_path, onnxruntime="8.0", **({"onnxruntime_gpu": "9.0"} if both else {}))
    monkeypatch.syspath_prepend(tmp_path)
    OnnxEngine(encoder_file, ENCODER, SessionOptions(1, Device.GPU))
    assert ("onnxruntime 8.0 and onnxruntime-gpu 9.0 overwrite each other's files: " in caplog.text) is both
    assert ANEW.format("gpu") in caplog.text


@pytest.mark.parametrize("left", [None, ModuleType("onnxruntime")], ids=["no import", "an empty folder"])
def test_a_package_whose_files_went_with_the_other_is_not_called_missing(
    encoder_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: ModuleType | None
) -> None:
    install(tmp_path, onnxruntime="8.0", onnxruntime_gpu="9.0")
    monkeypatch.setattr("bertrec.engine.onnxruntime", left)
    monkeypatch.syspath_prepend(tmp_path)
    for device in Device:
        with pytest.raises(MissingDependency) as refused:
            OnnxEngine(encoder_file, ENCODER, SessionOptions(device=device))
        said = f"onnxruntime 8.0 and onnxruntime-gpu 9.0 cannot be imported whole: {ANEW.format(device.value)}"
        assert str(refused.value) == said
    monkeypatch.setattr(sys, "path", [])  # nothing is recorded
    with pytest.raises(MissingDependency, match=r"onnxruntime is not installed; it comes with: pip install 'bertrec\[cpu\]'"):
        OnnxEngine(encoder_file, ENCODER)


ASK = """
import json, logging, sys
from pathlib import Path
import numpy as np
import onnxruntime
from bertrec.engine import OnnxEngine
from bertrec.session_options import SessionOptions
from bertrec.tensors import ENCODER

messages = []
handler = logging.Handler()
handler.emit = lambda record: messages.append(record.getMessage())
logging.getLogger("bertrec.engine").addHandler(handler)
engine = OnnxEngine(Path(sys.argv[1]), ENCODER, SessionOptions(1, "gpu"))
given = {"input_ids": np.full((2, 16), 7, np.int64), "attention_mask": np.ones((2, 16), np.int64)}
vector = engine.run(given)["interest_vector"].tolist()
providers = onnxruntime.get_available_providers()
print(json.dumps({"provider": engine.provider, "messages": messages, "available": providers, "vector": vector}))
"""


@pytest.mark.slow
def test_onnxruntime_gpu_without_cuda_falls_back_to_the_cpu_and_says_what_is_missing(encoder_file: Path, tmp_path: Path) -> None:
    """With the package really installed, into an environment of its own: 250 MB, so only where pip brings it in a minute."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    packages = [GPU_PACKAGE, "numpy<2", "tokenizers", "symspellpy", "editdistpy"]
    try:
        options = ["--quiet", "--disable-pip-version-check", "--retries", "0"]
        subprocess.run(
            [python, "-m", "pip", "install", *options, *packages], check=True, capture_output=True, timeout=SECONDS_FOR_PIP
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"pip did not bring {GPU_PACKAGE} within {SECONDS_FOR_PIP} s: {type(error).__name__}")
    asked = subprocess.run([python, "-c", ASK, str(encoder_file)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    found = json.loads(asked.stdout)  # and so nothing else was printed
    assert found["available"][:2] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    if found["provider"] != "CPUExecutionProvider":
        pytest.skip(f"there is a GPU here: {found['provider']}")
    assert "does not start on TensorrtExecutionProvider" in found["messages"][0]
    assert "runs on CPUExecutionProvider; the GPU was asked for" in found["messages"][-1]
    assert "needs a GPU, and the libraries of CUDA, cuDNN and TensorRT" in found["messages"][-1]
    expected = OnnxEngine(encoder_file, ENCODER, SessionOptions(1)).run(GIVEN)["interest_vector"]
    np.testing.assert_allclose(np.asarray(found["vector"], np.float32), expected, atol=1e-5)
