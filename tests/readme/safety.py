"""What the miniature of the safety study found, read from what `make safety` committed of it.

``python -m tests.readme.safety`` prints it: refusal rates by selection and arm from a row a run,
and the outcomes from the rows that ``depthsweep compare`` exports.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

LIBRARY = Path(__file__).resolve().parents[2] / "sweeps" / "library"
SUMMARY = LIBRARY / "safety-mini-summary.csv"
# The arms with another control than standard; the frozen one is another model.
COMPARED = {
    control: LIBRARY / f"safety-mini-{control}.csv" for control in ("equal_step", "layer_rates")
}
FROZEN = "frozen"


def rates(runs: pl.DataFrame) -> str:
    """Return a line per selection: the mean refusal rate of each arm, and the least and the most of
    its seeds."""
    arm = pl.when(pl.col("model").str.ends_with(FROZEN)).then(pl.lit(FROZEN)).otherwise("control")
    found = runs.group_by("selection", arm.alias("arm"), maintain_order=True).agg(
        rate=pl.col("evaluation_refusal_rate").mean(),
        least=pl.col("evaluation_refusal_rate").min(),
        most=pl.col("evaluation_refusal_rate").max(),
        n=pl.len(),
    )
    arms = ["standard", *COMPARED, FROZEN]
    of_cell = {(row["selection"], row["arm"]): row for row in found.to_dicts()}
    lines = [f"{'refusal rate':<15}" + "".join(f"{name:>17}" for name in arms)]
    for selection in runs["selection"].unique(maintain_order=True):
        cells = [of_cell[selection, name] for name in arms]
        said = [f"{c['rate']:.2f} ({c['least']:.2f}–{c['most']:.2f})" for c in cells]
        lines.append(f"{selection:<15}" + "".join(f"{one:>17}" for one in said))
    counts = sorted(set(found["n"]))
    other = runs["evaluation_over_refusal_rate"].max()
    broken = runs["evaluation_broken_rate"].max()
    lines += [
        f"{runs.height} runs, {', '.join(map(str, counts))} seeds each: mean (least–most)",
        f"allowed twins refused: at most {other:.2f} in any run; broken answers: {broken:.2f}",
    ]
    return "\n".join(lines) + "\n"


def outcomes(control: str, compared: pl.DataFrame) -> str:
    """Return a line per selection: both changes at equal loss with intervals, and the outcome."""
    lines = [f"{control:<15}{'fall':>5}{'its change':>23}{'slope’s change':>23}  outcome"]
    for row in compared.to_dicts():
        changes = [
            "{:+.2f} [{:+.2f}, {:+.2f}]".format(
                *(row[f"alignment_{name}_change{end}"] for end in ("", "_low", "_high"))
            )
            for name in ("degradation", "slope")
        ]
        lines.append(
            f"{row['selection']:<15}{row['alignment_degradation']:>5.2f}"
            + "".join(f"{one:>23}" for one in changes)
            + f"  {row['alignment_outcome']}"
        )
    return "\n".join(lines) + "\n"


def read() -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
    """Return the committed summary, and the comparison of each control."""
    compared = {control: pl.read_csv(path) for control, path in COMPARED.items()}
    return pl.read_csv(SUMMARY, infer_schema_length=None), compared


if __name__ == "__main__":
    runs, compared = read()
    parts = [rates(runs), *(outcomes(control, table) for control, table in compared.items())]
    print("\n".join(parts), end="")
