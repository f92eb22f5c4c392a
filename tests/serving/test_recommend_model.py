"""triton_models/model.py apart from Triton: what it does when the models that it asks answer badly."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bertrec.answers import Recommendation
from bertrec.bundle import Bundle
from bertrec.engine import OnnxEngine
from bertrec.session_options import SessionOptions
from bertrec.tensors import ANSWER, ENCODER, INTEREST_VECTOR, OPTIONS, RANKER, SCORE, TEXT
from tests.serving.asking import strings
from tests.tiny import item_text

Outputs = dict[str, NDArray[Any]]

FINAL = 1
"""pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL."""

CONFIG = {"parameters": {"most_waiting_texts": {"string_value": "100"}}}


@dataclass
class Tensor:
    """As pb_utils.Tensor."""

    given_name: str
    values: NDArray[Any]

    def name(self) -> str:
        return self.given_name

    def as_numpy(self) -> NDArray[Any]:
        return self.values


@dataclass
class TritonError:
    """As pb_utils.TritonError, with four of its codes."""

    text: str
    code: int

    INTERNAL = 1
    INVALID_ARG = 3
    UNAVAILABLE = 4
    CANCELLED = 7

    def message(self) -> str:
        return self.text


@dataclass
class Response:
    """As pb_utils.InferenceResponse."""

    tensors: list[Tensor] = field(default_factory=list)
    problem: TritonError | None = None

    def has_error(self) -> bool:
        return self.problem is not None

    def error(self) -> TritonError:
        assert self.problem is not None
        return self.problem

    def output_tensors(self) -> list[Tensor]:
        return self.tensors


@dataclass
class Request:
    """As pb_utils.InferenceRequest, of those that the model is handed, and its own response sender."""

    inputs: dict[str, Tensor]
    given: str = ""
    cancelled: bool = False
    sent: list[Response] = field(default_factory=list)

    def parameters(self) -> str:
        return self.given

    def is_cancelled(self) -> bool:
        return self.cancelled

    def trace(self) -> Request:
        return self

    def get_response_sender(self) -> Request:
        return self

    def send(self, response: Response, flags: int) -> None:
        assert flags == FINAL
        self.sent.append(response)


@dataclass
class MetricFamily:
    """As pb_utils.MetricFamily, and its own only metric; what it counts is tested in a real server."""

    name: str
    description: str
    kind: int

    COUNTER = 0

    def Metric(self, labels: Mapping[str, str]) -> MetricFamily:  # noqa: N802  # the backend's name
        assert labels["version"]
        return self

    def increment(self, value: float) -> None:
        assert value >= 0


@dataclass
class Server:
    """The other models of the server, and how often each was asked for how many texts."""

    run: dict[str, Callable[[Mapping[str, NDArray[Any]]], Outputs]]
    lacking: str = ""
    error: str = ""
    asked: list[tuple[str, int, int]] = field(default_factory=list)  # model, version, texts
    traced: list[Request] = field(default_factory=list)

    def exec(self, model: str, version: int, inputs: list[Tensor]) -> Response:
        self.asked.append((model, version, len(inputs[0].values)))
        if self.error:
            return Response(problem=TritonError(self.error, TritonError.INTERNAL))
        outputs = self.run[model]({tensor.name(): tensor.values for tensor in inputs})
        return Response([Tensor(name, values) for name, values in outputs.items() if name != self.lacking])


@pytest.fixture
def server(tiny_bundle: Path) -> Server:
    bundle = Bundle.open(tiny_bundle)
    specs = (ENCODER, RANKER)
    return Server({spec.name: OnnxEngine(bundle.engine_path(spec.name, "fp32"), spec, SessionOptions(1)).run for spec in specs})


@pytest.fixture
def model(triton_repository: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The assembled model, version 5 of it, with a pb_utils that answers in this process."""
    utils = ModuleType("triton_python_backend_utils")

    def request(
        *, model_name: str, model_version: int, requested_output_names: list[str], inputs: list[Tensor], trace: Request
    ) -> Any:
        server.traced.append(trace)
        return SimpleNamespace(exec=lambda: server.exec(model_name, model_version, inputs))

    def tensor_by_name(asked: Request, name: str) -> Tensor:
        return asked.inputs[name]

    vars(utils).update(
        Tensor=Tensor,
        MetricFamily=MetricFamily,
        TritonError=TritonError,
        InferenceRequest=request,
        InferenceResponse=lambda output_tensors=(), error=None: Response(list(output_tensors), error),
        get_input_tensor_by_name=tensor_by_name,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=FINAL,
    )
    monkeypatch.setitem(sys.modules, utils.__name__, utils)
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("recommend_model", triton_repository / "models/recommend/1/model.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    loaded = module.TritonPythonModel()
    loaded.initialize({"model_name": "recommend", "model_version": "5", "model_config": json.dumps(CONFIG)})
    return loaded


def asking(*texts: str, options: str = "{}", priority: int | None = None) -> Request:
    inputs = {
        TEXT.name: Tensor(TEXT.name, strings(texts)[1]),
        OPTIONS.name: Tensor(OPTIONS.name, strings([options] * len(texts))[1]),
    }
    return Request(inputs, json.dumps({"bertrec_priority": priority}) if priority else "")


def execute(model: Any, requests: list[Request]) -> list[Response]:
    """The one response to each."""
    assert model.execute(requests) is None
    assert [len(request.sent) for request in requests] == [1] * len(requests)
    return [request.sent[0] for request in requests]


def items_of(response: Response) -> list[str]:
    (tensor,) = response.output_tensors()
    assert tensor.name() == ANSWER.name
    return [Recommendation.from_json(value.decode()).items[0].item_id for value in tensor.values[:, 0]]


def test_requests_are_joined_by_length_at_this_models_own_version_and_dealt_out_again(model: Any, server: Server) -> None:
    requests = [asking(item_text(3), item_text(4)), asking(" ".join([item_text(5)] * 12)), asking(item_text(6))]
    assert [items_of(response) for response in execute(model, requests)] == [["3", "4"], ["5"], ["6"]]
    assert server.asked == [("encoder", 5, 3), ("encoder", 5, 1), ("ranker", 5, 4)]
    assert server.traced == [requests[0]] * 3


def test_a_bad_request_is_not_computed_and_hurts_nobody(model: Any, server: Server) -> None:
    first, bad, last = execute(model, [asking(item_text(3)), asking(item_text(4), " "), asking(item_text(6))])
    assert (items_of(first), items_of(last)) == (["3"], ["6"])
    assert (bad.error().code, bad.error().message()) == (
        TritonError.INVALID_ARG,
        "text 1 is empty; say in a few words what is wanted",
    )
    assert server.asked[-1] == ("ranker", 5, 2)


def test_a_batch_of_bad_requests_asks_nobody(model: Any, server: Server) -> None:
    refused = execute(model, [asking(""), asking("a", options="[")])
    assert [response.error().code for response in refused] == [TritonError.INVALID_ARG] * 2
    assert server.asked == []


@pytest.mark.parametrize(("lacking", "asked"), [(INTEREST_VECTOR.name, "encoder"), (SCORE.name, "ranker")])
def test_an_answer_without_an_output_is_an_error_and_never_an_empty_answer(
    model: Any, server: Server, lacking: str, asked: str
) -> None:
    server.lacking = lacking
    (response,) = execute(model, [asking("green")])
    assert response.error().code == TritonError.UNAVAILABLE
    assert response.error().message() == f"InvalidAnswer: model {asked}, version 5 answered without {lacking}"


def test_an_error_of_a_model_reaches_every_good_request_and_leaves_the_bad_its_own(model: Any, server: Server) -> None:
    server.error = "out of memory"
    good, bad = execute(model, [asking("green"), asking("")])
    assert good.error().code == TritonError.UNAVAILABLE
    assert good.error().message() == "Unavailable: model encoder, version 5: out of memory"
    assert bad.error().code == TritonError.INVALID_ARG


def test_whatever_goes_wrong_is_an_error_of_bounded_length(model: Any, server: Server) -> None:
    def explode(_: Any) -> Outputs:
        raise ZeroDivisionError("x" * 100_000)

    server.run["ranker"] = explode
    (response,) = execute(model, [asking("green")])
    assert response.error().code == TritonError.INTERNAL
    assert response.error().message().startswith("ZeroDivisionError: xxx")
    assert len(response.error().message()) == 1000


def test_a_request_that_cannot_be_read_at_all_is_an_error_of_its_own(model: Any, server: Server) -> None:
    bad, good = execute(model, [Request({TEXT.name: Tensor(TEXT.name, np.zeros((1, 1), np.int64))}), asking(item_text(2))])
    assert bad.error().code == TritonError.INTERNAL
    assert items_of(good) == ["2"]


def test_what_waits_is_run_in_batches_and_each_is_answered_before_the_next_runs(model: Any, server: Server) -> None:
    requests = [asking(*[item_text(number)] * 30) for number in range(3)]
    before_last: list[int] = []
    rank = server.run["ranker"]

    def watched(inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        before_last[:] = [len(request.sent) for request in requests]
        return rank(inputs)

    server.run["ranker"] = watched
    assert [items_of(response) for response in execute(model, requests)] == [[str(number)] * 30 for number in range(3)]
    assert [texts for name, _, texts in server.asked if name == "ranker"] == [60, 30]
    assert before_last == [1, 1, 0]


def test_more_than_may_wait_is_refused_before_anything_runs_and_the_rest_is_answered(model: Any, server: Server) -> None:
    requests = [asking(*[item_text(number)] * 40) for number in range(4)]
    first, second, third, fourth = execute(model, requests)
    assert (items_of(first), items_of(second)) == (["0"] * 40, ["1"] * 40)
    for refused in (third, fourth):
        assert refused.error().code == TritonError.UNAVAILABLE
        assert refused.error().message() == "Exceeds maximum queue size: recommend lets 100 texts wait"
    assert [texts for name, _, texts in server.asked if name == "ranker"] == [40, 40]


def test_a_request_that_is_smaller_than_what_was_refused_may_still_wait(model: Any) -> None:
    large, larger, small = execute(model, [asking(*["green"] * 60), asking(*["green"] * 60), asking(item_text(2))])
    assert not large.has_error()
    assert larger.error().code == TritonError.UNAVAILABLE
    assert items_of(small) == ["2"]


def test_work_that_may_wait_is_run_and_taken_behind_the_others(model: Any, server: Server) -> None:
    later, first, second = [asking(*[item_text(3)] * 60, priority=2), asking(*[item_text(1)] * 50), asking(*[item_text(2)] * 50)]
    refused, one, other = execute(model, [later, first, second])
    assert refused.error().code == TritonError.UNAVAILABLE
    assert (items_of(one), items_of(other)) == (["1"] * 50, ["2"] * 50)


@pytest.mark.parametrize("parameters", ['{"bertrec_priority": "high"}', '{"other": 1}', "{}"])
def test_a_priority_that_is_no_number_is_the_default(model: Any, parameters: str) -> None:
    request = asking(item_text(2))
    request.given = parameters
    assert items_of(execute(model, [request])[0]) == ["2"]


def test_a_request_whose_client_has_gone_is_not_run(model: Any, server: Server) -> None:
    gone, here = asking(item_text(1)), asking(item_text(2))
    gone.cancelled = True
    response, answered = execute(model, [gone, here])
    assert response.error().code == TritonError.CANCELLED
    assert items_of(answered) == ["2"]
    assert server.asked[-1] == ("ranker", 5, 1)


def test_more_texts_than_a_batch_in_one_request_are_an_error(model: Any, server: Server) -> None:
    many, good = execute(model, [asking(*["green"] * 65), asking(item_text(2))])
    assert many.error().message() == "65 texts in one request; accepted are at most 64"
    assert items_of(good) == ["2"]
    assert server.asked[-1] == ("ranker", 5, 1)
