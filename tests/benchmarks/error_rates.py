"""How often findings are wrong, by simulation: more of what the test suite holds to its bounds.

``python -m tests.benchmarks.error_rates [REPEATS]``. Intervals of seeds with and without the error
of the probe's rows, verdicts at their boundaries, and the claims of the study where its truth is
known. The named alternative is what was there before: the percentile bootstrap over seeds.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from sweeps.findings.claims import CONTRADICTED, SUPPORTED, evaluate, read_claims
from sweeps.findings.verdicts import DELTA, Circumstances, Pair, judge
from sweeps.statistics.intervals import mean_intervals, ratio_of
from tests.samples.simulated_study import FLAT, PUBLISHED, Truth, simulate

CLAIMS = Path(__file__).resolve().parents[2] / "sweeps" / "library" / "paper.claims.yaml"
KNOWN = Circumstances(pairs=5, dose=2.0)


def main() -> int:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    began = time.perf_counter()
    print(f"{'coverage of a 95 % interval':<38}{'n = 3':>8}{'5':>8}{'10':>8}")
    for name, row in (
        ("t over seeds", seeds_only),
        ("with rows, half of the error", with_rows),
        ("share kept, Fieller", ratios),
        ("bootstrap over seeds (alternative)", bootstrap),
    ):
        print(f"{name:<38}" + "".join(f"{row(n, 40 * repeats):>8.3f}" for n in (3, 5, 10)))
    print(f"\n{'verdicts, cv of seeds 0.1':<38}{'n = 3':>8}{'5':>8}{'10':>8}")
    for verdict, kept in (("persists", DELTA), ("collapses", DELTA), ("reverses", -DELTA)):
        shares = [wrong(verdict, kept, n, 10 * repeats) for n in (3, 5, 10)]
        print(f"{f'{verdict} where {kept:g} is kept':<38}" + "".join(f"{x:>8.3f}" for x in shares))
    claims = [claim for claim in read_claims(CLAIMS).claims if claim.id != "C6"]
    print(f"\n{'claims, supported / contradicted':<38}" + "".join(f"{c.id:>14}" for c in claims))
    for name, truth, cv, seeds in STUDIES:
        found = studies(claims, truth, cv, seeds, repeats)
        cells = (f"{found[c.id, SUPPORTED]:.2f} / {found[c.id, CONTRADICTED]:.2f}" for c in claims)
        print(f"{f'{name}, cv {cv:g}, {seeds} seeds':<38}" + "".join(f"{x:>14}" for x in cells))
    print(f"\n{time.perf_counter() - began:.0f} s")
    return 0


STUDIES: tuple[tuple[str, Truth, float, int], ...] = (
    ("no slope", FLAT, 0.1, 3),
    ("the paper's pattern", PUBLISHED, 0.1, 3),
    ("the paper's pattern", PUBLISHED, 0.1, 5),
    ("the paper's pattern", PUBLISHED, 0.3, 5),
    ("half kept everywhere", lambda *_: 0.5, 0.1, 5),
)


def seeds_only(n: int, times: int) -> float:
    return _covered(*mean_intervals(_noise(n, n, times)))


def with_rows(n: int, times: int) -> float:
    rows = np.sqrt(16 / n) * _noise(n + 50, 16, times)
    values = _noise(n, n, times) + rows.mean(axis=0)
    deleted = values.mean(axis=0) + (rows.mean(axis=0) - rows) / 15
    return _covered(*mean_intervals(values, deleted))


def ratios(n: int, times: int) -> float:
    times //= 10
    found = [ratio_of(*pair) for pair in _pairs(0.5, 0.15, n, times)]
    return float(np.mean([one.unbounded or one.low <= 0.5 <= one.high for one in found]))


def bootstrap(n: int, times: int) -> float:
    times //= 20
    values = _noise(n, n, times)
    drawn = np.random.default_rng(n).integers(0, n, (1_000, n))
    means = values[drawn].mean(axis=1)
    return _covered(*np.quantile(means, [0.025, 0.975], axis=0))


def wrong(verdict: str, kept: float, n: int, times: int) -> float:
    """Return how often a verdict is found where exactly its bound is true."""
    found = Counter(judge(Pair(*pair), KNOWN).verdict for pair in _pairs(kept, 0.1, n, times))
    return found[verdict] / times


def studies(
    claims, truth: Truth, cv: float, seeds: int, times: int
) -> dict[tuple[str, str], float]:
    found: Counter[tuple[str, str]] = Counter()
    for k in range(times):
        profiles = simulate(truth, cv=cv, seeds=seeds, seed=k)
        for result in evaluate(claims, {"procrustes": profiles}):
            found[result.claim.id, result.verdict] += 1
    return Counter({key: count / times for key, count in found.items()})


def _noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _pairs(kept: float, cv: float, n: int, times: int) -> list[tuple[np.ndarray, np.ndarray]]:
    shared, own, other = _noise(n, 3, times, n) * cv / np.sqrt(2)
    return list(zip(kept + shared + own, 1 + shared + other, strict=True))


def _covered(low: np.ndarray, high: np.ndarray) -> float:
    return float(np.mean((low <= 0) & (high >= 0)))


if __name__ == "__main__":
    sys.exit(main())
