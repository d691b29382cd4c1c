"""What is planted with faults: what decides results and recovery, each with its mirror tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Subject:
    """A part of the product: its files, and the tests that must notice a fault in them."""

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]

    def test_files(self) -> list[str]:
        """Return the files of the subject's tests."""
        return [
            str(path.relative_to(ROOT))
            for place in self.tests
            for path in (sorted((ROOT / place).rglob("test_*.py")) or [ROOT / place])
        ]

    def nearest(self) -> list[str]:
        """Return those of them that are called after one of its files."""
        names = tuple(f"test_{Path(file).stem}" for file in self.files)
        return [test for test in self.test_files() if Path(test).stem.startswith(names)]


def _of(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}.py" for name in names)


SUBJECTS = (
    Subject(
        "controls",
        _of(
            "workers/controls",
            *("equal_step", "layer_clip", "layer_control", "layer_groups", "layer_rates"),
        ),
        ("tests/workers/controls", "tests/workers/updates"),
    ),
    Subject(
        "engines",
        (
            *_of("workers/engines", "plain", "layer_optimizer", "layer_step"),
            *_of("workers/passes", "torch_passes"),
            *_of("workers/updates", "adamw", "slabs", "decay"),
        ),
        (
            "tests/workers/engines/test_plain.py",
            "tests/workers/engines/test_layer_optimizer.py",
            "tests/workers/passes/test_torch_passes.py",
            "tests/workers/updates",
            "tests/workers/controls",
        ),
    ),
    Subject(
        "probes",
        _of(
            "workers/probes",
            *("capture", "displacement", "measure", "propagation", "rows", "similarity"),
        ),
        ("tests/workers/probes",),
    ),
    Subject(
        "statistics",
        _of(
            "sweeps/statistics",
            *("conditions", "intervals", "profiles", "quantities", "row_error", "run_summary"),
        ),
        ("tests/sweeps/statistics", "tests/sweeps/findings"),
    ),
    Subject(
        "identity",
        _of("sweeps/spec", "data_source", "measurement", "model_source", "objective", "run"),
        ("tests/sweeps/spec", "tests/sweeps/declaration/test_settings.py"),
    ),
    Subject(
        "expansion",
        _of("sweeps/declaration", "expand", "grid", "matched_seeds", "resolving", "sources"),
        ("tests/sweeps/declaration", "tests/sweeps/sources"),
    ),
    Subject(
        "lease",
        _of("sweeps/leases", "capability", "lease", "made_once"),
        ("tests/sweeps/leases",),
    ),
    Subject(
        "writer",
        _of("sweeps/attempts", "attempt", "compaction", "left_open", "manifest", "writer"),
        ("tests/sweeps/attempts", "tests/sweeps/store"),
    ),
    Subject(
        "recovery",
        _of("orchestrator/ledger", "pace", "recovery", "run_filter", "sweep_account"),
        ("tests/orchestrator/ledger", "tests/orchestrator/commands/starting"),
    ),
    Subject(
        "policy",
        _of("orchestrator/policy", "books", "failures", "next_start", "occupancy", "priorities"),
        ("tests/orchestrator/policy",),
    ),
    Subject(
        "searcher",
        _of("orchestrator/tuning", "admission", "cluster_view", "request", "requests"),
        ("tests/orchestrator/tuning",),
    ),
    Subject(
        "sizing",
        _of(
            "orchestrator/sizing",
            *("activations", "choice", "cost", "gpu_pool", "memory", "placement", "zero"),
        ),
        ("tests/orchestrator/sizing",),
    ),
)
