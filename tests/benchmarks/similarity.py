"""What one layer's comparison costs, against the ways it is usually computed.

    python -m tests.benchmarks.similarity [--threads N] [--small]

Every pair is X = U·diag(a)·Q₁ᵀ, Y = U·B·Q₂ᵀ with orthonormal U, Q₁, Q₂ and diag(a)·B = W·diag(s),
W a rotation. Each candidate's relative error is measured against the distance of the pair as it
lies in memory, in extended precision (`state_pairs.exact_distance`): the one that it was made to
have is off by 2e-12, the rounding of its making, which 2 − 2·nuc enlarges. Where next to nothing
has changed W is the identity, B = diag(b), and the distance is ‖a/‖a‖ − b/‖b‖‖, where nothing
cancels.
The candidates of a shape take turns within each repeat, in random order, so a busy machine slows
all of them alike. Ours computes all six metrics; the others the Procrustes distance alone.

The limit of a shape is the floating-point work of ours with the reference prebuilt (Golub and Van
Loan's counts) at the rate of a float64 matrix product measured in the same run. Nothing beats it,
and no blocked factorisation reaches it: half of the work of a reduction to bidiagonal or
tridiagonal form is matrix times vector, whose measured rate gives the second, practical limit.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from scipy.linalg import orthogonal_procrustes  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from tests.benchmarks.recorded.figures import Figure
from tests.samples.state_pairs import exact_distance
from workers.probes.row_groups import GROUPS, RowGroups, changes_without
from workers.probes.similarity import Reference, compare, current_of

BASELINE = "netrep-style SVD (torch)"
OURS = "ours, reference prebuilt"
JACKKNIFE = f"ours, without each of {GROUPS} groups"

# What to time, and the true distance of its pair.
Candidate = tuple[Callable[[], float], float]


@dataclass(frozen=True)
class Shape:
    """Probe rows n, hidden width d, and how often each candidate is timed."""

    n: int
    d: int
    repeats: int


SHAPES = (Shape(512, 768, 15), Shape(2048, 768, 9), Shape(1024, 4096, 3))
SMALL = (Shape(64, 48, 2), Shape(32, 48, 2))


@dataclass(frozen=True)
class Pair:
    """Two (n, d) float64 matrices and their true Procrustes distance, NaN where it takes
    `exact_distance` to know it."""

    x: Tensor
    y: Tensor
    distance: float


def netrep_style(x: Tensor, y: Tensor) -> float:
    """The distance of netrep's angle: full SVD of the d×d cross-covariance, θ = arccos(nuc)."""
    x, y = _standardised(x), _standardised(y)
    u, _, vh = torch.linalg.svd(x.T @ y)
    overlap = float(((x @ u) * (y @ vh.T)).sum())
    return 2 * math.sin(math.acos(min(1.0, overlap)) / 2)


def scipy_style(x: Tensor, y: Tensor) -> float:
    """√(2 − 2·nuc) with nuc as `scipy.linalg.orthogonal_procrustes` returns it."""
    _, nuclear = orthogonal_procrustes(_standardised(x).numpy(), _standardised(y).numpy())
    return math.sqrt(max(0.0, 2 - 2 * float(nuclear)))


def make_pair(
    n: int, d: int, jitter: float, generator: torch.Generator, turned: bool = True
) -> Pair:
    """A pair whose spectra fall as 1/i and differ by a relative `jitter`, rotated and shifted.

    `turned` says whether their axes differ, too, each the more from others the nearer these are.
    """
    k = min(n - 1, d)
    index = torch.arange(1, k + 1, dtype=torch.float64)
    a = 1 / index
    b = a * (1 + jitter * torch.randn(k, dtype=torch.float64, generator=generator))
    rows = torch.randn(n, k, dtype=torch.float64, generator=generator)
    u = torch.linalg.qr(rows - rows.mean(dim=0)).Q
    left, right = (
        torch.linalg.qr(torch.randn(d, k, dtype=torch.float64, generator=generator)).Q
        for _ in range(2)
    )
    if turned:
        drawn = torch.randn(k, k, dtype=torch.float64, generator=generator).triu(1)
        drawn *= (
            jitter
            * torch.minimum(index[:, None], index)
            / torch.maximum(index[:, None], index).square()
        )
        turn, signs = torch.linalg.qr(torch.eye(k, dtype=torch.float64) + drawn - drawn.T)
        turn = turn * signs.diagonal().sign()
        y = turn * (a * b) / a[:, None]
    else:
        y = torch.diag(b)
    before, after = u * a @ left.T, u @ y @ right.T + 1.0
    still = float(torch.linalg.vector_norm(a / a.norm() - b / b.norm()))
    return Pair(before, after, math.nan if turned else still)


def work(n: int, d: int) -> tuple[float, float]:
    """Operations of one comparison: (matrix times matrix, matrix times vector)."""
    k = min(n, d)
    reduction = 2 * n * n * (d - n / 3) if n < d else 0.0
    core_and_gram = 2 * (2 * n * k * k)
    singular_values, eigenvalues = 8 / 3 * k**3, 4 / 3 * k**3
    halves = (singular_values + eigenvalues) / 2
    return reduction + core_and_gram + halves, halves


def rates(k: int) -> tuple[float, float]:
    """Operations per second of a k×k float64 matrix times matrix and times vector, best of 20."""
    _settle()
    a, v = torch.randn(k, k, dtype=torch.float64), torch.randn(k, dtype=torch.float64)
    by_matrix = min(_timed(lambda: a @ a)[0] for _ in range(20))
    by_vector = min(_timed(lambda: a @ v)[0] for _ in range(20))
    return 2 * k**3 / by_matrix, 2 * k**2 / by_vector


def candidates_of(
    shape: Shape, generator: torch.Generator, exact: bool = False
) -> dict[str, Candidate]:
    """Return what is timed on one shape, with the true distance of its pair; that of a pair that
    has moved takes up to minutes, and is NaN where it is not asked for."""
    moved = make_pair(shape.n, shape.d, 0.1, generator)
    if exact:
        moved = replace(moved, distance=exact_distance(moved.x, moved.y))
    still = make_pair(shape.n, shape.d, 1e-6, generator, turned=False)
    reference, still_reference = Reference.of(moved.x), Reference.of(still.x)
    return {
        OURS: (lambda: compare(reference, moved.y).procrustes, moved.distance),
        "ours, reference included": (
            lambda: compare(moved.x, moved.y).procrustes,
            moved.distance,
        ),
        "ours, prebuilt, unchanged": (lambda: compare(reference, moved.x).procrustes, 0.0),
        f"ours, prebuilt, d = {still.distance:.0e}": (
            lambda: compare(still_reference, still.y).procrustes,
            still.distance,
        ),
        BASELINE: (lambda: netrep_style(moved.x, moved.y), moved.distance),
        "scipy orthogonal_procrustes": (lambda: scipy_style(moved.x, moved.y), moved.distance),
        JACKKNIFE: (
            lambda: (
                changes_without(
                    reference,
                    current_of(moved.y),
                    RowGroups(torch.arange(shape.n) * GROUPS // shape.n, GROUPS),
                )[0].procrustes
            ),
            math.nan,
        ),
    }


def taken_in_turns(
    candidates: dict[str, Candidate], repeats: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the seconds of each candidate, and its relative error (absolute where it is 0)."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    errors: dict[str, float] = {}
    shuffler = random.Random(0)
    for _ in range(repeats):
        for name in shuffler.sample(list(candidates), k=len(candidates)):
            candidate, truth = candidates[name]
            _settle()
            elapsed, value = _timed(candidate)
            seconds[name].append(elapsed)
            errors[name] = abs(value - truth) / (truth or 1.0)
    return seconds, errors


def measure(shape: Shape, generator: torch.Generator) -> None:
    """Time the candidates of one shape in turns and print its table."""
    candidates = candidates_of(shape, generator, exact=True)
    seconds, errors = taken_in_turns(candidates, shape.repeats)
    (by_matrix, by_vector) = work(shape.n, shape.d)
    matrix_rate, vector_rate = rates(min(shape.n, shape.d))
    limit = (by_matrix + by_vector) / matrix_rate
    practical = by_matrix / matrix_rate + by_vector / vector_rate
    print(f"\nn={shape.n} d={shape.d}  {shape.repeats} interleaved repeats")
    print(f"{'':30}{'median ms':>11}{'speed-up':>11}{'x limit':>10}{'rel. error':>12}")
    for name in candidates:
        median = statistics.median(seconds[name])
        ratios = [b / c for b, c in zip(seconds[BASELINE], seconds[name], strict=True)]
        print(
            f"{name:30}{1e3 * median:11.1f}{statistics.median(ratios):10.2f}x"
            f"{median / limit:10.1f}{errors[name]:12.1e}"
        )
    print(
        f"limit {1e3 * limit:.0f} ms: {(by_matrix + by_vector) / 1e9:.1f} GFLOP at "
        f"{matrix_rate / 1e9:.0f} GFLOP/s; practical {1e3 * practical:.0f} ms: of these "
        f"{by_vector / 1e9:.1f} at {vector_rate / 1e9:.0f}"
    )


def figures(threads: int, shapes: Sequence[Shape]) -> Iterator[Figure]:
    """Yield what all six metrics of a layer cost, the reference prebuilt, a shape each."""
    torch.set_num_threads(threads)
    with threadpool_limits(limits=threads):
        for shape in shapes:
            every = candidates_of(shape, torch.Generator().manual_seed(0))
            seconds, _ = taken_in_turns({n: every[n] for n in (OURS, BASELINE)}, shape.repeats)
            ratios = [a / b for a, b in zip(seconds[OURS], seconds[BASELINE], strict=True)]
            rate, _ = rates(min(shape.n, shape.d))
            yield Figure(
                what="six metrics of a layer",
                size=f"{shape.n} x {shape.d}",
                threads=threads,
                seconds=statistics.median(seconds[OURS]),
                peer="Procrustes alone, netrep's way",
                peer_seconds=statistics.median(seconds[BASELINE]),
                ratio=statistics.median(ratios),
                limit_seconds=sum(work(shape.n, shape.d)) / rate,
                limit="operations of Golub and Van Loan's counts at the rate of a product",
            )


def _settle() -> None:
    """Let the other library's idle threads stop spinning, then wake torch's."""
    time.sleep(0.3)
    a = torch.ones(256, 256, dtype=torch.float64)
    for _ in range(4):
        a @ a


def _timed(function: Callable[[], float | Tensor]) -> tuple[float, float]:
    # Of one thread its own time, which others on the machine do not lengthen by what they take.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    value = function()
    elapsed = clock() - start
    return elapsed, value if isinstance(value, float) else math.nan


def _standardised(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=0)
    return centred.div(torch.linalg.matrix_norm(centred))


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of one layer's comparison.")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    parser.add_argument("--threads", type=int, default=min(8, available))
    parser.add_argument("--small", action="store_true", help="leave out n=1024, d=4096 (minutes)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"layer comparison, float64, CPU, {options.threads} threads, torch {torch.__version__}\n"
        f"speed-up: median over repeats of time({BASELINE}) / time(row)"
    )
    with threadpool_limits(limits=options.threads):
        for shape in SHAPES[:2] if options.small else SHAPES:
            measure(shape, torch.Generator().manual_seed(0))


if __name__ == "__main__":
    main()
