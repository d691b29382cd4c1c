"""A report as a file, to be opened in a browser: of any sweep, and of a small one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from planted_measurements import record_distance
from planted_store import evaluated, run_spec, save_sweep, write_run

from sweeps.findings.claims import read_claims
from sweeps.reading.tables import open_store
from sweeps.report.data import gather
from sweeps.report.page import render
from sweeps.store.store import Store

CLAIMS = Path(__file__).parents[2] / "sweeps" / "library" / "paper.claims.yaml"


def write_report(store: Store, name: str) -> Path:
    """Write the report of a sweep into its store, judged by the claims of the study."""
    tables = open_store(store.root, sweep=name)
    data = gather(tables, name, "A study.", "", read_claims(CLAIMS))
    path = store.root / "report.html"
    path.write_text(render(data, datetime.now(UTC)), encoding="utf-8")
    return path


def plant_report(root: Path) -> Path:
    """Write a study of two models, two objectives and two controls; return its report."""
    store = Store.at(str(root))
    runs = []
    for model, family in (("tiny-gpt2", "gpt2"), ("<b>tiny</b> opt", "opt")):
        for objective in ("clm", "contrastive"):
            for control in ("standard", "equal_step"):
                for seed in range(2):
                    run = run_spec(model, objective, control, seed)
                    slope = 0.3 + 0.02 * seed
                    facts = {"layers": 6, "family": family}
                    run = evaluated(run)
                    write_run(store, run, lambda x, s=slope: 0.1 + s * x, facts=facts)
                    record_distance(store, run, [0.5 if objective == "clm" else 0.1])
                    runs.append(run)
    save_sweep(store, "toy", runs)
    return write_report(store, "toy")
