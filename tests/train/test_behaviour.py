"""The behaviour signal: users of one taste, and those who came later, get what their like chose."""

from __future__ import annotations

import numpy as np

from bertrec.history import BehaviourSignal
from train.behaviour import fit_behaviour
from train.data import Dataset, Interaction, Item, split_interactions
from train.examples import make_examples

ITEMS = tuple(Item(str(number), title=f"film {number}") for number in range(21))


def taste(user: int) -> range:
    """Even users choose among the first ten items, odd ones among the next ten; nobody the last."""
    return range(10) if user % 2 == 0 else range(10, 20)


def data() -> Dataset:
    random = np.random.default_rng(0)
    rows = [
        Interaction(int(item), user_id=f"u{user}", timestamp=float(time), split="train")
        for user in range(30)
        for time, item in enumerate(random.permutation(taste(user))[:7])
    ]
    return Dataset("tastes", ITEMS, tuple(rows))


def test_a_newcomer_is_the_mean_of_what_he_chose() -> None:
    dataset = data()
    split = split_interactions(dataset, 0)
    signal = fit_behaviour(dataset, make_examples(dataset, split), split.train, dimensions=2, seed=0)
    assert signal is not None
    scores = signal.vectors([(0, 3), (12, 15)]) @ signal.factors.astype(np.float32).T
    assert scores[0, :10].min() > scores[0, 10:].max()
    assert scores[1, 10:20].min() > scores[1, :10].max()
    assert not signal.factors[20].any()
    np.testing.assert_array_equal(signal.vectors([()]), 0)


def test_without_users_there_is_no_such_signal() -> None:
    dataset = Dataset("nobody", ITEMS, tuple(Interaction(item, "a film") for item in range(20)))
    split = split_interactions(dataset, 0)
    assert fit_behaviour(dataset, make_examples(dataset, split), split.train, dimensions=8, seed=0) is None


def test_factors_are_kept_without_pickle(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    signal = BehaviourSignal(np.eye(3, dtype=np.float16))
    signal.save(folder)
    np.testing.assert_array_equal(BehaviourSignal.load(folder).factors, signal.factors)
