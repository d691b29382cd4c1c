"""How far a layer's representation has moved: the metrics of one (reference, current) pair.

Shapes, here and below:
    n  probe rows (tokens), the same rows in the same order in both matrices
    d  features (hidden width)
    k  min(n, d)

Formulas are those of this project's definitions ("Representational change"). X is the reference and
Y the current hidden state of one layer; columns are centred (X_c, Y_c), and where X and Y stand
without an index they are also divided by their Frobenius norm.

Every metric but `mean_shift` is unchanged by a rotation of the features, so a matrix with n < d is
first rotated into the k coordinates of its own row space (Xᵀ = QR, coordinates Rᵀ). All linear
algebra then runs on n×k matrices, with a k×k core XᵀY. Inputs of any floating type are taken to
float64 on their own device: in float32 the cancellation in 2 − 2·nuc hides every d below 6e-3.

Procrustes and biased CKA depend on n/d. Compare widths only against `shuffled_null`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from workers.spectra.cka import (
    ROUNDING,
    cka_distance,
    debiased_cka_distance,
    hsic,
    self_hsic,
)
from workers.spectra.inputs import Incomparable, check_input
from workers.spectra.nuclear_norm import (
    nuclear_norm,
    nuclear_norm_of_rows,
    prefers_products,
    symmetric_product,
    upper_product,
)
from workers.spectra.polar_products import nuclear_norm_by_products
from workers.spectra.small_change import small_distance

CANCELLATION = 3e-5
"""Below this d, 2 − 2·nuc has lost too many digits (about 1e-14 absolute) and d is recomputed."""


FIDELITY = 0.95
"""Share of the energy that a state's leading directions hold."""

TIE = 1e-9
"""Shares of the energy that differ by less are the same."""


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one layer between a reference and a current representation.

    Attributes:
        procrustes: √(2 − 2·nuc) in [0, √2], nuc = ‖XᵀY‖_* (sum of singular values): the distance
            ‖X − YQ‖_F under the best rotation Q. With netrep's angular distance θ = arccos(nuc) it
            is 2·sin(θ/2). A metric: symmetric, and it obeys the triangle inequality.
        cka_distance: 1 − ‖XᵀY‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) in [0, 1], biased linear CKA.
        cka_distance_debiased: 1 − HSIC₁(X,Y) / √(HSIC₁(X,X)·HSIC₁(Y,Y)) in [0, 2], about 1 for
            unrelated matrices; HSIC₁ is the unbiased estimator of Song et al. (2012). NaN when a
            self-HSIC₁ is zero, as that of mutually orthogonal rows is.
        mean_shift: ‖mean(Y) − mean(X)‖ / (‖X_c‖_F / √n) ≥ 0, in units of the reference's
            root-mean-square row radius. Not symmetric.
        scale_log_ratio: ln(‖Y_c‖_F / ‖X_c‖_F), positive when the representation has grown.
        effective_rank: exp(entropy of the normalised squared singular values of Y_c), in [1, k].
            Of the current representation alone.
        rank_95, rank_99: the smallest number of principal directions of Y_c that hold 95 and 99 %
            of its energy Σσ², in [1, k]. Of the current representation alone.
        subspace_overlap: ‖UᵀY‖²_F in [0, 1], U the principal directions over the rows that hold
            95 % of the reference's energy: the share of Y's that lies in their span. Unchanged, it
            is the reference's own, 0.95 or a little more. Not symmetric.
    """

    procrustes: float
    cka_distance: float
    cka_distance_debiased: float
    mean_shift: float
    scale_log_ratio: float
    effective_rank: float
    rank_95: float
    rank_99: float
    subspace_overlap: float


METRICS: tuple[str, ...] = tuple(field.name for field in fields(Change))


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """What of a representation needs no other.

    Attributes:
        label: what errors call this representation, for example "block 3 at step 0".
        shape: (n, d) of the input.
        mean: (d,) column means of the input.
        norm: ‖X_c‖_F.
        row_energy: (n,) squared row norms, the diagonal of K = XXᵀ. They sum to 1.
        spectrum: (k,) squared singular values of X, ascending. They sum to 1.
        gram_norm: ‖XᵀX‖_F = ‖XXᵀ‖_F.
        self_hsic: HSIC₁(X, X) up to the factor 1/(n(n−3)), NaN if it is rounding noise.
    """

    label: str
    shape: tuple[int, int]
    mean: Tensor
    norm: float
    row_energy: Tensor
    spectrum: Tensor
    gram_norm: float
    self_hsic: float

    @property
    def effective_rank(self) -> float:
        """exp(−Σ pᵢ ln pᵢ), p the squared singular values divided by their sum."""
        shares = self.spectrum / self.spectrum.sum()
        return math.exp(float(torch.special.entr(shares).sum()))

    def rank_at(self, fidelity: float) -> int:
        """The smallest number of principal directions with this share of the energy, or with so
        much but for rounding."""
        held = self.spectrum.flip(0).cumsum(0) / self.spectrum.sum()
        return min(1 + int((held < fidelity - TIE).sum()), len(held))


@dataclass(frozen=True, slots=True, eq=False)
class Reference(Spread):
    """A representation prepared for comparison, built once by `of` and compared many times.

    Holds no copy of the input: it costs 2·n·k float64 values.

    Attributes:
        coordinates: (n, k) rows of the centred, normalised matrix, rotated to k features if n < d.
        principal: (n, k) the same rows along their principal axes, ascending as the spectrum; None
            of what is only compared with a reference.
    """

    coordinates: Tensor
    principal: Tensor | None

    @classmethod
    def of(cls, x: Tensor, *, label: str = "reference") -> Reference:
        """Centre, normalise and reduce `x` (n, d), to be compared with.

        The spectrum comes from the k×k Gram matrix. That is enough for what is asked of it: its
        absolute error of 1e-16 per value moves the entropy by about k·4e-15. It would not be
        enough for nuc, whose singular values enter by their square root.

        Raises:
            ValueError: not a matrix, or fewer than 4 rows.
            Incomparable: non-finite values, or no variation between rows.
        """
        unit = _Unit.of(x, label)
        coordinates = unit.coordinates()
        spectrum, axes = torch.linalg.eigh(upper_product(coordinates), UPLO="U")
        return cls(*unit.spread(_energy(coordinates), spectrum), coordinates, coordinates @ axes)

    def to(self, device: torch.device) -> Reference:
        """The same representation on another device."""
        return replace(
            self,
            mean=self.mean.to(device),
            row_energy=self.row_energy.to(device),
            spectrum=self.spectrum.to(device),
            coordinates=self.coordinates.to(device),
            principal=None if self.principal is None else self.principal.to(device),
        )

    def shuffled(self, generator: torch.Generator) -> Reference:
        """The same representation with its rows in a random order."""
        order = torch.randperm(self.shape[0], generator=generator, device=generator.device)
        order = order.to(self.coordinates.device)
        return replace(
            self,
            coordinates=self.coordinates[order],
            row_energy=self.row_energy[order],
            principal=None,
        )


def compare(reference: Reference | Tensor, current: Tensor, *, label: str = "current") -> Change:
    """All metrics of `current` (n, d) against `reference` (n, d).

    The work: two products over n rows and the eigenvalues of two symmetric k×k matrices; where
    n < d the products of rows, n×n over d features, and two more of n×n. On an accelerator the
    eigenvalues of one, and ninety products of k×k matrices.

    Args:
        reference: the matrix, or better `Reference.of(matrix)` when it is compared repeatedly.
        current: the same rows after training, on the reference's device.
        label: what errors call `current`, for example "block 3 at step 100".

    Raises:
        ValueError: shapes or devices differ, or an input is refused by `Reference.of`.
    """
    x = reference if isinstance(reference, Reference) else Reference.of(reference)
    _check_pair(x, current, label)
    unit = _Unit.of(current, label)
    if current.shape[0] < current.shape[1]:
        return _change_of_rows(x, unit)
    return _change(x, unit.reference())


def shuffled_null(reference: Reference, generator: torch.Generator) -> Change:
    """The row-shuffled null: a reference against its own rows in a random order.

    Shuffling destroys the correspondence of rows and keeps the spectrum, so procrustes and the CKA
    distances become what (n, d) and the spectrum alone produce. The spectrum of what a layer
    becomes moves them little (`tests/benchmarks/README.md`), so one null serves all steps of a run.
    """
    return _change(reference, reference.shuffled(generator))


def _change(x: Reference, y: Reference) -> Change:
    assert x.principal is not None
    graded = x.principal.T @ y.coordinates
    lengths = graded.square().sum(dim=1)
    return _metrics(x, y, procrustes_distance(x, y, graded), lengths)


def _change_of_rows(x: Reference, current: _Unit) -> Change:
    """The change of what has fewer rows than features, by the products of its rows where that is
    accurate: a tiny distance, and spectra that fall far, are found by its coordinates."""
    assert x.principal is not None
    energy = _energy(current.rows)
    if _may_be_tiny(x, energy):
        return _change(x, current.reference())
    products = symmetric_product(current.rows.T)
    spectrum = torch.linalg.eigvalsh(products, UPLO="U")
    spread = current.spread(energy, spectrum)
    # What rows that are centred have no part in is rounding.
    principal = x.principal[:, 1:]
    if prefers_products(principal):
        graded = principal.T @ current.rows
        lengths = graded.square().sum(dim=1)
        found = nuclear_norm_by_products(graded)
    else:
        squares = upper_product(principal, products @ principal)
        lengths = squares.diagonal()
        found = nuclear_norm_of_rows(principal, products, squares, current.shape[1])
    distance = math.nan if found is None else math.sqrt(max(0.0, 2.0 - 2.0 * found))
    if distance >= CANCELLATION:
        return _metrics(x, Spread(*spread), distance, lengths)
    return _change(x, Reference(*spread, current.coordinates(), None))


def _metrics(x: Reference, y: Spread, procrustes: float, lengths: Tensor) -> Change:
    """All metrics, given the distance and the squared lengths (k,) of the rows of PᵀY, P the
    reference along its principal axes."""
    cross = float(lengths.sum())
    shift = float(torch.linalg.vector_norm(y.mean - x.mean))
    return Change(
        procrustes=procrustes,
        cka_distance=cka_distance(cross, x.gram_norm, y.gram_norm),
        cka_distance_debiased=debiased_cka_distance(
            hsic(cross, x.row_energy, y.row_energy), x.self_hsic, y.self_hsic
        ),
        mean_shift=shift / x.norm * math.sqrt(x.shape[0]),
        scale_log_ratio=math.log(y.norm / x.norm),
        effective_rank=y.effective_rank,
        rank_95=float(y.rank_at(FIDELITY)),
        rank_99=float(y.rank_at(0.99)),
        subspace_overlap=subspace_overlap(x, lengths[-x.rank_at(FIDELITY) :]),
    )


def subspace_overlap(x: Reference, lengths: Tensor) -> float:
    """‖UᵀY‖²_F in [0, 1] from ``lengths`` (r,), the squared lengths of the product of a reference
    along its r leading axes with what is compared with it."""
    shares = lengths / x.spectrum[-len(lengths) :]
    return min(1.0, float(shares.sum()))


def procrustes_distance(x: Reference, y: Reference, graded: Tensor) -> float:
    """√(2 − 2·nuc) of a reference and what is compared with it; ``graded`` (k, k) is the product
    of the reference along its principal axes with the other."""
    straight = math.inf
    if _may_be_tiny(x, y.row_energy):
        straight = float(torch.linalg.matrix_norm(x.coordinates - y.coordinates))
        if straight == 0.0:
            return 0.0
        assert x.principal is not None
        near = small_distance(x.principal, x.spectrum, y.coordinates, graded)
        if near is not None:
            return min(near, straight)
    if straight >= CANCELLATION:
        distance = distance_by_spectrum(graded)
        if distance >= CANCELLATION:
            return distance
    return distance_by_residual(x.coordinates, y.coordinates)


def _may_be_tiny(x: Spread, energy: Tensor) -> bool:
    """Whether ‖a − b‖_F may be below ``CANCELLATION``, from the row energies (n,) of b.

    By the triangle inequality Σ|‖aᵢ‖² − ‖bᵢ‖²| ≤ 2·‖a − b‖_F, which nearly always tells.
    """
    return float((x.row_energy - energy).abs().sum()) <= 2.0 * CANCELLATION


def distance_by_spectrum(graded: Tensor) -> float:
    """√(2 − 2·nuc) from PᵀY (k, k) as `nuclear_norm` takes it; of no use below
    ``CANCELLATION``."""
    return math.sqrt(max(0.0, 2.0 - 2.0 * nuclear_norm(graded)))


def distance_by_residual(a: Tensor, b: Tensor) -> float:
    """√(2 − 2·nuc) of two units (n, k) without its cancellation.

    With aᵀb = U S Vᵀ the same distance is ‖aU − bV‖_F, which subtracts before it squares. Any
    other alignment bounds d from above, so the smaller of that and ‖a − b‖_F is taken: where both
    spectra fall below 1e-8 rounding leaves U and V free of each other (an absolute error of 1e-8),
    and the second bound keeps d of an unchanged layer at exactly 0.
    """
    u, _, vh = torch.linalg.svd(a.T @ b)
    aligned = torch.linalg.matrix_norm(a @ u - b @ vh.T)
    return min(float(aligned), float(torch.linalg.matrix_norm(a - b)))


def current_of(x: Tensor, *, label: str = "current") -> Reference:
    """As ``Reference.of``, of what is only compared with a reference: it has no principal axes, and
    costs a third."""
    return _Unit.of(x, label).reference()


@dataclass(frozen=True, slots=True, eq=False)
class _Unit:
    """An input (n, d) with its columns centred and divided by its norm."""

    label: str
    shape: tuple[int, int]
    mean: Tensor
    norm: float
    rows: Tensor

    @classmethod
    def of(cls, x: Tensor, label: str) -> _Unit:
        check_input(x, label)
        n, d = x.shape
        wide = x.detach().to(torch.float64)
        mean = wide.mean(dim=0)
        centred = wide - mean
        norm = float(torch.linalg.matrix_norm(centred))
        # ‖x‖² = ‖x_c‖² + n·‖mean‖²
        whole = math.hypot(norm, math.sqrt(n) * float(torch.linalg.vector_norm(mean)))
        if norm <= ROUNDING * whole:
            raise Incomparable(
                f"{label}: all {n} rows are equal, so there is no variation to compare; check that "
                "the probe rows are distinct tokens and that the hook reads the block's output"
            )
        return cls(label, (n, d), mean, norm, centred.div_(norm))

    def coordinates(self) -> Tensor:
        """(n, k): the rows, rotated into the features of their own row space if n < d."""
        n, d = self.shape
        if n >= d:
            return self.rows
        # Two thirds of the time of `torch.linalg.qr`, which copies what it is given.
        reduced: Tensor = torch.geqrf(self.rows.T)[0]
        return reduced[:n].triu().T

    def reference(self) -> Reference:
        """What can be compared with a reference."""
        coordinates = self.coordinates()
        spectrum = torch.linalg.eigvalsh(upper_product(coordinates), UPLO="U")
        return Reference(*self.spread(_energy(coordinates), spectrum), coordinates, None)

    def spread(
        self, row_energy: Tensor, spectrum: Tensor
    ) -> tuple[str, tuple[int, int], Tensor, float, Tensor, Tensor, float, float]:
        """The attributes of ``Spread``, in their order."""
        spectrum = spectrum.clamp_min(0)
        gram_norm = float(torch.linalg.vector_norm(spectrum))
        own = self_hsic(gram_norm, row_energy)
        return self.label, self.shape, self.mean, self.norm, row_energy, spectrum, gram_norm, own


def _energy(coordinates: Tensor) -> Tensor:
    energy: Tensor = torch.linalg.vector_norm(coordinates, dim=1).square_()
    return energy


def _check_pair(x: Reference, current: Tensor, label: str) -> None:
    if x.shape != tuple(current.shape):
        raise ValueError(
            f"{label}: shape {tuple(current.shape)} differs from {x.shape} of {x.label}; compare "
            "the same layer on the same probe rows"
        )
    if x.coordinates.device != current.device:
        raise ValueError(
            f"{label}: on {current.device} but {x.label} is on {x.coordinates.device}; move one "
            "of them with .to(device)"
        )
