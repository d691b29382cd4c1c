"""A notebook that answers one question from start to end: does the change stay near the output
when every layer is made to take equal steps?

    marimo edit sweeps/library/reading_a_store.py -- --store ./store --sweep demo
    python sweeps/library/reading_a_store.py --store ./store --sweep demo
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium")


@app.cell
def _():
    import marimo as mo
    import polars as pl

    from sweeps import open_store
    from sweeps.findings.persistence import compare
    from sweeps.statistics.conditions import summarise
    from sweeps.statistics.profiles import measure

    return compare, measure, mo, open_store, pl, summarise


@app.cell
def _(mo):
    arguments = mo.cli_args()
    store = str(arguments.get("store") or "./store")
    sweep = str(arguments.get("sweep") or "demo")
    mo.md(
        f"""
        # Does the depth profile outlive equal steps?

        Fine-tuning changes later blocks more than earlier ones. Is that because later blocks take
        larger steps? Sweep **{sweep}** trains each model twice per seed: as usual, and with
        ‖ΔW‖/‖W‖ made equal over the blocks after every step.
        """
    )
    return store, sweep


@app.cell
def _(mo, open_store, store, sweep):
    tables = open_store(store, sweep=sweep)
    counts = tables.runs().collect()["status"].value_counts()
    mo.vstack([mo.md("## What was run"), counts])
    return counts, tables


@app.cell
def _(mo, pl, tables):
    # The control must have held before its effect is worth a word: within a step, how far do the
    # ratios of the blocks differ?
    ratio = pl.col("update_norm") / pl.col("weight_norm")
    held = (
        tables.layers()
        .filter(~pl.col("group").is_in(["embedding", "head"]))
        .group_by("control", "run_id", "step")
        .agg((ratio.max() / ratio.min() - 1).alias("spread"))
        .group_by("control")
        .agg(pl.col("spread").max())
        .sort("control")
        .collect(engine="streaming")
    )
    mo.vstack([mo.md("## Did the control hold?"), held])
    return (held,)


@app.cell
def _(measure, mo, summarise, tables):
    profiles = measure(tables, "procrustes")
    # One row for each condition: model, objective, control and whatever else the sweep varies.
    table = summarise(profiles)
    _settings = table.columns[: table.columns.index("n")]
    slopes = table.select(*_settings, "n", "slope", "slope_low", "slope_high", "flags")
    mo.vstack([mo.md("## Slopes: change against relative depth"), slopes])
    return profiles, slopes


@app.cell
def _(compare, mo, profiles):
    verdicts = compare(profiles, control="equal_step", against="standard")
    _settings = verdicts.columns[: verdicts.columns.index("family")]
    shown = verdicts.select(
        *_settings, "n", "slope_against", "slope_control", "retained", "verdict"
    )
    mo.vstack([mo.md("## The same seeds with and without the control"), shown])
    return (verdicts,)


@app.cell
def _(mo, verdicts):
    by_verdict = dict(verdicts["verdict"].value_counts().rows())
    said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(by_verdict.items()))
    answer = f"Of {verdicts.height} conditions: {said}."
    if mo.app_meta().mode == "script":
        print(answer)
    mo.md(f"## Answer\n\n{answer}")
    return (answer,)


if __name__ == "__main__":
    app.run()
