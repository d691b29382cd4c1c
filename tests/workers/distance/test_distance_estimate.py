"""The distance between two mean gradients from noisy groups: unbiased, with an honest interval."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.distance.distance_estimate import Products, estimate, reliability

GROUPS = 8


def groups(true, noise, rng, count=GROUPS):
    """Return group vectors ``[g][l]``: true gradients (L, D) and noise of so many times them."""
    size = noise * np.linalg.norm(true, axis=1, keepdims=True) / np.sqrt(true.shape[1])
    drawn = true + size * rng.standard_normal((count, *true.shape))
    return [[torch.from_numpy(block) for block in group] for group in drawn]


def truths(cosines, rng, width=400):
    """Return gradients a and b, (L, D), of blocks with these cosines and unlike norms."""
    a = rng.standard_normal((len(cosines), width))
    b = rng.standard_normal((len(cosines), width))
    b -= a * ((a * b).sum(1) / np.square(a).sum(1))[:, None]
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
    cosines = np.array(cosines)[:, None]
    scale = np.arange(1, len(cosines) + 1)[:, None]
    return scale * a, 3 * (cosines * a + np.sqrt(1 - cosines**2) * b)


def estimates(cosines, noise, times=200, seed=0):
    rng = np.random.default_rng(seed)
    a, b = truths(cosines, rng)
    return [
        estimate(Products.of(groups(a, noise, rng), groups(b, noise, rng))) for _ in range(times)
    ]


@pytest.mark.parametrize("cosines", [[0.9, 0.2, -0.4], [1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
@pytest.mark.parametrize("noise", [0.0, 0.5, 1.2])
def test_known_mixtures_are_estimated_without_bias(cosines, noise):
    found = np.array([one.distance for one in estimates(cosines, noise)])
    error = found.std(ddof=1) / np.sqrt(len(found))
    truth = 1 - np.mean(cosines)
    assert abs(found.mean() - truth) < 4 * error + 0.01
    if noise:  # a cosine of the means would be short of it by the noise in its own norms
        assert found.std() > 0


def test_the_interval_covers_the_truth_as_often_as_it_says():
    found = estimates([0.8, 0.3], 1.0, times=300)
    inside = np.mean([one.low <= 1 - 0.55 <= one.high for one in found])
    assert 0.9 <= inside <= 0.99


@given(
    seed=st.integers(0, 2**32 - 1),
    factor=st.floats(1e-6, 1e6),
    other=st.floats(1e-6, 1e6),
)
def test_sizes_of_gradients_do_not_matter(seed, factor, other):
    rng = np.random.default_rng(seed)
    a, b = truths([0.5, -0.1], rng, width=12)
    left, right = groups(a, 0.3, rng), groups(b, 0.3, rng)
    first = estimate(Products.of(left, right))
    scaled = estimate(
        Products.of(
            [[factor * block for block in group] for group in left],
            [[other * block for block in group] for group in right],
        )
    )
    assert scaled.distance == pytest.approx(first.distance, rel=1e-9)
    assert scaled.high == pytest.approx(first.high, rel=1e-9)
    assert scaled.reliability == pytest.approx(first.reliability, rel=1e-9)


def test_sides_change_places_and_groups_their_order_without_a_trace():
    rng = np.random.default_rng(3)
    a, b = truths([0.7, 0.1], rng)
    left, right = groups(a, 0.8, rng), groups(b, 0.8, rng)
    found = estimate(Products.of(left, right))
    turned = estimate(Products.of(right, left))
    assert turned.distance == pytest.approx(found.distance)
    assert turned.reliability == found.reliability[::-1]
    order = [6, 1, 4, 3, 2, 5, 0, 7]
    shuffled = estimate(Products.of([left[g] for g in order], [right[g] for g in order]))
    assert (shuffled.distance, shuffled.low) == pytest.approx((found.distance, found.low))


def test_nothing_is_clipped_and_noise_alone_has_no_distance():
    rng = np.random.default_rng(1)
    a, b = truths([1.0, 1.0], rng)
    over = [estimate(Products.of(groups(a, 1, rng), groups(b, 1, rng))) for _ in range(40)]
    assert min(one.distance for one in over) < 0 < max(one.distance for one in over)
    pure = [
        estimate(Products.of(*(groups(0 * a + 1, 300, rng) for _ in range(2)))) for _ in range(40)
    ]
    missing = [one for one in pure if None in one.cosines]
    assert missing, "half of all self products of noise are below 0"
    for one in missing:
        present = [cosine for cosine in one.cosines if cosine is not None]
        expected = 1 - np.mean(present) if present else None
        assert one.distance == pytest.approx(expected) if present else one.distance is None
    assert all(one.noisy for one in pure)


def test_reliability_is_the_cosine_of_two_halves():
    rng = np.random.default_rng(2)
    a, _ = truths([0.0], rng)
    vectors = groups(a, 1.0, rng)
    even = sum(group[0] for group in vectors[::2])
    odd = sum(group[0] for group in vectors[1::2])
    products = Products.of(vectors, vectors)
    expected = float(even @ odd / (even.norm() * odd.norm()))
    assert reliability(products.aa) == pytest.approx(expected)
    assert np.isnan(reliability(0 * products.aa))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_fewer_groups_give_a_distance_and_from_three_on_an_interval(count):
    rng = np.random.default_rng(count)
    a, b = truths([0.6], rng)
    found = estimate(Products.of(groups(a, 0.2, rng, count), groups(b, 0.2, rng, count)))
    assert found.distance == pytest.approx(0.4, abs=0.2)
    assert (found.low is None) == (count < 3)
