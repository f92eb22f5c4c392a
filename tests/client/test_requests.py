"""What a request carries: headers, a token, its id, the trace it is part of."""

from __future__ import annotations

import re
from typing import Any

import pytest

from client import InvalidInput, Recommender, Retries
from tests.client import servers
from tests.client.fakes import FakeBackend
from tests.client.opened import opened

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def test_headers_and_the_token_are_sent(driver: str, scheme: str) -> None:
    seen: list[dict[str, str]] = []
    headers = {"X-Tenant": "shop 7"}
    with servers.server(scheme, lambda number: None, seen=seen) as url:
        with opened(driver, url, headers=headers, token="s3cret") as one:
            one.recommend("red")
    assert (seen[0]["x-tenant"], seen[0]["authorization"]) == ("shop 7", "Bearer s3cret")


def test_the_request_id_is_the_callers_or_a_random_one_and_the_answer_names_it(driver: str, scheme: str) -> None:
    seen: list[dict[str, str]] = []
    with servers.server(scheme, lambda number: None, seen=seen) as url, opened(driver, url) as one:
        answers = [one.recommend("red", request_id="order-17"), one.recommend("red"), one.recommend("red")]
    assert [request["x-request-id"] for request in seen] == [answer.request_id for answer in answers]
    assert [request["id"] for request in seen] == [answer.request_id for answer in answers]
    assert answers[0].request_id == "order-17"
    assert answers[1].request_id != answers[2].request_id
    assert all(re.fullmatch("[0-9a-f]{32}", answer.request_id) for answer in answers[1:])


def test_the_callers_trace_is_passed_on_and_without_one_a_trace_begins(driver: str, scheme: str) -> None:
    seen: list[dict[str, str]] = []
    fails_once = lambda number: "unavailable" if number == 0 else None  # noqa: E731
    with servers.server(scheme, fails_once, seen=seen) as url:
        with opened(driver, url, retries=Retries(first_pause_s=0.01)) as one:
            one.recommend("red", traceparent=TRACEPARENT)
            one.recommend("red")
            one.recommend("red")
    first, again, *others = [request["traceparent"] for request in seen]
    assert (first, again) == (TRACEPARENT, TRACEPARENT)
    assert all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", other) for other in others)  # 00: nobody records it
    assert len({other[3:35] for other in (first, *others)}) == 3
    assert seen[0]["x-request-id"] == seen[1]["x-request-id"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"request_id": ""}, "request_id is ''; accepted are 1 to 128 printable ASCII characters"),
        ({"request_id": "a b"}, "request_id is 'a b'"),
        ({"request_id": "a\r\nb: c"}, "request_id is"),
        ({"request_id": 5}, "request_id is 5"),
        ({"traceparent": "00-0-0-00"}, "traceparent is '00-0-0-00'; accepted is W3C's form"),
        ({"traceparent": TRACEPARENT.upper()}, "traceparent is"),
        ({"traceparent": TRACEPARENT.replace(TRACE_ID, "0" * 32)}, "traceparent is"),
    ],
)
def test_what_is_no_id_is_refused(given: dict[str, Any], message: str) -> None:
    server = FakeBackend()
    with pytest.raises(InvalidInput, match=message):
        Recommender(server=server).recommend("red", **given)
    assert server.asked == []


def test_opentelemetry_sees_the_call_and_its_attempts(driver: str, scheme: str) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    simple = pytest.importorskip("opentelemetry.sdk.trace.export").SimpleSpanProcessor
    exporter, provider = export.InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(simple(exporter))
    seen: list[dict[str, str]] = []
    fails_once = lambda number: "unavailable" if number == 0 else None  # noqa: E731
    with pytest.MonkeyPatch.context() as patch, servers.server(scheme, fails_once, seen=seen) as url:
        patch.setattr(trace, "get_tracer", provider.get_tracer)
        with opened(driver, url, retries=Retries(first_pause_s=0.01)) as one:
            one.recommend(["red", "green"], traceparent=TRACEPARENT, request_id="order-17")
    failed, answered, call = exporter.get_finished_spans()
    assert [span.name for span in (failed, answered, call)] == ["bertrec.attempt", "bertrec.attempt", "bertrec.recommend"]
    assert dict(call.attributes) == {"bertrec.request_id": "order-17", "bertrec.texts": 2}
    assert f"{call.context.trace_id:032x}" == TRACE_ID
    assert f"{call.parent.span_id:016x}" == SPAN_ID
    assert failed.parent.span_id == answered.parent.span_id == call.context.span_id
    assert (failed.status.status_code.name, answered.status.status_code.name) == ("ERROR", "UNSET")
    assert [request["traceparent"].split("-")[2] for request in seen] == [
        f"{span.context.span_id:016x}" for span in (failed, answered)
    ]
    assert answered.attributes["server.address"] == url
