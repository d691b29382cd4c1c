"""Shares of variance and rank associations, with the model as the unit: oracles and error rates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.statistics import associations
from sweeps.statistics.associations import (
    FEWEST_MODELS,
    ends,
    over_models,
    partial_rank_association,
    rank_association,
    rank_association_draws,
    rank_association_p,
    unique_share,
    unique_share_by_chance,
    unique_share_draws,
    varies_within,
)
from sweeps.statistics.fits import additive
from sweeps.statistics.fits.additive import codes_of

MODELS = np.repeat(np.arange(12), 3)
OBJECTIVES = np.tile(np.arange(3), 12)
# Family sizes as of the study: several of one model.
FAMILY = np.array([0, 0, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7])[MODELS]
numbers = st.integers(-5, 5).map(float)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# ------------------------------------------------------------------------------- shares of variance
def chance_of(y, factor, given):
    """Return p and what the factor explains by chance, of conditions that differ in model and
    objective alone."""
    blocks = MODELS if factor is OBJECTIVES else np.arange(len(y))
    return unique_share_by_chance(y, factor, [given], MODELS, blocks)


def r_squared(y: np.ndarray, *factors: np.ndarray) -> float:
    design = np.column_stack([np.ones(len(y)), *[np.eye(f.max() + 1)[f] for f in factors]])
    rest = y - design @ np.linalg.pinv(design) @ y
    return 1 - (rest @ rest) / ((y - y.mean()) @ (y - y.mean()))


@given(st.integers(0, 10_000))
def test_the_unique_share_is_what_a_factor_adds_to_a_fit(seed):
    y = noise(seed, 36)
    expected = r_squared(y, FAMILY, OBJECTIVES) - r_squared(y, OBJECTIVES)
    assert unique_share(y, FAMILY, [OBJECTIVES]) == pytest.approx(expected, abs=1e-9)


# Many fits at once against one after another, which is the definition. Both round in the last place
# of a sum of squares, relative to the total: 1e-12 is four digits more than was seen.
PARITY = 1e-12


def uneven(seed: int):
    """Conditions of unlike numbers a model, and values."""
    generator = np.random.default_rng(seed)
    models = np.repeat(np.arange(13), generator.integers(1, 6, 13))
    levels = [generator.integers(0, k, len(models)) for k in (3, 2)]
    return models, *(codes_of(list(each)) for each in levels), generator.normal(size=len(models))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("within", [True, False])
def test_resamples_by_weight_are_fits_to_models_drawn_again(seed, within, monkeypatch):
    monkeypatch.setattr(associations, "RESAMPLES", 199)
    models, objective, control, y = uneven(seed)
    factor = objective if within else codes_of(list(models % 4))

    def share(places, copies):
        given = [control[places]]
        return unique_share(y[places], factor[places], [copies, *given] if within else given)

    found = unique_share_draws(y, factor, [control], models, within=within)
    assert found == pytest.approx(over_models(share, models), abs=PARITY)


@pytest.mark.parametrize("seed", range(3))
def test_permuted_factors_are_fitted_as_one_is(seed, monkeypatch):
    monkeypatch.setattr(associations, "RESAMPLES", 99)
    monkeypatch.setattr(additive, "AT_ONCE", 500)  # in several lots
    associations._permuted_places.cache_clear()
    models, objective, control, y = uneven(seed)
    drawn = list(associations._permuted(objective, models, np.arange(len(y))))
    expected = [unique_share(y, other, [models, control]) for other in drawn]
    found = associations._shares_of_factors(y, np.stack(drawn), [models, control])
    assert found == pytest.approx(expected, abs=PARITY)
    observed = unique_share(y, objective, [models, control])
    p = (1 + sum(value >= observed - 1e-12 for value in expected)) / 100
    by_chance = unique_share_by_chance(y, objective, [models, control], models, np.arange(len(y)))
    assert by_chance == pytest.approx((p, np.mean(expected)), abs=PARITY)
    associations._permuted_places.cache_clear()


def test_what_is_given_in_many_levels_is_taken_out_as_in_one_fit(monkeypatch):
    """A sweep over many learning rates: that factor is fitted by its means, and never as columns.
    Some levels are of models that a resample does not draw."""
    monkeypatch.setattr(associations, "RESAMPLES", 49)
    monkeypatch.setattr(additive, "AT_ONCE", 3_000)  # in several lots
    associations._resampled_fits.cache_clear()
    models = np.repeat(np.arange(11), 40)
    rates = np.tile(np.arange(20), 22) + 20 * (models == 7)
    objective, family = np.tile(np.repeat(np.arange(2), 20), 11), models % 4
    y = noise(5, len(models)) + 0.3 * rates + objective
    every = unique_share(y, objective, [models, rates])
    parts = r_squared(y, objective, models, rates) - r_squared(y, models, rates)
    assert every == pytest.approx(parts, abs=PARITY)

    def within(places, copies):
        return unique_share(y[places], objective[places], [copies, rates[places]])

    found = unique_share_draws(y, objective, [rates], models, within=True)
    assert found == pytest.approx(over_models(within, models), abs=PARITY)
    found = unique_share_draws(y, family, [objective, rates], models, within=False)
    expected = over_models(
        lambda places, _: unique_share(
            y[places], family[places], [objective[places], rates[places]]
        ),
        models,
    )
    assert found == pytest.approx(expected, abs=PARITY)
    associations._resampled_fits.cache_clear()


@pytest.mark.parametrize("sizes", [[4], [2, 2, 2], [3, 1, 1, 2, 2, 5], [1, 1]])
def test_permutations_are_those_of_one_block_after_another(sizes, monkeypatch):
    """The order of draws is part of every p that was ever reported."""
    monkeypatch.setattr(associations, "RESAMPLES", 20)
    associations._permuted_places.cache_clear()
    blocks = np.random.default_rng(3).permutation(np.repeat(np.arange(len(sizes)), sizes))
    generator = np.random.default_rng([associations.SEED, len(blocks)])
    expected = np.tile(np.arange(len(blocks)), (20, 1))
    for row in expected:
        for one in np.unique(blocks):
            own = np.flatnonzero(blocks == one)
            row[own] = generator.permutation(own)
    found = list(associations.permutations(np.arange(len(blocks)), blocks))
    assert np.array_equal(found, expected)
    associations._permuted_places.cache_clear()


@pytest.mark.parametrize("seed", range(3))
def test_rank_associations_by_weight_are_those_of_models_drawn_again(seed, monkeypatch):
    monkeypatch.setattr(associations, "RESAMPLES", 199)
    models, objective, _, y = uneven(seed)
    x = objective.astype(float)
    a, b = (associations.ranked(v, models, within=True).ranks for v in (x, y))
    expected = over_models(lambda places, _: associations._cosine(a[places], b[places]), models)
    assert rank_association_draws(x, y, models) == pytest.approx(expected, abs=PARITY)


def test_in_a_balanced_design_shares_of_nested_factors_add_up():
    y = noise(1, 36)
    of_models = unique_share(y, MODELS, [OBJECTIVES])
    of_objectives = unique_share(y, OBJECTIVES, [MODELS])
    assert of_models + of_objectives == pytest.approx(r_squared(y, MODELS, OBJECTIVES))
    assert unique_share(y, FAMILY, [MODELS]) == pytest.approx(0, abs=1e-12)
    assert np.isnan(unique_share(np.ones(36), FAMILY, [OBJECTIVES]))


def test_what_varies_within_models_is_told_from_what_does_not():
    assert varies_within(OBJECTIVES, MODELS)
    assert not varies_within(FAMILY, MODELS)
    assert codes_of(["b", "a", "b", None]).tolist() == [2, 1, 2, 0]


def test_a_factor_of_more_values_explains_more_by_chance():
    y = noise(20, 36)
    family, objective = (
        chance_of(y, f, g)[1] for f, g in ((FAMILY, OBJECTIVES), (OBJECTIVES, MODELS))
    )
    assert family == pytest.approx(7 / 35, abs=0.06)
    assert objective == pytest.approx(2 / 35, abs=0.03)


def test_what_differs_between_otherwise_equal_conditions_is_permuted_among_those():
    """A control that does nothing, run under one objective only, goes with that objective."""
    models = np.repeat(np.arange(12), 4)
    objective = np.tile([0, 0, 1, 2], 12)
    control = np.tile([0, 1, 0, 0], 12)
    y = objective + 0.01 * noise(21, 48)
    blocks = models * 3 + objective
    p, _ = unique_share_by_chance(y, control, [models, objective], models, blocks)
    assert p > 0.05


def test_planted_shares_are_found():
    family = 3.0 * (FAMILY % 2) + 0.2 * noise(2, 36)
    objective = 3.0 * OBJECTIVES + 0.2 * noise(3, 36)
    assert chance_of(objective, OBJECTIVES, MODELS)[0] < 0.01
    assert chance_of(family, FAMILY, OBJECTIVES)[0] < 0.05
    assert chance_of(objective, FAMILY, OBJECTIVES)[0] > 0.05


@pytest.fixture
def few_resamples(monkeypatch):
    """p values of a 200th, and coarser intervals: enough to count rejections at 5 %."""
    monkeypatch.setattr(associations, "RESAMPLES", 199)


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.slow
@pytest.mark.parametrize("model_sd", [0.0, 1.0])
def test_a_family_that_explains_nothing_is_rejected_as_rarely_as_it_says(model_sd):
    """Models differ, and the three conditions of a model go together: no reason to believe in
    families."""
    found = []
    for seed in range(250):
        y = model_sd * noise(seed, 12)[MODELS] + noise(seed + 1_000, 36)
        found.append(chance_of(y, FAMILY, OBJECTIVES)[0] <= 0.05)
    assert np.mean(found) <= 0.06


@pytest.mark.usefixtures("few_resamples")
def test_an_objective_that_explains_nothing_is_rejected_as_rarely_as_it_says():
    found = []
    for seed in range(250):
        y = 2 * noise(seed, 12)[MODELS] + noise(seed + 2_000, 36)
        found.append(chance_of(y, OBJECTIVES, MODELS)[0] <= 0.05)
    assert np.mean(found) <= 0.06


# ------------------------------------------------------------------------------------- associations
@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=12))
def test_within_one_model_it_is_the_rank_correlation_of_scipy(pairs):
    x, y = (np.array(side) for side in zip(*pairs, strict=True))
    got = rank_association(x, y, np.zeros(len(x), np.int64))
    if np.unique(x).size < 2 or np.unique(y).size < 2:
        assert np.isnan(got)
    else:
        assert got == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_differences_between_models_do_not_enter():
    within = np.tile([1.0, 2.0, 3.0], 12)
    x, y = within + 100 * noise(4, 12)[MODELS], within - 100 * noise(5, 12)[MODELS]
    assert rank_association(x, y, MODELS) == pytest.approx(1)


def test_what_is_the_same_within_models_is_compared_between_them():
    x = noise(6, 12)[MODELS]
    y = noise(7, 36)
    means = [np.array([v[m == MODELS].mean() for m in range(12)]) for v in (x, y)]
    expected = stats.spearmanr(*means).statistic
    assert rank_association(x, y, MODELS) == pytest.approx(expected)


def test_a_common_cause_is_taken_out():
    cause = noise(8, 3_000)
    x, y = cause + noise(9, 3_000), cause + noise(10, 3_000)
    one = np.zeros(3_000, np.int64)
    assert rank_association(x, y, one) > 0.4
    assert partial_rank_association(x, y, cause, one) == pytest.approx(0, abs=0.06)
    assert np.isnan(partial_rank_association(cause, y, cause, one))


@pytest.mark.usefixtures("few_resamples")
def test_no_association_is_rejected_as_rarely_as_it_says():
    found = []
    for seed in range(300):
        distance = noise(seed, 36) + 2 * noise(seed + 1, 12)[MODELS]
        steepness = noise(seed + 3_000, 36) + 2 * noise(seed + 1, 12)[MODELS]
        found.append(rank_association_p(distance, steepness, MODELS) <= 0.05)
    assert np.mean(found) <= 0.06


def test_a_planted_association_is_found_with_its_interval():
    distance = noise(11, 36)
    low, high = ends(rank_association_draws(distance, distance + 0.3 * noise(12, 36), MODELS))
    assert 0 < low < high <= 1
    assert rank_association_p(distance, distance + 0.3 * noise(12, 36), MODELS) < 0.01


# -------------------------------------------------------------------------------------- resampling
def test_a_model_drawn_twice_is_two_models_with_all_their_conditions():
    seen = []

    def note(places, copies):
        seen.append((places, copies))
        return 0.0

    over_models(note, MODELS)
    for places, copies in seen[:50]:
        assert len(np.unique(copies)) == 12
        for copy in np.unique(copies):
            own = MODELS[places[copies == copy]]
            assert len(np.unique(own)) == 1
            assert len(own) == 3


def test_too_few_models_have_no_interval():
    few = MODELS[MODELS < FEWEST_MODELS - 1]
    assert len(over_models(lambda *_: 0.0, few)) == 0
    assert np.isnan(ends(np.empty(0))).all()


def test_an_undefined_resample_does_not_count():
    assert ends(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
