"""The monitor: its exact tail, how often it is wrong, and a real jump that it must not miss."""

from __future__ import annotations

from fractions import Fraction
from itertools import repeat
from math import comb

import numpy as np
import pytest
from numpy.typing import NDArray

from bertrec.errors import InvalidInput
from bertrec.labels import NEGATIVE
from bertrec.monitoring import Count, Monitor, tail
from train.clothing import load_clothing
from train.data import split_interactions
from train.heads.tasks import sentiment_of


def test_the_tail_is_that_of_exact_fractions() -> None:
    for window, before in ((Count(7, 20), Count(10, 180)), (Count(0, 5), Count(3, 9)), (Count(5, 5), Count(1, 200))):
        negative, texts = window.negative + before.negative, window.texts + before.texts
        exact = sum(
            Fraction(comb(negative, count) * comb(texts - negative, window.texts - count), comb(texts, window.texts))
            for count in range(window.negative, min(window.texts, negative) + 1)
        )
        assert tail(window, before) == pytest.approx(float(exact), rel=1e-9)
    assert tail(Count(5, 5), Count()) == 1.0  # no past says nothing


@pytest.mark.parametrize("baseline", [{"topic": Count(30, 300)}, {}], ids=["with a past", "without"])
def test_false_alerts_are_as_rare_as_promised(baseline: dict[str, Count]) -> None:
    # 400 periods of 1,000 texts of an unchanged topic; alpha promises 0.2 false alerts a period at most.
    random = np.random.default_rng(0)
    alerts = 0
    for _ in range(400):
        share = random.beta(30, 270) if baseline else 0.1  # what a past of 30 in 300 leaves open, or a known share
        monitor = Monitor(window=50, alpha=0.2, period=1_000, baseline=baseline)
        alerts += len(list(monitor.watch(zip(repeat("topic"), random.random(1_000) < share))))
    assert 0.01 <= alerts / 400 <= 0.2  # not above what is promised, and not deaf


def test_a_real_jump_is_found_and_only_where_it_is() -> None:
    dataset = load_clothing()
    split = split_interactions(dataset, 0)

    def seen(rows: NDArray[np.int64]) -> list[tuple[str, bool]]:
        chosen = [dataset.interactions[row] for row in rows.tolist()]
        return [(row.segments["department"], sentiment_of(row.rating) == NEGATIVE) for row in chosen]

    train, test = seen(split.train), seen(split.test)
    baseline = {
        topic: Count(sum(negative for name, negative in train if name == topic), sum(name == topic for name, _ in train))
        for topic in {name for name, _ in train}
    }
    assert baseline["Dresses"].share == pytest.approx(0.11, abs=0.02)
    assert list(Monitor(window=40, alpha=0.05, baseline=baseline).watch(test)) == []

    # From the middle on, every third review of a dress is one of the test reviews that really complain of a dress.
    complaints = iter([row for row in test if row == ("Dresses", True)])
    middle, dresses, jumped = len(test) // 2, 0, []
    for place, row in enumerate(test):
        dresses += row[0] == "Dresses"
        replaced = place >= middle and row[0] == "Dresses" and dresses % 3 == 0
        jumped.append(next(complaints, row) if replaced else row)
    before = sum(name == "Dresses" for name, _ in test[:middle])
    alerts = list(Monitor(window=40, alpha=0.05, baseline=baseline).watch(jumped))
    assert {alert.topic for alert in alerts} == {"Dresses"}
    assert 0 < alerts[0].position - before <= 80
    assert alerts[0].window.share > 2 * alerts[0].before.share
    assert alerts[0].sentence.startswith(f"Dresses: {alerts[0].window.negative} of the last 40 texts are negative")


def test_a_jump_that_lasts_is_told_again_and_does_not_become_what_is_usual() -> None:
    monitor = Monitor(window=20, baseline={"coats": Count(10, 1_000)})
    alerts = list(monitor.watch([("coats", False)] * 30 + [("coats", True)] * 60))
    assert [alert.window.texts for alert in alerts] == [20, 20, 20]
    assert alerts[1].position - alerts[0].position == 20
    assert alerts[2].before.share < 0.02


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"window": 1}, "window is 1; accepted are 2 texts or more"),
        ({"alpha": 0.0}, "alpha is 0.0; accepted is a number above 0 and below 1"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"window": 50, "period": 20}, r"period is 20 texts; accepted is the window \(50\) or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Monitor(**settings)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="5 of 3 texts are negative"):
        Count(5, 3)
