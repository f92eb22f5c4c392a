"""What a bundle with a matcher and heads answers beside recommendations, against its engines asked one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bertrec.answers import Options, Recommendation
from bertrec.bundle import Bundle
from bertrec.engine import OnnxEngine
from bertrec.errors import InvalidAnswer, InvalidInput
from bertrec.matching import described, log_odds, pair_inputs, tokenised_items
from bertrec.questions import MOST_ITEMS, Classification, Classifying, Embedding, Pairing
from bertrec.services import Engines, Service, check_asked, open_service, open_services
from bertrec.session_options import SessionOptions
from bertrec.tensors import CLASSIFY, EMBED, HEADS, INTEREST_VECTOR, MATCH, MATCHER, PROBABILITIES, PROBABILITY, ModelSpec
from tests import tiny

TOP, WEIGHT = 5, 0.5  # of the tiny bundle's matcher
TEXTS = ("a green gown", "red skirt, nothing that is long", "what " * 90)


@pytest.fixture(scope="module")
def services(full_bundle: Path) -> dict[str, Service]:
    return open_services(Bundle.open(full_bundle), engine="fp32", session=SessionOptions(1))


def ask(services: dict[str, Service], model: str, texts: tuple[str, ...], question: object) -> list:  # type: ignore[type-arg]
    service = services[model]
    return service.answer(service.queries(texts, [question] * len(texts)))


def fit(bundle: Path, text: str, item: int | None) -> float:
    """The matcher, asked about one pair alone and without padding."""
    opened = Bundle.open(bundle)
    engine = OnnxEngine(opened.engine_path("matcher", "fp32"), MATCHER, SessionOptions(1))
    tokenizer = opened.tokenizer("fp32", model="matcher")
    items = [] if item is None else tokenised_items(opened.catalogue(), tokenizer, 8)[item]
    return float(engine.run(pair_inputs(tokenizer.tokenise([text]), [items]))[PROBABILITY.name][0, 0])


def test_a_match_is_what_the_matcher_says_of_the_pair(services: dict[str, Service], full_bundle: Path) -> None:
    answers = ask(services, "match", TEXTS, Pairing(["7", "0", "20"]))
    for text, answer in zip(TEXTS, answers, strict=True):
        assert [(one.item_id, one.title) for one in answer.matches] == [("7", "Item 7"), ("0", "Item 0"), ("20", "Item 20")]
        wanted = [fit(full_bundle, text, item) for item in (7, 0, 20)]
        assert [one.probability for one in answer.matches] == pytest.approx(wanted, abs=1e-5)
        assert Pairing(["7", "0", "20"]).read(answer.to_json()) == answer
    assert [answer.truncated for answer in answers] == [False, False, True]


def test_items_that_do_not_exist_are_named(services: dict[str, Service]) -> None:
    with pytest.raises(InvalidInput, match=r"^items names 'x', '99', which the catalogue does not have$"):
        ask(services, "match", ("red",), Pairing(["x", "3", "99"]))
    for items in ([], ["3", "3"], [str(item) for item in range(MOST_ITEMS + 1)]):
        with pytest.raises(InvalidInput, match=f"accepted are 1 to {MOST_ITEMS}, all different"):
            Pairing(items)


def test_a_classification_is_what_heads_and_matcher_say(services: dict[str, Service], full_bundle: Path) -> None:
    vectors = np.stack(ask(services, "embed", TEXTS, Embedding()))
    rows = OnnxEngine(full_bundle / "heads/fp32.onnx", HEADS, SessionOptions(1)).run({INTEREST_VECTOR.name: vectors})[
        PROBABILITIES.name
    ]
    for text, row, answer in zip(TEXTS, rows, ask(services, "classify", TEXTS, Classifying()), strict=True):
        assert list(answer.labels) == ["sentiment", "fabric"]
        assert [*answer.labels["sentiment"].values(), *answer.labels["fabric"].values()] == pytest.approx(row.tolist(), abs=1e-5)
        assert answer.recommends == pytest.approx(fit(full_bundle, text, None), abs=1e-5)
        assert answer.labels["fabric"][answer.best("fabric")] == max(answer.labels["fabric"].values())
        assert Classifying().read(answer.to_json()) == answer
    with pytest.raises(InvalidInput, match="head is 'mood'; this bundle has sentiment, fabric"):
        answer.best("mood")


def test_vectors_are_of_length_one_and_do_not_depend_on_their_batch(services: dict[str, Service]) -> None:
    texts = tuple(f"{word} coat" for word in tiny.WORDS) * 2  # more than a batch
    together = np.stack(ask(services, "embed", texts, Embedding()))
    assert together.dtype == np.float32 and np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = [ask(services, "embed", (text,), Embedding())[0] for text in texts[:5]]
    np.testing.assert_allclose(together[:5], alone, atol=1e-5)


def nats(probability: float) -> float:
    return float(log_odds(np.asarray([probability], np.float32))[0])


def recommended(services: dict[str, Service], text: str, **options: object) -> Recommendation:
    (answer,) = ask(services, "recommend", (text,), Options(**options))  # type: ignore[arg-type]
    assert isinstance(answer, Recommendation)
    return answer


@pytest.mark.parametrize(
    "options", [{}, {"exclude": ["6", "3"]}, {"filters": {"fabric": ["wool"]}}, {"history": ["2"]}], ids=lambda one: str(one)
)
def test_reranking_adds_the_matchers_log_odds_and_moves_the_best_alone(
    services: dict[str, Service], full_bundle: Path, options: dict[str, object]
) -> None:
    before = recommended(services, "a green gown", k=tiny.ITEMS, **options).items
    after = recommended(services, "a green gown", k=tiny.ITEMS, rerank=True, **options).items
    wanted = {one.item_id: one.score + WEIGHT * nats(fit(full_bundle, "a green gown", int(one.item_id))) for one in before[:TOP]}
    assert [one.item_id for one in after[:TOP]] == sorted(wanted, key=lambda item: -wanted[item])
    assert [one.score for one in after[:TOP]] == pytest.approx(sorted(wanted.values(), reverse=True), abs=1e-4)
    assert after[TOP:] == before[TOP:]
    for one in after[:TOP]:
        (reason,) = [reason for reason in one.reasons if reason.signal == "matcher"]
        assert reason.sentence == "its description, read beside your wish"
        assert sum(reason.score for reason in one.reasons) == pytest.approx(one.score, abs=1e-4)


def test_reranking_goes_with_diversity_and_with_texts_that_do_not_want_it(services: dict[str, Service]) -> None:
    options = [Options(rerank=True, k=3), Options(k=3), Options(rerank=True, diversity=0.5, k=3)]
    service = services["recommend"]
    reranked, plain, varied = service.answer(service.queries(["a green gown"] * 3, options))
    assert reranked == recommended(services, "a green gown", k=3, rerank=True)
    assert plain == recommended(services, "a green gown", k=3)
    assert len({one.item_id for one in varied.items}) == 3
    assert varied.items[0] == reranked.items[0]


def test_a_bundle_without_matcher_and_heads_says_what_it_lacks(tiny_bundle: Path) -> None:
    services = open_services(Bundle.open(tiny_bundle), engine="fp32", session=SessionOptions(1))
    assert set(services) == {"recommend", "embed"}
    with pytest.raises(InvalidInput, match="rerank needs a bundle with a matcher, and this one has none; ask without rerank"):
        recommended(services, "red", rerank=True)
    with pytest.raises(InvalidInput, match="match needs a bundle with a matcher.*python -m train matcher"):
        check_asked(services, MATCH, tiny_bundle)
    with pytest.raises(InvalidInput, match="classify needs a bundle with heads.*python -m train heads"):
        check_asked(services, CLASSIFY, tiny_bundle)


@pytest.mark.parametrize("row", ["", "[]", "{}", '{"matches":[],"truncated":false,"engine":"","bundle":""}', '{"labels":[]}'])
def test_answers_of_another_form_are_refused(row: str) -> None:
    for question in (Pairing(["1"]), Classifying()):
        with pytest.raises(InvalidAnswer):
            question.read(row)
    for vector in ([[1.0]], [float("nan")], ["x"]):
        with pytest.raises(InvalidAnswer):
            Embedding().read(vector)  # type: ignore[arg-type]


def test_what_the_matcher_reads_of_an_item_is_its_description(full_bundle: Path) -> None:
    items = Bundle.open(full_bundle).catalogue().items
    assert tiny.item_text(7) in described(items[7])


def test_a_probability_that_is_none_is_refused() -> None:
    good = Classification({"sentiment": {"negative": 1.0}}, 0.5, False, "fp32", "0")
    assert Classifying().read(good.to_json()) == good
    for value in ("2", "-0.1", "NaN"):
        with pytest.raises(InvalidAnswer, match="no probability"):
            Classifying().read(good.to_json().replace("0.5", value))


@pytest.mark.parametrize("spec", [EMBED, CLASSIFY])
def test_what_needs_no_items_opens_no_catalogue(full_bundle: Path, monkeypatch: pytest.MonkeyPatch, spec: ModelSpec) -> None:
    """With 50,000 items it would be 70 MiB in each of Triton's processes."""
    opened = Bundle.open(full_bundle)
    engines = Engines(opened, engine="fp32", session=SessionOptions(1))
    monkeypatch.setattr(Bundle, "catalogue", lambda _: pytest.fail("the catalogue was read"))
    service = open_service(opened, spec, run=engines, engine="fp32")
    question = Classifying() if spec is CLASSIFY else Embedding()
    assert len(service.answer(service.queries(["red"], [question]))) == 1
    assert set(engines.providers) == ({"encoder", "heads", "matcher"} if spec is CLASSIFY else {"encoder"})
