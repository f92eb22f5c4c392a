"""The repository under load: a full queue is said at once, texts share executions, and the cache gives what was right only."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from tritonclient.grpc import InferInput
from tritonclient.utils import InferenceServerException

from bertrec.answers import Options, Recommendation
from bertrec.tensors import ANSWER, MAX_BATCH_SIZE, OPTIONS, RECOMMEND, TEXT
from client import Recommender
from serving.triton import TritonServer
from tests.conftest import NARROW_QUEUE
from tests.serving.asking import ask, ask_raw, at_once, client, strings, texts_per_execution
from tests.serving.processes import stub_of, wait_until
from tests.tiny import ITEMS, item_text

CLIENTS = 16
REQUESTS = 64
DEADLINE_S = 60.0
LOAD_S = 4.0
SLACK_S = 0.1
"""For 64 requests to be written by this process, on cores that it shares with the server."""


@pytest.fixture(scope="module")
def cached(triton_repository: Path) -> Iterator[TritonServer]:
    with TritonServer(triton_repository, cache_mb=1) as server:
        yield server


def metric(server: TritonServer, name: str, **labels: str) -> float:
    """The sum of a metric's values over all lines that have these labels."""
    with urllib.request.urlopen(server.metrics_url, timeout=5) as answer:
        lines = re.findall(rf"^{name}{{(.*)}} (\S+)$", answer.read().decode(), re.MULTILINE)
    return sum(float(value) for given, value in lines if all(f'{key}="{one}"' in given for key, one in labels.items()))


@contextlib.contextmanager
def stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def send(server: TritonServer, texts: Sequence[str], done: list[Any], number: int, **parameters: Any) -> None:
    inputs = []
    for name, values in ((TEXT.name, texts), (OPTIONS.name, [Options(k=1).to_json()] * len(texts))):
        inputs.append(InferInput(name, [len(texts), 1], "BYTES"))
        inputs[-1].set_data_from_numpy(strings(values)[1])

    def keep(result: Any, error: Exception | None) -> None:
        done[number] = (time.monotonic(), error or result.as_numpy(ANSWER.name)[0, 0])

    client(server, "grpc").async_infer(RECOMMEND.name, inputs, keep, **{"client_timeout": DEADLINE_S, **parameters})


def test_a_full_queue_is_said_at_once_and_what_it_took_is_answered_rightly(narrow_triton: TritonServer) -> None:
    batch_s = max(_one_batch(narrow_triton) for _ in range(5))
    done: list[Any] = [None] * REQUESTS
    sent = []
    for number in range(REQUESTS):
        sent.append(time.monotonic())
        send(narrow_triton, [item_text(number % ITEMS)] * MAX_BATCH_SIZE, done, number)
    wait_until(lambda: None not in done, DEADLINE_S)
    refused = [(when - sent[number], one) for number, (when, one) in enumerate(done) if isinstance(one, Exception)]
    answered = [(number, one) for number, (_, one) in enumerate(done) if not isinstance(one, Exception)]
    assert len(answered) >= NARROW_QUEUE / MAX_BATCH_SIZE
    assert refused
    for _, error in refused:
        assert isinstance(error, InferenceServerException)
        assert error.status() == "StatusCode.UNAVAILABLE"
        assert "maximum queue size" in error.message()
    for number, answer in answered:
        assert Recommendation.from_json(answer).items[0].item_id == str(number % ITEMS)
    # Behind what runs, that is one full queue; and not behind another.
    assert median(after_s for after_s, _ in refused) <= NARROW_QUEUE / MAX_BATCH_SIZE * batch_s + SLACK_S


def _one_batch(server: TritonServer) -> float:
    began = time.monotonic()
    ask(server, "grpc", [item_text(0)] * MAX_BATCH_SIZE, Options())
    return time.monotonic() - began


def test_a_request_whose_client_gave_up_is_not_run(narrow_triton: TritonServer) -> None:
    texts = metric(narrow_triton, "bertrec_texts_total")
    done: list[Any] = [None] * 2
    with stopped(stub_of(narrow_triton.pid, RECOMMEND.name)):
        send(narrow_triton, [item_text(0)], done, 0)
        send(narrow_triton, [item_text(1)] * MAX_BATCH_SIZE, done, 1, client_timeout=0.2)
        wait_until(lambda: done[1] is not None)
        assert done[1][1].status() == "StatusCode.DEADLINE_EXCEEDED"
    wait_until(lambda: done[0] is not None, DEADLINE_S)
    assert Recommendation.from_json(done[0][1]).items[0].item_id == "0"
    ask(narrow_triton, "grpc", [item_text(2)], Options(k=1))  # behind the one that was given up
    assert metric(narrow_triton, "bertrec_texts_total") - texts == 2


def test_work_that_may_wait_is_run_behind_what_came_after_it(narrow_triton: TritonServer) -> None:
    done: list[Any] = [None] * 3
    with stopped(stub_of(narrow_triton.pid, RECOMMEND.name)):
        send(narrow_triton, [item_text(0)], done, 0)  # is being run
        time.sleep(0.2)
        send(narrow_triton, [item_text(1)] * MAX_BATCH_SIZE, done, 1, parameters={"bertrec_priority": 2})
        time.sleep(0.2)
        send(narrow_triton, [item_text(2)] * MAX_BATCH_SIZE, done, 2)
        time.sleep(0.2)
    wait_until(lambda: None not in done, DEADLINE_S)
    assert [Recommendation.from_json(answer).items[0].item_id for _, answer in done] == ["0", "1", "2"]
    assert done[2][0] < done[1][0]


def test_the_question_of_a_liveness_probe_is_answered_first_and_not_refused_by_a_full_queue(narrow_triton: TritonServer) -> None:
    done: list[Any] = [None] * 6
    with stopped(stub_of(narrow_triton.pid, RECOMMEND.name)):
        send(narrow_triton, [item_text(0)], done, 0)  # is being run
        time.sleep(0.2)
        for number in range(1, 5):  # twice what may wait
            send(narrow_triton, [item_text(number)] * MAX_BATCH_SIZE, done, number)
        time.sleep(0.2)
        send(narrow_triton, [item_text(5)], done, 5, parameters={"bertrec_priority": 0})
        time.sleep(0.2)
    wait_until(lambda: None not in done, DEADLINE_S)
    assert any(isinstance(answer, Exception) for _, answer in done[1:5])
    assert Recommendation.from_json(done[5][1]).items[0].item_id == "5"
    assert done[5][0] < min(when for when, answer in done[1:5] if not isinstance(answer, Exception))


@pytest.mark.parametrize("model", ["match", "classify", "embed"])
def test_every_model_that_clients_ask_counts_for_itself(full_triton: TritonServer, model: str) -> None:
    names, long = ("texts", "bucket_texts", "tokens", "padded_tokens", "truncated_texts"), "hat " * 500

    def counts(of: str) -> list[float]:
        return [metric(full_triton, f"bertrec_{name}_total", model=of, version="1") for name in names]

    before, others = counts(model), counts(RECOMMEND.name)
    with Recommender(full_triton.grpc_url, timeout_s=30) as recommender:
        asked: dict[str, Callable[[], object]] = {
            "match": lambda: recommender.match(long, ["3"]),
            "classify": lambda: recommender.classify(long),
            "embed": lambda: recommender.embed(long),
        }
        asked[model]()
    texts, rows, tokens, padded, truncated = (now - then for now, then in zip(counts(model), before, strict=True))
    assert (texts, rows, truncated) == (1, 1, 0 if model == "embed" else 1)  # an embedding does not say
    assert 16 < tokens <= padded
    assert metric(full_triton, "bertrec_refused_texts_total", model=model) == 0
    assert counts(RECOMMEND.name) == others


def test_sixteen_clients_with_texts_of_mixed_length_fill_four_texts_into_an_execution(triton: TritonServer) -> None:
    before, _ = texts_per_execution(triton, RECOMMEND.name)
    until = time.monotonic() + LOAD_S

    def work(number: int) -> int:
        mine, asked = random.Random(number), 0
        while time.monotonic() < until:
            (answer,) = ask(triton, "grpc", [" ".join([item_text(number)] * mine.choice([1, 5, 12, 25]))], Options(k=1))
            assert answer.items[0].item_id == str(number)
            asked += 1
        return asked

    asked = at_once([partial(work, number) for number in range(CLIENTS)])
    wait_until(lambda: texts_per_execution(triton, RECOMMEND.name)[0][0] - before[0] == sum(asked))  # counted after the answer
    _, joined = texts_per_execution(triton, RECOMMEND.name, before)
    assert joined >= 4


def test_the_cache_answers_equal_requests_and_is_counted(cached: TritonServer) -> None:
    name = "bertrec_cache_hits_total"
    asked, hits = metric(cached, "bertrec_tokens_total"), metric(cached, name)
    first = ask_raw(cached, "grpc", ["a green gown", "teal"], ["{}", "{}"])
    read = metric(cached, "bertrec_tokens_total") - asked
    assert read > 0
    assert ask_raw(cached, "grpc", ["a green gown", "teal"], ["{}", "{}"]) == first
    assert ask_raw(cached, "grpc", ["teal"], ["{}"]) == first[1:]
    assert metric(cached, name, version="1") - hits == 3
    assert metric(cached, "bertrec_tokens_total") - asked == read
    assert ask_raw(cached, "grpc", ["teal"], ['{"k":1}']) != first[1:]
    assert metric(cached, name) - hits == 3


def test_an_error_is_not_cached(cached: TritonServer) -> None:
    for _ in range(3):
        with pytest.raises(InferenceServerException, match="k is 0"):
            ask_raw(cached, "grpc", ["green"], ['{"k": 0}'])
    with stopped(stub_of(cached.pid, RECOMMEND.name)):
        done: list[Any] = [None] * 2
        send(cached, ["denim dress"], done, 0)
        time.sleep(0.2)
        send(cached, ["a red robe"], done, 1, client_timeout=0.2)
        time.sleep(0.4)
    wait_until(lambda: None not in done)
    assert isinstance(done[1][1], InferenceServerException)
    assert ask(cached, "grpc", ["a red robe"], Options(k=1))[0].items != ()


def test_the_cache_never_grows_beyond_its_size(cached: TritonServer) -> None:
    long = "hat " * 2_000
    rare = [f"teal {number} {long}" for number in range(60)]  # 2 MB with what is counted for them
    answers = [ask_raw(cached, "grpc", [text], ["{}"]) for text in rare]
    hits = metric(cached, "bertrec_cache_hits_total")
    assert ask_raw(cached, "grpc", [rare[0]], ["{}"]) == answers[0]
    assert metric(cached, "bertrec_cache_hits_total") == hits
    assert ask_raw(cached, "grpc", [rare[-1]], ["{}"]) == answers[-1]
    assert metric(cached, "bertrec_cache_hits_total") == hits + 1


def test_the_models_own_metrics_count_texts_tokens_buckets_and_truncated_texts(triton: TritonServer) -> None:
    names = ("texts", "tokens", "padded_tokens", "truncated_texts", "bucket_texts")

    def counts() -> dict[str, float]:
        return {name: metric(triton, f"bertrec_{name}_total") for name in names}

    before, short = counts(), metric(triton, "bertrec_bucket_texts_total", tokens="16")
    answers = ask(triton, "grpc", ["amber", "hat " * 500])
    added = {name: value - before[name] for name, value in counts().items()}
    assert [answer.truncated for answer in answers] == [False, True]
    assert (added["texts"], added["truncated_texts"], added["bucket_texts"]) == (2, 1, 2)
    assert metric(triton, "bertrec_bucket_texts_total", tokens="16") - short == 1
    assert 0 < added["tokens"] < added["padded_tokens"]
