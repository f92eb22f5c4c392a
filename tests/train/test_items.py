"""The item side: shrinkage and the map for new items, and the losses that item vectors are learned by."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bertrec.errors import InvalidInput
from train.examples import Pairs
from train.items import FIRST_SCALE, ItemSide, centroids, fit_map, log_prior, shrink
from train.loss import MATRYOSHKA_WEIGHT, CatalogueLoss
from train.optimise import fit_items
from train.settings import PRESETS, FitSettings, Preset


@pytest.fixture
def settings() -> FitSettings:
    return PRESETS[Preset.QUICK]


def unit_rows(rows: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_the_prior_is_the_shrunk_share_of_choices() -> None:
    np.testing.assert_allclose(np.exp(log_prior(np.asarray([0, 1, 2]))), np.asarray([0.5, 1.5, 2.5]) / 4.5, rtol=1e-6)


def test_a_centroid_is_the_mean_direction_of_an_items_texts() -> None:
    vectors = np.asarray([[1, 0], [0, 1], [1, 0]], np.float32)
    found = centroids(vectors, Pairs(["a", "b", "c"], np.asarray([0, 0, 2])), 3)
    np.testing.assert_allclose(found, np.asarray([[math.sqrt(0.5), math.sqrt(0.5)], [0, 0], [1, 0]]), atol=1e-6)


def test_the_temperature_is_that_which_training_begins_with() -> None:
    first, counts = unit_rows(7, 4), np.ones(7, np.int64)
    np.testing.assert_allclose(ItemSide(first, counts, 0.5, 20.0).numpy(), 20.0 * first, rtol=1e-6)
    np.testing.assert_allclose(ItemSide(first, counts, 0.5).numpy(), FIRST_SCALE * first, rtol=1e-6)
    unlearned = fit_map(first, np.zeros_like(first), np.zeros(7, np.int64), 20.0)
    np.testing.assert_allclose(unlearned(first), 20.0 * first, rtol=1e-5)
    with pytest.raises(InvalidInput, match="text_scale is 0; accepted is a number above 0"):
        dataclasses.replace(PRESETS[Preset.QUICK], text_scale=0)


def test_the_map_finds_a_linear_relation_and_new_items_follow_it() -> None:
    described, matrix = unit_rows(4_000, 6), np.random.default_rng(1).normal(size=(6, 6)).astype(np.float32)
    item_map = fit_map(described, described @ matrix + 3.0, np.full(4_000, 100))
    new = unit_rows(5, 6, seed=2)
    np.testing.assert_allclose(item_map(new), new @ matrix + 3.0, atol=0.05)
    np.testing.assert_allclose(item_map.shifted(np.full(6, 3.0, np.float32))(new), new @ matrix, atol=0.05)


def test_where_nobody_chose_anything_an_item_is_its_description() -> None:
    described = unit_rows(20, 4)
    found = fit_map(described, np.full((20, 4), 7.0, np.float32), np.zeros(20, np.int64))(described)
    np.testing.assert_allclose(found, FIRST_SCALE * described, rtol=1e-5)


def test_items_that_nobody_chose_teach_the_map_nothing() -> None:
    described, learned = unit_rows(50, 4), unit_rows(50, 4, seed=1)
    learned[:10] = 100.0
    counts = np.where(np.arange(50) < 10, 0, 5)
    np.testing.assert_allclose(
        fit_map(described, learned, counts).matrix, fit_map(described[10:], learned[10:], counts[10:]).matrix, rtol=1e-5
    )


def test_shrinkage_weighs_by_interactions() -> None:
    learned, mapped = np.full((3, 2), 4.0, np.float32), np.zeros((3, 2), np.float32)
    np.testing.assert_allclose(shrink(learned, mapped, np.asarray([0, 2, 6]), 2.0)[:, 0], [0.0, 2.0, 3.0])


def test_the_full_loss_is_cross_entropy_with_the_prior(settings: FitSettings) -> None:
    side = ItemSide(unit_rows(7, 4), np.arange(7), 0.5)
    user, items = torch.from_numpy(unit_rows(3, 4, seed=1)), torch.tensor([1, 5, 2])
    expected = torch.nn.functional.cross_entropy(user @ side.vectors.T + 0.5 * side.log_prior, items)
    torch.testing.assert_close(CatalogueLoss(side, settings)(user, items), expected)


def test_matryoshka_adds_the_loss_of_the_first_dimensions(settings: FitSettings) -> None:
    side = ItemSide(unit_rows(7, 4), np.ones(7, np.int64), 0.0)
    user, items = torch.from_numpy(unit_rows(3, 4, seed=1)), torch.tensor([1, 5, 2])
    prefix = torch.nn.functional.normalize(user[:, :2], dim=-1)
    expected = torch.nn.functional.cross_entropy(user @ side.vectors.T, items)
    expected += MATRYOSHKA_WEIGHT * torch.nn.functional.cross_entropy(prefix @ side.vectors[:, :2].T, items)
    found = CatalogueLoss(side, dataclasses.replace(settings, matryoshka=(2, 64)))(user, items)
    torch.testing.assert_close(found, expected)


def test_sampled_negatives_never_hold_a_right_item_and_keep_the_hard_ones(settings: FitSettings) -> None:
    sampled = dataclasses.replace(settings, full_softmax_items=10, negatives=8)
    side = ItemSide(unit_rows(50, 4), np.ones(50, np.int64), 0.0)
    loss_of = CatalogueLoss(side, sampled)
    user, items = torch.from_numpy(unit_rows(6, 4, seed=1)), torch.tensor([3, 3, 7, 9, 9, 1])
    for _ in range(20):
        vectors, prior, labels = loss_of._candidates(user, items)
        torch.testing.assert_close(vectors[labels], side.vectors[items])
        assert (torch.isfinite(prior).sum(1) == len(vectors) - 4 + 1).all()  # of the four right items a row sees its own
        assert torch.isfinite(loss_of(user, items))
    best = (user @ side.vectors.T).argsort(dim=1, descending=True)[:, :10]
    assert set(loss_of._hard.tolist()) & set(best.flatten().tolist())
    assert len(loss_of._hard) == 4


@pytest.mark.parametrize("most", [20_000, 10])
def test_item_vectors_learn_a_checkerboard_by_either_loss(settings: FitSettings, most: int) -> None:
    users, items = np.repeat(unit_rows(40, 16), 8, axis=0), np.repeat(np.arange(40), 8)
    side = ItemSide(np.zeros((40, 16), np.float32), np.full(40, 8), 0.5)
    learning = dataclasses.replace(settings, full_softmax_items=most, negatives=16, item_epochs=60, item_batch_size=32)
    fit_items(side, users.astype(np.float32), items, learning)
    assert (side(torch.from_numpy(users)).argmax(1).numpy() == items).mean() > 0.95
