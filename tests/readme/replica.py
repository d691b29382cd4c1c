"""What the miniature of the study found, read from its committed summary, a row a run.

``python -m tests.readme.replica`` prints what it amounts to, with ``--table`` mean slopes by model,
objective and control; ``make replica`` writes the summary anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

SUMMARY = Path(__file__).resolve().parents[2] / "sweeps" / "library" / "replica-summary.csv"
OBJECTIVES = ("pretraining", "classification", "contrastive")
CONTROLS = ("standard", "equal_step")


def table(runs: pl.DataFrame) -> str:
    """Return mean slopes by model, objective and control, and how far pretraining came."""
    lines = [
        "                    below         standard                 equal_step",
        "stand-in of        unigram   pretr.  class.  contr.    pretr.  class.  contr.",
    ]
    for model in runs["model"].unique(maintain_order=True):
        of_model = runs.filter(pl.col("model") == model)
        facts = of_model.row(0, named=True)
        below = facts["unigram_entropy"] - facts["pretraining_loss"]
        cells = [_cell(of_model, control, name) for control in CONTROLS for name in OBJECTIVES]
        slopes = "".join(f"{cell:>8}" for cell in cells[:3]) + "  "
        slopes += "".join(f"{cell:>8}" for cell in cells[3:])
        lines.append(f"{model:<19}{below:>6.2f} {slopes}")
    return "\n".join(lines) + "\n"


def _cell(runs: pl.DataFrame, control: str, objective: str) -> str:
    pretraining = pl.col("objective").is_in(["clm", "mlm"])
    chosen = pretraining if objective == "pretraining" else pl.col("objective") == objective
    slopes = runs.filter(chosen, control=control)["slope"]
    return "·" if slopes.is_empty() else f"{slopes.mean():.3f}"


def findings(runs: pl.DataFrame) -> str:
    """Return what the slopes amount to, a line each."""
    standard = runs.filter(control="standard")
    above = int((standard["slope"] > 0).sum())
    condition = ["model", "objective"]
    pairs = runs.filter(control="equal_step").join(
        standard, on=[*condition, "seed"], suffix="_standard", validate="1:1"
    )
    kept = pairs.group_by(condition).agg(
        (pl.col("slope").mean() / pl.col("slope_standard").mean()).alias("kept")
    )["kept"]
    below = (runs["unigram_entropy"] - runs["pretraining_loss"]).drop_nulls()
    return (
        f"{above} of {standard.height} standard slopes are above 0, the smallest"
        f" {standard['slope'].min():.3f}\n"
        f"under equal_step {len(kept)} conditions keep {100 * kept.min():.0f} % to"
        f" {100 * kept.max():.0f} % of their mean slope\n"
        f"pretraining came {below.min():.2f} to {below.max():.2f} nats a token below the entropy of"
        " single tokens\n"
    )


if __name__ == "__main__":
    show = table if "--table" in sys.argv[1:] else findings
    print(show(pl.read_csv(SUMMARY)), end="")
