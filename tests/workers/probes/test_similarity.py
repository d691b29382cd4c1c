"""The metrics of one layer's change, against oracles, invariances, a slow reference and libraries.

Tolerances. The metrics are float64 and sums of at most a few hundred terms of size one, so rounding
leaves about 1e-14 in d² and in every similarity. Tests compare d² (or d where d is large) and the
rest within TIGHT = 1e-12, two orders above it. The debiased CKA divides by HSIC₁(X,X), which is a
difference: for the few rows that hypothesis draws it loses up to three more digits (LOOSE = 1e-9).
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from state_pairs import (
    EXTENDED,
    LOOSE,
    TIGHT,
    assert_same_distances,
    centred_orthonormal,
    correlated_pair,
    exact_distance,
    features,
    gaussian,
    properties,
    rotation,
    rows,
    seeded,
    seeds,
    slow_change,
)

from workers.probes import similarity
from workers.probes.similarity import (
    CANCELLATION,
    Reference,
    compare,
    self_hsic,
    subspace_overlap,
)
from workers.spectra.nuclear_norm import ACCEPTED


class TestSlowReference:
    @pytest.mark.parametrize(
        ("n", "d"), [(4, 3), (12, 5), (5, 12), (30, 30), (64, 40), (40, 64), (256, 96), (96, 256)]
    )
    def test_every_metric_agrees(self, n: int, d: int) -> None:
        x, y = correlated_pair(n, d, seeded(n * d))
        fast, slow = compare(x, y), slow_change(x, y)
        assert_same_distances(fast, slow)
        assert (fast.rank_95, fast.rank_99) == (slow.rank_95, slow.rank_99)
        assert fast.subspace_overlap == pytest.approx(slow.subspace_overlap, rel=LOOSE)
        for name in ("mean_shift", "scale_log_ratio", "effective_rank"):
            # Relative, with k·4e-15 of the Gram spectrum's entropy as the largest part.
            assert getattr(fast, name) == pytest.approx(getattr(slow, name), rel=TIGHT)

    def test_reduced_path_agrees_with_direct_path_on_the_same_data(self) -> None:
        x, y = correlated_pair(50, 20, seeded(0))
        turn, other = rotation(80, seeded(1)), rotation(80, seeded(2))
        wide_x = torch.nn.functional.pad(x, (0, 60)) @ turn
        wide_y = torch.nn.functional.pad(y, (0, 60)) @ other
        direct, reduced = compare(x, y), compare(wide_x, wide_y)
        assert_same_distances(direct, reduced)
        assert reduced.effective_rank == pytest.approx(direct.effective_rank, rel=TIGHT)
        assert reduced.scale_log_ratio == pytest.approx(direct.scale_log_ratio, abs=TIGHT)

    @pytest.mark.parametrize(("n", "d"), [(40, 12), (12, 40)])
    def test_duplicate_rows_agree(self, n: int, d: int) -> None:
        x, y = correlated_pair(n, d, seeded(3))
        x[n // 2 :], y[n // 2 :] = x[0].clone(), y[0].clone()
        assert_same_distances(compare(x, y), slow_change(x, y))

    @pytest.mark.parametrize(("n", "d"), [(40, 12), (12, 40)])
    def test_repeating_every_row_changes_neither_procrustes_nor_biased_cka(
        self, n: int, d: int
    ) -> None:
        x, y = correlated_pair(n, d, seeded(4))
        once, twice = compare(x, y), compare(torch.cat([x, x]), torch.cat([y, y]))
        assert twice.procrustes == pytest.approx(once.procrustes, abs=TIGHT)
        assert twice.cka_distance == pytest.approx(once.cka_distance, abs=TIGHT)

    def test_rows_of_huge_norm_agree_and_hide_the_change_of_all_others(self) -> None:
        generator = seeded(5)
        x = gaussian(512, 64, generator)
        y = x + 0.06 * gaussian(512, 64, generator)
        plain = compare(x, y)
        sinks = 300 * gaussian(4, 64, generator)
        x[:4], y[:4] = sinks, sinks
        hidden = compare(x, y)
        assert_same_distances(hidden, slow_change(x, y))
        assert hidden.procrustes < plain.procrustes / 10

    def test_a_prepared_reference_gives_the_same_values_for_every_current(self) -> None:
        x, y = correlated_pair(20, 33, seeded(6))
        reference = Reference.of(x)
        for current in (y, 2 * y, x):
            assert compare(reference, current) == compare(x, current)

    @pytest.mark.parametrize(("n", "d"), [(33, 20), (20, 33)])
    def test_a_prepared_reference_holds_the_smaller_dimension_only(self, n: int, d: int) -> None:
        assert Reference.of(gaussian(n, d, seeded(44))).coordinates.shape == (n, min(n, d))


class TestOracles:
    @pytest.mark.parametrize(("n", "d"), [(60, 20), (20, 60), (24, 24)])
    @pytest.mark.parametrize("scale", [2.5, -0.01])
    def test_rotated_scaled_shifted_copy_has_not_changed(
        self, n: int, d: int, scale: float
    ) -> None:
        generator = seeded(n)
        x = gaussian(n, d, generator)
        offset = gaussian(1, d, generator)
        change = compare(x, scale * x @ rotation(d, generator) + offset)
        # The residual path has an absolute error of a few 1e-15 per row, not the root of 1e-14.
        assert change.procrustes < 1e-12
        assert change.cka_distance < TIGHT
        assert change.cka_distance_debiased < TIGHT
        assert change.scale_log_ratio == pytest.approx(math.log(abs(scale)), abs=TIGHT)

    @pytest.mark.parametrize(("n", "d"), [(60, 20), (20, 60)])
    def test_identical_input_is_exactly_zero_even_when_ill_conditioned(
        self, n: int, d: int
    ) -> None:
        x = gaussian(n, d, seeded(7)) * torch.logspace(0, -12, d, dtype=torch.float64)
        change = compare(x, x)
        assert change.procrustes == 0.0
        assert change.mean_shift == 0.0
        assert change.scale_log_ratio == 0.0
        assert change.cka_distance < TIGHT
        assert change.cka_distance_debiased < TIGHT

    @pytest.mark.parametrize("d", [6, 40])
    def test_uncorrelated_features_are_at_the_greatest_distance(self, d: int) -> None:
        basis = centred_orthonormal(20, 12, seeded(8))
        x = torch.nn.functional.pad(basis[:, :6], (0, d - 6))
        y = torch.nn.functional.pad(basis[:, 6:], (0, d - 6)) @ rotation(d, seeded(9))
        change = compare(x, y)
        assert change.procrustes == pytest.approx(math.sqrt(2), abs=TIGHT)
        assert change.cka_distance == pytest.approx(1, abs=TIGHT)

    @pytest.mark.parametrize("mix", [-0.9, 0.05, 0.7])
    def test_one_feature_is_a_function_of_the_correlation(self, mix: float) -> None:
        generator = seeded(10)
        x = gaussian(50, 1, generator)
        y = mix * x + (1 - abs(mix)) * gaussian(50, 1, generator)
        r = float(torch.corrcoef(torch.cat([x, y], dim=1).T)[0, 1])
        change = compare(x, y)
        assert change.procrustes == pytest.approx(math.sqrt(2 - 2 * abs(r)), abs=TIGHT)
        assert change.cka_distance == pytest.approx(1 - r * r, abs=TIGHT)

    @pytest.mark.parametrize(("n", "d"), [(60, 25), (30, 70)])
    def test_shared_rows_with_two_spectra(self, n: int, d: int) -> None:
        generator = seeded(11)
        u = centred_orthonormal(n, 25, generator)
        a, b = gaussian(2, 25, generator)
        x = u * a @ rotation(d, generator)[:25]
        y = u * b @ rotation(d, generator)[:25]
        nuclear = float((a * b).abs().sum() / (a.norm() * b.norm()))
        cka = float((a**2 * b**2).sum() / ((a**2).norm() * (b**2).norm()))
        change = compare(x, y)
        assert change.procrustes == pytest.approx(math.sqrt(2 - 2 * nuclear), abs=TIGHT)
        assert change.cka_distance == pytest.approx(1 - cka, abs=TIGHT)

    @pytest.mark.parametrize(("n", "d"), [(400, 100), (200, 600)])
    def test_independent_gaussians_have_only_the_bias_of_cka(self, n: int, d: int) -> None:
        change = compare(gaussian(n, d, seeded(12)), gaussian(n, d, seeded(13)))
        # Measured standard deviation over seeds: at most 0.008.
        assert 1 - change.cka_distance == pytest.approx(d / (n + d), abs=0.03)
        assert change.cka_distance_debiased == pytest.approx(1, abs=0.03)

    @pytest.mark.parametrize(("n", "d"), [(40, 16), (16, 40)])
    def test_effective_rank_counts_equal_directions(self, n: int, d: int) -> None:
        generator = seeded(14)
        x = gaussian(n, d, generator)
        for rank in (1, 5, 15):
            y = centred_orthonormal(n, rank, generator) @ rotation(d, generator)[:rank] + 2.0
            assert compare(x, y).effective_rank == pytest.approx(rank, rel=TIGHT)

    @pytest.mark.parametrize(("n", "d"), [(60, 30), (30, 60)])
    def test_ranks_count_the_directions_that_hold_the_energy(self, n: int, d: int) -> None:
        """Ten equal directions: nine hold 90 %, ten all; 99 % are held by the first of two whose
        energies are 0.992 and 0.008."""
        generator = seeded(47)
        turned = rotation(d, generator)
        x = centred_orthonormal(n, 10, generator) @ turned[:10]
        assert (compare(x, x).rank_95, compare(x, x).rank_99) == (10, 10)
        lengths = torch.tensor([0.992, 0.008], dtype=torch.float64).sqrt()
        y = centred_orthonormal(n, 2, generator) * lengths @ turned[:2]
        assert (compare(x, y).rank_95, compare(x, y).rank_99) == (1, 1)
        lengths = torch.tensor([0.96, 0.04], dtype=torch.float64).sqrt()
        y = centred_orthonormal(n, 2, generator) * lengths @ turned[:2]
        assert (compare(x, y).rank_95, compare(x, y).rank_99) == (1, 2)

    @pytest.mark.parametrize(("n", "d"), [(60, 30), (30, 60)])
    def test_overlap_is_the_share_of_energy_in_the_references_span(self, n: int, d: int) -> None:
        generator = seeded(48)
        u = centred_orthonormal(n, 12, generator)
        x = u[:, :6] @ rotation(d, generator)[:6]
        inside, outside = u[:, :6], u[:, 6:]
        assert compare(x, x).subspace_overlap == pytest.approx(1, abs=TIGHT)
        for share in (0.0, 0.3, 1.0):
            both = torch.cat([inside * share**0.5, outside * (1 - share) ** 0.5], dim=1)
            y = both @ rotation(d, generator)[:12]
            assert compare(x, y).subspace_overlap == pytest.approx(share, abs=TIGHT)

    def test_mean_shift_is_in_units_of_the_references_row_radius(self) -> None:
        x = gaussian(40, 8, seeded(15)) + 5.0
        radius = (x - x.mean(dim=0)).square().sum(dim=1).mean().sqrt()
        direction = torch.nn.functional.normalize(gaussian(1, 8, seeded(16)))
        change = compare(x, x + 3 * radius * direction)
        assert change.mean_shift == pytest.approx(3, rel=TIGHT)
        assert change.procrustes < TIGHT

    def test_scale_log_ratio_is_positive_when_the_representation_grows(self) -> None:
        x = gaussian(10, 4, seeded(17))
        assert compare(x, math.e * x).scale_log_ratio == pytest.approx(1, abs=TIGHT)

    def test_debiased_cka_is_nan_when_all_rows_are_equally_far_apart(self) -> None:
        simplex = torch.eye(6, dtype=torch.float64)
        change = compare(simplex, gaussian(6, 6, seeded(18)))
        assert math.isnan(change.cka_distance_debiased)
        assert math.isfinite(change.procrustes)


class TestAccuracy:
    @pytest.mark.skipif(EXTENDED > 1e-18, reason="numpy's longdouble is no longer than a double")
    @pytest.mark.parametrize(("n", "d"), [(40, 90), (150, 60)])
    @pytest.mark.parametrize("moved", [1.0, 0.1, 0.003])
    def test_the_distance_is_that_of_extended_precision(self, n: int, d: int, moved: float) -> None:
        generator = seeded(53)
        x = gaussian(n, d, generator) * torch.logspace(0, -3, d, dtype=torch.float64)
        y = x + moved * x.std() * gaussian(n, d, generator)
        truth = exact_distance(x, y)
        # d² = 2 − 2·nuc is off by twice what nuc is, and d by that over 2d.
        assert compare(x, y).procrustes == pytest.approx(truth, abs=ACCEPTED / truth)


class TestSmallChange:
    @pytest.mark.parametrize(("n", "d"), [(200, 64), (64, 200)])
    @pytest.mark.parametrize("jitter", [1e-6, 1e-5, 2.5e-5, 4e-5, 1e-4, 1e-3])
    def test_relative_accuracy(self, n: int, d: int, jitter: float) -> None:
        """Truth without cancellation: ‖a/‖a‖ − b/‖b‖‖ for spectra a, b > 0 over shared rows."""
        generator = seeded(19)
        a = torch.logspace(0, -4, 60, dtype=torch.float64)
        b = a * (1 + jitter * gaussian(1, 60, generator)[0])
        u = centred_orthonormal(n, 60, generator)
        x = u * a @ rotation(d, generator)[:60]
        y = 7 * (u * b @ rotation(d, generator)[:60]) + 1.0
        truth = float((a / a.norm() - b / b.norm()).norm())
        # Above the switch 1e-14 in d² is 1e-14/(2d²) relative in d; below it 1e-14 in d itself.
        relative = 1e-14 / (2 * truth**2) if truth >= CANCELLATION else 1e-14 / truth
        assert compare(x, y).procrustes == pytest.approx(truth, rel=3 * relative + TIGHT)

    def test_rounding_takes_no_overlap_beyond_one(self) -> None:
        """A share of 1 whose sum came out a little larger is 1."""
        x = Reference.of(gaussian(12, 3, seeded(52)))
        held = torch.diag(x.spectrum) * (1 + 1e-9)
        assert float((held.square().sum(dim=1) / x.spectrum).sum()) > 1
        assert subspace_overlap(x, held) == 1.0

    def test_self_similarity_counts_down_to_rounding_and_not_below(self) -> None:
        """Of rows about equally far apart HSIC₁(X, X) is small and, in float64, still a number."""
        energy = torch.full((6,), 1 / 6, dtype=torch.float64)
        exact = 0.2**0.5  # the gram norm of a simplex of six, where HSIC₁ is 0
        assert math.isnan(self_hsic(exact * (1 + 1e-13), energy))
        assert self_hsic(exact * (1 + 1e-10), energy) == pytest.approx(2e-10 * 0.2, rel=1e-4)

    @pytest.mark.parametrize(("n", "d"), [(200, 64), (64, 200)])
    def test_one_that_has_hardly_changed_needs_no_spectrum(
        self, n: int, d: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Matrix products tell its distance, turned or not."""
        x = gaussian(n, d, seeded(49))
        y = x * (1 + 1e-6 * gaussian(n, d, seeded(50)))
        turned = y @ rotation(d, seeded(51))
        with pytest.MonkeyPatch.context() as without:
            without.setattr(similarity, "small_distance", lambda *_: None)
            expected = compare(x, turned).procrustes

        def refuse(*_: object) -> None:
            raise AssertionError("the spectrum was asked for")

        monkeypatch.setattr(similarity, "nuclear_norm", refuse)
        monkeypatch.setattr(similarity, "distance_by_residual", refuse)
        assert 0 < compare(x, y).procrustes == pytest.approx(expected, rel=1e-8)
        assert compare(x, turned).procrustes == pytest.approx(expected, rel=1e-8)
        assert compare(x, x).procrustes == 0.0

    def test_ill_conditioned_spectra_keep_an_absolute_error_of_the_root_of_rounding(self) -> None:
        """Directions below 1e-8 of the largest are rounding in XᵀY: 1e-16 each in d² is unseen."""
        generator = seeded(20)
        a = torch.logspace(0, -12, 60, dtype=torch.float64)
        u = centred_orthonormal(200, 60, generator)
        x = u * a @ rotation(64, generator)[:60]
        assert compare(x, x @ rotation(64, generator)).procrustes < 5e-8


class TestLibraries:
    @pytest.mark.parametrize(("n", "d"), [(60, 20), (20, 60)])
    def test_scipy_returns_the_nuclear_norm(self, n: int, d: int) -> None:
        from scipy.linalg import orthogonal_procrustes  # type: ignore[import-untyped]

        x, y = correlated_pair(n, d, seeded(21))
        centred = [m - m.mean(dim=0) for m in (x, y)]
        _, nuclear = orthogonal_procrustes(*[(m / m.norm()).numpy() for m in centred])
        assert compare(x, y).procrustes == pytest.approx(math.sqrt(2 - 2 * nuclear), abs=TIGHT)

    @pytest.mark.parametrize(("n", "d"), [(40, 16), (16, 40)])
    def test_rsatoolbox_cosine_cov_is_biased_cka(self, n: int, d: int) -> None:
        data, rdm = (importlib.import_module(f"rsatoolbox.{name}") for name in ("data", "rdm"))
        x, y = correlated_pair(n, d, seeded(22))
        first, second = (rdm.calc_rdm(data.Dataset(m.numpy()), method="euclidean") for m in (x, y))
        cka = float(rdm.compare(first, second, method="cosine_cov")[0, 0])
        assert compare(x, y).cka_distance == pytest.approx(1 - cka, abs=TIGHT)

    @pytest.mark.parametrize(("n", "d"), [(60, 20), (20, 60)])
    def test_chord_of_netreps_angular_distance_is_procrustes(self, n: int, d: int) -> None:
        x, y = correlated_pair(n, d, seeded(23))
        a, b = (m - m.mean(dim=0) for m in (x, y))
        u, _, vh = torch.linalg.svd(a.T @ b)
        angle = torch.arccos(((a @ u) * (b @ vh.T)).sum() / (a.norm() * b.norm()))
        assert compare(x, y).procrustes == pytest.approx(2 * math.sin(angle / 2), abs=TIGHT)


class TestProperties:
    @given(n=rows, d=features, seed=seeds)
    @properties
    def test_distances_ignore_rotation_scale_and_shift_of_either_side(
        self, n: int, d: int, seed: int
    ) -> None:
        generator = seeded(seed)
        x, y = correlated_pair(n, d, generator)
        plain = compare(x, y)
        offset = gaussian(1, d, generator)
        moved_x = 1e3 * x @ rotation(d, generator) - offset
        moved_y = 1e-3 * y @ rotation(d, generator) + 1e-3 * offset
        assert_same_distances(compare(moved_x, y), plain)
        assert_same_distances(compare(x, moved_y), plain)

    @given(n=rows, d=features, seed=seeds)
    @properties
    def test_every_metric_ignores_a_joint_order_of_rows(self, n: int, d: int, seed: int) -> None:
        generator = seeded(seed)
        x, y = correlated_pair(n, d, generator)
        order = torch.randperm(n, generator=generator)
        plain, permuted = compare(x, y), compare(x[order], y[order])
        assert_same_distances(permuted, plain)
        for name in ("mean_shift", "scale_log_ratio", "effective_rank"):
            assert getattr(permuted, name) == pytest.approx(getattr(plain, name), abs=TIGHT)

    @given(n=rows, d=features, seed=seeds)
    @properties
    def test_distances_are_symmetric_and_scale_is_antisymmetric(
        self, n: int, d: int, seed: int
    ) -> None:
        x, y = correlated_pair(n, d, seeded(seed))
        forward, backward = compare(x, y), compare(y, x)
        assert_same_distances(forward, backward)
        assert forward.scale_log_ratio == pytest.approx(-backward.scale_log_ratio, abs=TIGHT)

    @given(n=rows, d=features, seed=seeds, near=st.floats(min_value=1e-9, max_value=10))
    @properties
    def test_procrustes_obeys_the_triangle_inequality(
        self, n: int, d: int, seed: int, near: float
    ) -> None:
        generator = seeded(seed)
        x, y = correlated_pair(n, d, generator)
        z = y + near * gaussian(n, d, generator)
        detour = compare(x, y).procrustes + compare(y, z).procrustes
        assert compare(x, z).procrustes <= detour + LOOSE

    @given(n=rows, d=features, seed=seeds, near=st.floats(min_value=0, max_value=100))
    @properties
    def test_metrics_stay_in_their_ranges(self, n: int, d: int, seed: int, near: float) -> None:
        generator = seeded(seed)
        x = gaussian(n, d, generator)
        change = compare(x, x + near * gaussian(n, d, generator))
        assert 0 <= change.procrustes <= math.sqrt(2) + TIGHT
        assert 0 <= change.cka_distance <= 1
        assert 0 <= change.cka_distance_debiased <= 2 + LOOSE
        assert change.mean_shift >= 0
        assert math.isfinite(change.scale_log_ratio)
        assert 1 <= change.effective_rank <= min(n, d) * (1 + TIGHT)
        assert 1 <= change.rank_95 <= change.rank_99 <= min(n, d)
        assert 0 <= change.subspace_overlap <= 1
