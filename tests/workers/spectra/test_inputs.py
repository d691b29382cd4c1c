"""The row-shuffled null, and inputs that cannot be compared."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import asdict, replace

import pytest
import torch
from state_pairs import (
    TIGHT,
    assert_same_distances,
    correlated_pair,
    gaussian,
    seeded,
)

from workers.probes.similarity import (
    METRICS,
    Reference,
    compare,
    shuffled_null,
)


class TestShuffledNull:
    @pytest.mark.parametrize(("n", "d"), [(60, 20), (20, 60)])
    def test_is_compare_with_the_references_own_rows_in_another_order(self, n: int, d: int) -> None:
        x, _ = correlated_pair(n, d, seeded(24))
        order = torch.randperm(n, generator=seeded(25))
        null = shuffled_null(Reference.of(x), seeded(25))
        assert_same_distances(null, compare(x, x[order]))
        assert null == shuffled_null(Reference.of(x), seeded(25))

    def test_metrics_without_correspondence_of_rows_are_those_of_no_change(self) -> None:
        x, _ = correlated_pair(30, 12, seeded(26))
        null, unchanged = shuffled_null(Reference.of(x), seeded(27)), compare(x, x)
        assert null.mean_shift == unchanged.mean_shift == 0.0
        assert null.scale_log_ratio == unchanged.scale_log_ratio == 0.0
        assert null.effective_rank == pytest.approx(unchanged.effective_rank, rel=TIGHT)

    def test_unchanged_layer_is_far_below_its_null(self) -> None:
        x = gaussian(100, 10, seeded(28))
        null = shuffled_null(Reference.of(x), seeded(29))
        assert null.procrustes > 0.9
        assert null.cka_distance_debiased == pytest.approx(1, abs=0.1)
        assert compare(x, x).procrustes == 0.0

    @pytest.mark.parametrize(("n", "d"), [(256, 64), (64, 128)])
    def test_a_changed_layer_has_nearly_the_null_of_its_reference(self, n: int, d: int) -> None:
        """What lets a run compute it once: half of the variance is another, and the spectrum
        differs, and yet the null of the pair moves by a few hundredths of itself."""
        x, y = correlated_pair(n, d, seeded(24))
        order = torch.randperm(n, generator=seeded(25))
        null = shuffled_null(Reference.of(x), seeded(25))
        of_pair = compare(x, y[order])
        assert compare(x, y).procrustes > 0.4
        assert null.procrustes == pytest.approx(of_pair.procrustes, rel=0.15)

    def test_advances_the_generator(self) -> None:
        x, _ = correlated_pair(30, 12, seeded(30))
        generator, reference = seeded(31), Reference.of(x)
        first, second = shuffled_null(reference, generator), shuffled_null(reference, generator)
        assert first.procrustes != second.procrustes


class TestInputs:
    def test_metric_names_are_those_of_the_definitions(self) -> None:
        assert METRICS == (
            "procrustes",
            "cka_distance",
            "cka_distance_debiased",
            "mean_shift",
            "scale_log_ratio",
            "effective_rank",
            "rank_95",
            "rank_99",
            "subspace_overlap",
        )
        x, y = correlated_pair(8, 3, seeded(32))
        assert tuple(asdict(compare(x, y))) == METRICS

    def test_change_and_reference_are_frozen(self) -> None:
        x, y = correlated_pair(8, 3, seeded(33))
        with pytest.raises(dataclasses.FrozenInstanceError):
            compare(x, y).procrustes = 0.0  # type: ignore[misc]
        with pytest.raises(dataclasses.FrozenInstanceError):
            Reference.of(x).norm = 1.0  # type: ignore[misc]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_narrow_floats_are_taken_to_float64_first(self, dtype: torch.dtype) -> None:
        x, y = (m.to(dtype) for m in correlated_pair(16, 24, seeded(34)))
        assert compare(x, y) == compare(x.double(), y.double())

    def test_float32_input_keeps_a_change_that_float32_arithmetic_loses(self) -> None:
        x = gaussian(512, 64, seeded(35)).float()
        y = x + 1e-3 * gaussian(512, 64, seeded(36)).float()
        assert compare(x, y).procrustes == pytest.approx(1e-3, rel=0.15)

    def test_input_is_left_unchanged_and_gradients_are_not_followed(self) -> None:
        x, y = correlated_pair(12, 6, seeded(37))
        kept = x.clone()
        tracked = x.clone().requires_grad_()
        assert compare(tracked, y) == compare(x, y)
        assert not Reference.of(tracked).coordinates.requires_grad
        assert torch.equal(x, kept)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_refuses_values_that_are_not_finite(self, value: float) -> None:
        x, y = correlated_pair(12, 6, seeded(38))
        y[3, 4] = value
        with pytest.raises(ValueError, match=r"block 2: 1 of 72 .* row 3, feature 4; .*float32"):
            compare(x, y, label="block 2")
        with pytest.raises(ValueError, match="reference: 1 of 72"):
            Reference.of(y)

    @pytest.mark.parametrize("value", [0.0, 0.7, 1e6])
    def test_refuses_rows_that_are_all_equal(self, value: float) -> None:
        """Also when their mean is rounded, as that of 12 times 0.7 is, so that X_c is not zero."""
        x = gaussian(12, 6, seeded(39))
        with pytest.raises(ValueError, match="current: all 12 rows are equal"):
            compare(x, torch.full((12, 6), value, dtype=torch.float64))

    @pytest.mark.parametrize("n", [0, 1, 2, 3])
    def test_refuses_fewer_rows_than_the_debiased_cka_can_use(self, n: int) -> None:
        with pytest.raises(ValueError, match=rf"reference: {n} rows .* at least 4 rows"):
            compare(torch.ones(n, 6), torch.ones(n, 6))

    def test_four_rows_are_enough(self) -> None:
        x, y = correlated_pair(4, 6, seeded(40))
        assert all(math.isfinite(value) for value in asdict(compare(x, y)).values())

    def test_refuses_a_tensor_that_is_not_a_matrix(self) -> None:
        with pytest.raises(ValueError, match=r"expected a matrix .* got shape \(2, 8, 6\)"):
            Reference.of(torch.ones(2, 8, 6))

    @pytest.mark.parametrize("shape", [(12, 7), (11, 6)])
    def test_refuses_shapes_that_differ(self, shape: tuple[int, int]) -> None:
        reference = Reference.of(gaussian(12, 6, seeded(41)), label="block 1 at step 0")
        with pytest.raises(ValueError, match=r"differs from \(12, 6\) of block 1 at step 0"):
            compare(reference, gaussian(*shape, seeded(42)))

    def test_refuses_devices_that_differ(self) -> None:
        x, y = correlated_pair(12, 6, seeded(43))
        reference = Reference.of(x)
        elsewhere = replace(reference, coordinates=reference.coordinates.to("meta"))
        with pytest.raises(ValueError, match=r"on cpu but reference is on meta; .*\.to\(device\)"):
            compare(elsewhere, y)
