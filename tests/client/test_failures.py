"""Servers in trouble, each of them real and on loopback: the deadline holds, and what is broken is not believed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

from bertrec.tensors import MAX_BATCH_SIZE
from client import DeadlineExceeded, InvalidAnswer, InvalidInput, Recommender, ServedBy, Unavailable
from tests.client import servers
from tests.client.fakes import recommendation

TIMEOUT_S = 0.3
MARGIN_S = 1.5  # for a machine with other work to do; what would not end at all is far beyond it

GOOD = recommendation().to_json()


@contextmanager
def lasting(at_least_s: float, at_most_s: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert at_least_s <= time.monotonic() - started <= at_most_s


def test_nobody_listens(scheme: str, tiny_bundle: Path) -> None:
    url = f"{scheme}://127.0.0.1:{servers.closed_port()}"
    with Recommender(url) as recommender, lasting(0, MARGIN_S), pytest.raises(Unavailable, match="Connection refused") as failure:
        recommender.recommend("red")
    assert not isinstance(failure.value, DeadlineExceeded)
    with Recommender(url, fallback=tiny_bundle) as recommender:
        answer = recommender.recommend("denim dress")
    assert (answer.items[0].item_id, answer.served_by, answer.degraded) == ("3", ServedBy.EDGE, True)
    assert "Connection refused" in (answer.fallback_reason or "")


@pytest.mark.parametrize(
    ("scheme", "handle"),
    [
        ("grpc", servers.hang),
        ("http", servers.hang),
        ("http", servers.drip_headers),
        ("http", servers.drip_body),
    ],
)
def test_a_server_that_does_not_finish_holds_nobody_longer_than_the_deadline(
    scheme: str, handle: Callable[[Any], None], tiny_bundle: Path
) -> None:
    with servers.tcp_server(handle) as port:
        url = f"{scheme}://127.0.0.1:{port}"
        with (
            Recommender(url, timeout_s=TIMEOUT_S) as recommender,
            lasting(TIMEOUT_S * 0.9, TIMEOUT_S + MARGIN_S),
            pytest.raises(DeadlineExceeded, match=r"gave no answer within 0\.3 s"),
        ):
            recommender.recommend("red")
        with Recommender(url, fallback=tiny_bundle) as recommender:
            with lasting(TIMEOUT_S * 0.7, TIMEOUT_S + MARGIN_S):  # the last quarter at most is left to the edge
                answer = recommender.recommend("denim dress", timeout_s=TIMEOUT_S)
            with lasting(0, TIMEOUT_S * 0.7):  # the server rests: nobody waits for it
                again = recommender.recommend("denim dress", timeout_s=TIMEOUT_S)
    for given in (answer, again):
        assert (given.items[0].item_id, given.served_by, given.degraded) == ("3", ServedBy.EDGE, True)


def test_a_server_that_hangs_up_is_unavailable(scheme: str) -> None:
    with servers.tcp_server(servers.hang_up) as port, Recommender(f"{scheme}://127.0.0.1:{port}") as recommender:
        with pytest.raises(Unavailable, match="cannot answer"):
            recommender.recommend("red", timeout_s=2)


def test_several_requests_of_one_call_share_its_deadline(scheme: str) -> None:
    delay_s, requests = 0.2, 10
    with ExitStack() as stack:
        if scheme == "grpc":
            url = stack.enter_context(servers.grpc_server(lambda n, _: servers.grpc_answer([GOOD] * n), delay_s=delay_s))
        else:
            url = stack.enter_context(servers.http_server(lambda n: (200, servers.http_answer([GOOD] * n)), delay_s=delay_s))
        recommender = stack.enter_context(Recommender(url))
        assert len(recommender.recommend(["red"] * (MAX_BATCH_SIZE + 1))) == MAX_BATCH_SIZE + 1
        with lasting(0.5 * 0.9, 0.5 + MARGIN_S), pytest.raises(DeadlineExceeded, match=r"within 0\.5 s"):
            recommender.recommend(["red"] * MAX_BATCH_SIZE * requests, timeout_s=0.5)


BROKEN_ROWS: dict[str, tuple[Callable[[int], list[str]], str]] = {
    "no rows": (lambda n: [], "answered 0 rows to 2 texts"),
    "a row too few": (lambda n: [GOOD] * (n - 1), "answered 1 rows to 2 texts"),
    "empty text": (lambda n: [""] * n, "ANSWER cannot be read"),
    "half of the JSON": (lambda n: [GOOD[: len(GOOD) // 2]] * n, "ANSWER cannot be read"),
    "other JSON": (lambda n: ["[1]"] * n, "ANSWER cannot be read"),
    "no items": (lambda n: ['{"truncated":false,"engine":"fp32","bundle":"0"}'] * n, "ANSWER cannot be read"),
    "more items than asked for": (lambda n: [recommendation(items=11).to_json()] * n, "11 items where 10 were asked for"),
}


@pytest.mark.parametrize(("rows", "message"), BROKEN_ROWS.values(), ids=BROKEN_ROWS.keys())
def test_an_answer_that_is_broken_is_not_believed(
    scheme: str, rows: Callable[[int], list[str]], message: str, tiny_bundle: Path
) -> None:
    with ExitStack() as stack:
        if scheme == "grpc":
            url = stack.enter_context(servers.grpc_server(lambda n, _: servers.grpc_answer(rows(n))))
        else:
            url = stack.enter_context(servers.http_server(lambda n: (200, servers.http_answer(rows(n)))))
        assert_not_believed(url, message, tiny_bundle)


def assert_not_believed(url: str, message: str, bundle: Path) -> None:
    with Recommender(url) as recommender, pytest.raises(InvalidAnswer, match=message):
        recommender.recommend(["red", "green"])
    with Recommender(url, fallback=bundle) as recommender:
        answers = recommender.recommend(["denim dress", "red"])
    assert [(answer.served_by, answer.degraded) for answer in answers] == [(ServedBy.EDGE, True)] * 2
    assert answers[0].items[0].item_id == "3"


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (servers.grpc_answer([GOOD] * 2, name="OTHER"), "answered without the output ANSWER"),
        (servers.grpc_answer([GOOD] * 2, shape=[3, 1]), "the output ANSWER cannot be read"),
    ],
    ids=["no ANSWER", "shape that does not fit"],
)
def test_a_grpc_response_that_is_broken_is_not_believed(response: Any, message: str, tiny_bundle: Path) -> None:
    with servers.grpc_server(lambda n, _: response) as url:
        assert_not_believed(url, message, tiny_bundle)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (servers.http_answer([GOOD] * 2, name="OTHER"), "answered without the output ANSWER"),
        (servers.http_answer([5, None]), "ANSWER cannot be read"),
        (b"", "cannot be read"),
        (b"null", "cannot be read"),
        (b"<html>it works</html>", "cannot be read"),
        (b'{"outputs": {"ANSWER": 1}}', "cannot be read"),
        (b'{"outputs": [{"name": "ANSWER"}]}', "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
    ],
    ids=["no ANSWER", "numbers", "nothing", "null", "html", "a mapping of outputs", "no data", "too deep"],
)
def test_an_http_response_that_is_broken_is_not_believed(body: bytes, message: str, tiny_bundle: Path) -> None:
    with servers.http_server(lambda n: (200, body)) as url:
        assert_not_believed(url, message, tiny_bundle)


@pytest.mark.parametrize("status", ["UNAVAILABLE", "INTERNAL", "RESOURCE_EXHAUSTED", "NOT_FOUND", "UNKNOWN", "UNIMPLEMENTED"])
def test_a_grpc_status_other_than_invalid_argument_is_unavailable(status: str) -> None:
    with servers.grpc_server(refuse(status, "so it is")) as url, Recommender(url) as recommender:
        with pytest.raises(Unavailable, match=f"cannot answer: {status}, so it is"):
            recommender.recommend("red")


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_an_http_status_other_than_400_is_unavailable(status: int) -> None:
    with servers.http_server(lambda n: (status, b'{"error": "so it is"}')) as url, Recommender(url) as recommender:
        with pytest.raises(Unavailable, match=f"cannot answer: HTTP {status}, so it is"):
            recommender.recommend("red")


def test_a_400_that_is_not_tritons_is_unavailable() -> None:
    with servers.http_server(lambda n: (400, b"<html>bad gateway</html>")) as url, Recommender(url) as recommender:
        with pytest.raises(Unavailable, match="cannot answer: HTTP 400"):
            recommender.recommend("red")


def test_what_the_server_refuses_is_the_inputs_fault(scheme: str, tiny_bundle: Path) -> None:
    with ExitStack() as stack:
        if scheme == "grpc":
            url = stack.enter_context(servers.grpc_server(refuse("INVALID_ARGUMENT", "k is 11; accepted is 1 to 10")))
        else:
            url = stack.enter_context(servers.http_server(lambda n: (400, b'{"error": "k is 11; accepted is 1 to 10"}')))
        recommender = stack.enter_context(Recommender(url, fallback=tiny_bundle))
        with pytest.raises(InvalidInput, match=r"^k is 11; accepted is 1 to 10$"):
            recommender.recommend("red", k=11)


def refuse(status: str, details: str) -> servers.Respond:
    def respond(rows: int, context: Any) -> Any:
        context.abort(grpc.StatusCode[status], details)

    return respond
