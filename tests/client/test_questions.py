"""match, classify, embed and reranking: the same answers whoever gives them, by the same plan that recommend goes by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import Fallback, InvalidInput, Recommender, Retries, ServedBy, Transient, Unavailable
from tests.client.conftest import BACKENDS
from tests.client.fakes import FakeBackend
from tests.client.opened import opened
from tests.client.test_contract import ids
from tests.tiny import ITEMS, WORDS

TEXTS = ["a green gown", "red", "a very long wish " * 30, "我想要一件外套"]
ITEM_IDS = ["7", "0", "20"]
REASON = "its description, read beside your wish"


@pytest.fixture(scope="module")
def here(full_bundle: Path) -> Iterator[Recommender]:
    """The bundle in this process, which tests/bertrec/test_services.py holds against its engines."""
    with Recommender(bundle=full_bundle, threads=1) as recommender:
        yield recommender


@pytest.fixture(scope="module", params=BACKENDS)
def asked(request: pytest.FixtureRequest, full_bundle: Path) -> Iterator[Any]:
    driver = "asyncio" if request.param.endswith("-asyncio") else "blocking"
    if request.param.startswith("edge"):
        with opened(driver, bundle=full_bundle, threads=1) as recommender:
            yield recommender
        return
    server = request.getfixturevalue("full_triton")
    with opened(driver, server.grpc_url if "grpc" in request.param else server.http_url, timeout_s=30) as recommender:
        yield recommender


def test_every_backend_matches_as_the_bundle_does(asked: Any, here: Recommender) -> None:
    for theirs, ours in zip(asked.match(TEXTS, ITEM_IDS), here.match(TEXTS, ITEM_IDS), strict=True):
        assert [(one.item_id, one.title) for one in theirs.matches] == [(item, f"Item {item}") for item in ITEM_IDS]
        assert [one.probability for one in theirs.matches] == pytest.approx([one.probability for one in ours.matches], abs=1e-5)
        assert (theirs.truncated, theirs.engine, theirs.bundle) == (ours.truncated, ours.engine, ours.bundle)
        assert theirs.served_by is (ServedBy.TRITON if asked.counters().servers else ServedBy.EDGE)
    one = asked.match(TEXTS[0], ITEM_IDS[:1])
    assert len(one.matches) == 1 and one.latency_ms > 0 and not one.degraded and one.request_id


def test_every_backend_classifies_as_the_bundle_does(asked: Any, here: Recommender) -> None:
    for theirs, ours in zip(asked.classify(TEXTS), here.classify(TEXTS), strict=True):
        assert {head: list(labels) for head, labels in theirs.labels.items()} == {
            "sentiment": ["negative", "neutral", "positive"],
            "fabric": ["wool", "silk", "linen"],
        }
        for head, labels in theirs.labels.items():
            assert labels == pytest.approx(ours.labels[head], abs=1e-5)
            assert sum(labels.values()) == pytest.approx(1, abs=1e-5)
        assert theirs.recommends == pytest.approx(ours.recommends, abs=1e-5)
        assert theirs.truncated == ours.truncated


def test_every_backend_embeds_as_the_bundle_does(asked: Any, here: Recommender) -> None:
    texts = [f"{text} {number}" for number in range(20) for text in TEXTS]  # more than a batch
    theirs, ours = (np.stack([one.vector for one in who.embed(texts)]) for who in (asked, here))
    assert theirs.dtype == np.float32
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(theirs, axis=1), 1, atol=1e-5)
    assert asked.embed("red").vector.shape == theirs[0].shape
    assert asked.embed([]) == []


def test_every_backend_reranks_as_the_bundle_does(asked: Any, here: Recommender) -> None:
    texts = [f"something {word}" for word in WORDS[:8]]
    theirs, ours = (who.recommend(texts, k=ITEMS, rerank=True) for who in (asked, here))
    for one, other in zip(theirs, ours, strict=True):
        assert ids(one) == ids(other)
        assert [item.score for item in one.items] == pytest.approx([item.score for item in other.items], abs=1e-4)
        assert sum(reason.sentence == REASON for item in one.items for reason in item.reasons) == 5
    assert [ids(one) for one in theirs] != [ids(one) for one in here.recommend(texts, k=ITEMS)]


def test_what_only_the_bundle_knows_is_refused_alike(asked: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^items names 'x', which the catalogue does not have$"):
        asked.match("red", ["3", "x"])
    with pytest.raises(InvalidInput, match="text 1 is empty"):
        asked.classify(["red", " "])
    with pytest.raises(InvalidInput, match="items is 'x'; accepted is a list of strings"):
        asked.match("red", "x")


def test_a_bundle_that_lacks_the_part_says_which_and_how_to_make_it(tiny_bundle: Path) -> None:
    with Recommender(bundle=tiny_bundle, threads=1) as recommender:
        with pytest.raises(InvalidInput, match="match needs a bundle with a matcher.*python -m train matcher"):
            recommender.match("red", ["3"])
        with pytest.raises(InvalidInput, match="rerank needs a bundle with a matcher"):
            recommender.recommend("red", rerank=True)
        assert recommender.embed("red").vector.dtype == np.float32


def test_retries_and_fallback_are_recommends_own(driver: str, full_bundle: Path, here: Recommender) -> None:
    server = FakeBackend(failure=Transient("it is busy"))
    settings: dict[str, Any] = {"fallback": full_bundle, "retries": Retries(attempts=2, first_pause_s=0.001), "threads": 1}
    with Recommender(server=server, fallback_policy=Fallback.EDGE, **settings) as recommender:
        found = recommender.classify("red")
        assert found.degraded and found.served_by is ServedBy.EDGE and found.labels == here.classify("red").labels
        assert recommender.match("red", ["3"]).matches == here.match("red", ["3"]).matches
        counters = recommender.counters()
        assert (counters.calls, counters.fallbacks) == (2, 2)
    assert len(server.asked) >= 2
    with Recommender(server=FakeBackend(failure=Unavailable("gone"))) as alone, pytest.raises(Unavailable, match="gone"):
        alone.embed("red")


@pytest.mark.parametrize("backend", [name for name in BACKENDS if not name.startswith("edge")])
def test_a_server_whose_bundle_lacks_a_part_is_told_apart_and_says_what_to_do(
    request: pytest.FixtureRequest, tiny_bundle: Path, full_bundle: Path, backend: str
) -> None:
    """The same type and the same words over gRPC and HTTP; an edge that has the part answers instead."""
    server = request.getfixturevalue("triton")
    url = server.grpc_url if "grpc" in backend else server.http_url
    driver = "asyncio" if backend.endswith("-asyncio") else "blocking"
    with opened(driver, url, timeout_s=30) as recommender:
        for ask, needed, remedy in (
            (
                lambda: recommender.match("red", ["3"]),
                "'match', which needs a bundle with a matcher",
                "Train one (python -m train matcher",
            ),
            (
                lambda: recommender.classify("red"),
                "'classify', which needs a bundle with heads",
                "Train them (python -m train heads",
            ),
        ):
            with pytest.raises(Unavailable) as caught:
                ask()
            assert type(caught.value) is Unavailable  # not Transient: it will be no better a moment later
            expected = f"{url} cannot answer: it has no model {needed}. {remedy} --run runs/NAME) and export the bundle again"
            assert str(caught.value) == f"{expected}; then update the server"
        with pytest.raises(InvalidInput, match="rerank needs a bundle with a matcher"):
            recommender.recommend("red", rerank=True)
        assert recommender.embed("red").vector.shape == (32,)
    with opened(driver, url, timeout_s=30, fallback=full_bundle) as recommender:
        assert recommender.match("red", ["3"]).served_by is ServedBy.EDGE
