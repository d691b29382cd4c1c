"""The sections of a report, a function each: data in, HTML out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Any

import polars as pl

from sweeps.findings.claims import CONTRADICTED, SUPPORTED, ClaimResult
from sweeps.findings.verdicts import LEAST_DOSE, MOST_SATURATED
from sweeps.reading.run_table import evaluated_columns
from sweeps.report.book import (
    Book,
    html_empty,
    html_figure,
    html_panel,
    html_table,
    model_names,
)
from sweeps.report.charts.chart import Chart, objectives
from sweeps.report.charts.profiles import profile_charts, run_chart, slope_chart
from sweeps.report.charts.training import curve_charts, ratio_charts
from sweeps.report.claims_text import SIGNS, numbers
from sweeps.report.data import STANDARD, ReportData
from sweeps.report.persistence_text import figure
from sweeps.report.profile_text import over_propagation, plain, with_interval


def header_section(data: ReportData, made: datetime) -> str:
    moment = "the last step" if data.at == "final" else f"step {data.at}"
    described = f"<p>{escape(data.description)}</p>" if data.description else ""
    return (
        f"<header><h1>{escape(data.name)}</h1>{described}"
        f'<p class="soft">Change measured as {escape(data.metric)} at {moment}. Intervals are 95 %'
        " t-intervals over seeds; of slopes with the error of the probe rows where measured in"
        " groups. Fewer than 3 seeds have none."
        f" Written {made:%Y-%m-%d %H:%M} UTC.</p></header>"
    )


def model_buttons(data: ReportData) -> str:
    buttons = "".join(
        f'<button type="button" data-model="{escape(name, quote=True)}" aria-pressed="false">'
        f"{escape(name)}</button>"
        for name in model_names(data)
    )
    return (
        '<nav class="models" aria-label="Choose a model: every chart follows">'
        '<button type="button" id="theme" aria-label="Switch between light and dark">◐</button>'
        f"{buttons}</nav>"
    )


def overview_section(data: ReportData, book: Book) -> str:
    runs = data.tables["runs"]
    by_status = dict(runs.group_by("status").agg(pl.col("runs").sum()).rows())
    hours = float(runs["seconds"].sum() or 0) / 3600
    tiles = [
        (str(sum(by_status.values())), "runs"),
        *[
            (str(by_status[status]), status)
            for status in ("finished", "stopped", "diverged", "failed", "unfinished", "pending")
            if status in by_status
        ],
        (str(len(model_names(data))), "models"),
        (f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min", "of attempts"),
    ]
    cards = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for value, name in tiles
    )
    return (
        f'<section><h2>Overview</h2><div class="tiles">{cards}</div>'
        f"{html_figure(book.place(run_chart(data)), 'Runs per model, by how they ended.')}"
        f"{_model_facts(data)}</section>"
    )


def _model_facts(data: ReportData) -> str:
    """Return what the models are; of stand-ins, how far their pretraining came."""
    models = data.tables["models"]
    pretrained_here = models["pretraining_loss"].is_not_null().any()
    # Where each block runs once, and stands in one stack, there is one number to tell.
    unrolled = (models["model_depth"] != models["model_layers"]).any()
    several = models["model_stacks"].is_not_null().any()
    names = [
        *("model", "family", "block", "layers"),
        *(["depth in calls"] if unrolled else []),
        *("width", "parameters"),
    ]
    counted = [
        *(["model_layers", "model_depth"] if unrolled else ["model_layers"]),
        *("model_width", "parameters"),
    ]
    rows = [
        [
            *(str(row[name] or "?") for name in ("model", "family", "block")),
            *(f"{row[name] or 0:,}" for name in counted),
            *(
                (plain(row["pretraining_loss"]), plain(row["unigram_entropy"]))
                if pretrained_here
                else ()
            ),
            *([row["model_stacks"] or "one"] if several else ()),
        ]
        for row in models.to_dicts()
    ]
    note = ""
    if pretrained_here:
        names += ["pretraining loss", "unigram entropy"]
        note = (
            "<p>Stand-ins were pretrained in place. A loss well below the entropy of single tokens"
            " (nats a token) says that they had learned something for fine-tuning to change.</p>"
        )
    table = html_table(
        [*names, *(["stacks"] if several else [])], rows, numeric=range(3, len(names))
    )
    return f"<details><summary>The models</summary>{note}{table}</details>"


def claim_cards(results: Sequence[ClaimResult], source: str) -> str:
    """Return the claims that the sweep brings, judged; nothing where it brings none."""
    if not results:
        return ""
    cards = []
    for result in results:
        tests = "".join(
            f'<li class="{_kind(test.verdict)}"><span class="verdict">{SIGNS[test.verdict]}</span>'
            f" {escape(test.statement)}{escape(_found(test))}</li>"
            for test in result.tests
        )
        others = ", ".join(
            f"{metric} {SIGNS[verdict]}" for metric, verdict in result.by_metric.items()
        )
        sensitivity = " (a sensitivity on the same runs, no replication)"
        measured = f"By metric{sensitivity if len(result.by_metric) > 1 else ''}: {others}."
        flags = f" Note: {escape('; '.join(result.flags))}." if result.flags else ""
        cards.append(
            f'<article class="claim {_kind(result.verdict)}"><h3>{escape(result.claim.id)} '
            f'<span class="verdict">{SIGNS[result.verdict]} {escape(result.verdict)}</span></h3>'
            f"<p>{escape(result.claim.text)}</p><ul>{tests}</ul>"
            f'<p class="note">{escape(measured)}{flags}</p></article>'
        )
    said = f'<p class="soft">{escape(source)}</p>' if source else ""
    return f'<section><h2>Claims</h2>{said}<div class="claims">{"".join(cards)}</div></section>'


def _found(test: Any) -> str:
    parts = [part for part in (numbers(test.estimate), test.reason) if part]
    return ": " + "; ".join(parts) if parts else ""


def _kind(verdict: str) -> str:
    return {SUPPORTED: "supported", CONTRADICTED: "contradicted"}.get(verdict, "open")


def profile_grid(data: ReportData, book: Book) -> str:
    bands = data.tables["bands"]
    if bands.is_empty():
        return html_empty("Depth profiles", "No finished run has a profile yet.")
    key = "".join(
        f'<span><i data-hue="{k}"></i>{escape(name)}</span>'
        for k, name in enumerate(objectives(data))
    )
    cards: dict[str, list[Chart]] = {}
    for chart in profile_charts(data):
        cards.setdefault(chart.only["model"], []).append(chart)
    grid = "".join(_card(data, book, model, panels) for model, panels in cards.items())
    return (
        "<section><h2>Depth profiles</h2><p>Change of each block against its relative depth, from"
        " the first block to the last, and of the embedding's output (◇, at depth 0). Each model"
        " has its own scale. Band: interval over seeds. Dashed: propagation, what noise in the"
        " weights gives without any gradient, at the same mean change. Dotted: the row-shuffled"
        " null, what unrelated representations of this size would show.</p>"
        f'<div class="key">{key}<label class="controls"><input type="checkbox" id="tonull">'
        f' scale to the null</label></div><div class="grid">{grid}</div></section>'
    )


def _card(data: ReportData, book: Book, model: str, charts: Sequence[Chart]) -> str:
    """Return the panels of one model, with what no picture without the null would show."""
    panels = "".join(html_panel(book.place(chart), chart.title) for chart in charts)
    saturated = data.tables["slopes"].filter(
        (pl.col("model") == model) & (pl.col("saturated") >= MOST_SATURATED)
    )
    said = ", ".join(
        f"{row['objective']} {row['treatment']} in {100 * row['saturated']:.0f} % of blocks"
        for row in saturated.to_dicts()
    )
    mark = f'<p class="mark">▲ at the null: {escape(said)}</p>' if said else ""
    return (
        f'<div class="model" data-of-model="{escape(model, quote=True)}"><h3>{escape(model)}</h3>'
        f'{mark}<div class="panels">{panels}</div></div>'
    )


def slopes_section(data: ReportData, book: Book) -> str:
    slopes = data.tables["slopes"].filter(pl.col("n") > 0)
    if slopes.is_empty():
        return ""
    figure = html_figure(
        book.place(slope_chart(data)), "Slope of every condition; small points are its seeds."
    )
    rows = [
        [
            *(row["model"], row["objective"], row["treatment"], str(row["n"])),
            with_interval(row["slope"], row["slope_low"], row["slope_high"]),
            over_propagation(row).strip(),
            plain(row["centre_of_mass"]),
            plain(row["concentration_last_quarter"]),
            plain(row["theil_sen"], 3),
            plain(row["slope_dfbeta"], 3),
            plain(row["embedding_change"], 3),
            plain(row["dose"]),
            row["flags"],
        ]
        for row in slopes.to_dicts()
    ]
    names = [
        *("model", "objective", "control", "n", "slope [95 %]", "over g", "centre"),
        *("last quarter", "Theil–Sen", "block left out", "d₀", "dose", "note"),
    ]
    return (
        "<section><h2>Slopes</h2><p>The locality gradient: ordinary least squares of change on"
        " relative depth. Right of the dashed line, later blocks change more. An interval is drawn"
        f" from 3 seeds on.</p>{figure}<details><summary>The same as a table</summary>"
        "<p>Over g: slope over mean change, less that of noise in the weights; ✓ its interval lies"
        " above 0. Centre ½ and last quarter ¼: a flat profile. Theil–Sen: the median slope between"
        " two blocks. Block left out: how far the slope moves when one block is left out, at most."
        " d₀: change of the embedding's output. Dose: largest over smallest cumulated step of a"
        f" block.</p>{html_table(names, rows, numeric=range(3, 12))}</details></section>"
    )


def training_section(data: ReportData, book: Book) -> str:
    if data.tables["curves"].is_empty() and data.tables["ratios"].is_empty():
        return ""
    curves, heat = (
        "".join(
            f'<figure class="wide">{html_panel(book.place(chart), chart.title)}</figure>'
            for chart in charts
        )
        for charts in (curve_charts(data, "curves", "training loss"), ratio_charts(data))
    )
    rows = [
        [
            *(row["model"], row["objective"], row["treatment"]),
            *(plain(row["dose"]), f"{row['spread']:.1e}"),
        ]
        for row in data.tables["spread"].drop_nulls("spread").to_dicts()
    ]
    spread = html_table(
        ["model", "objective", "control", "dose D", "largest spread"], rows, numeric=[3, 4]
    )
    return (
        "<section><h2>Training loss</h2><p>Loss on the training batches, not on held-out text: the"
        " mean over the seeds of a condition, and a band from the smallest to the largest. A curve"
        " ends where its first seed does. Choose a model above to tell it from the others."
        f'</p><div class="grid">{curves}</div>'
        "<h2>Update ratios: <span data-shown-model></span></h2>"
        "<p>‖ΔW‖/‖W‖ of each block against the mean over blocks, on one scale for all treatments of"
        f" an objective. {escape(_of_doses(data))}</p>"
        f'<div class="grid">{heat}</div><details><summary>Dose, and the largest (max/min − 1) of'
        f" the ratio over blocks in any step</summary>{spread}</details></section>"
    )


def evaluation_section(data: ReportData, book: Book) -> str:
    """Return what runs scored on held-out examples; nothing where none was evaluated."""
    table = data.tables["scores"]
    if table.is_empty():
        return ""
    charts = curve_charts(data, "evaluation_curves", "evaluation loss")
    curves = "".join(
        f'<figure class="wide">{html_panel(book.place(chart), chart.title)}</figure>'
        for chart in charts
    )
    names = [name for name in evaluated_columns() if name in table.columns]
    rows = [
        [
            *(row["model"], row["objective"], row["treatment"], str(row["n"])),
            *(figure(row[name]) for name in names),
        ]
        for row in table.to_dicts()
    ]
    said = [name.removeprefix("evaluation_").replace("_", " ") for name in names]
    heads = ["model", "objective", "control", "n", *said]
    return (
        "<section><h2>Held-out examples</h2><p>What runs scored on examples that none was trained"
        " on, from before the first step on: a control under which less was learned has less of"
        " everything else to show, too. The table has the means over seeds at the end; loss change"
        " is against step 0.</p>"
        f'<div class="grid">{curves}</div>{html_table(heads, rows, range(3, len(heads)))}</section>'
    )


def _of_doses(data: ReportData) -> str:
    """Return how much there was for a control to take away, in numbers."""
    doses = data.tables["slopes"].filter(pl.col("control") == STANDARD)["dose"].drop_nulls()
    if doses.is_empty():
        return "How unequally standard training moves the blocks (its dose) is not known."
    least, most = f"{min(doses):.2f}", f"{max(doses):.2f}"
    one = len(doses) == 1
    return (
        "Under standard training the largest cumulated step of a block is"
        f" {least if least == most else f'{least} to {most}'} times the smallest (the dose D, of"
        f" {len(doses)} condition{'' if one else 's'}); below {LEAST_DOSE:g} equal steps have"
        f" nothing to take away, which holds for {sum(dose < LEAST_DOSE for dose in doses)}."
    )


def left_out_section(data: ReportData) -> str:
    if data.left_out.is_empty() and data.errors.is_empty():
        return ""
    rows = [
        [
            row["model"],
            row["objective"],
            row["treatment"],
            str(row["seed"]),
            row["reason"],
            "" if row["last_step"] is None else str(row["last_step"]),
        ]
        for row in data.left_out.to_dicts()
    ]
    table = html_table(["model", "objective", "control", "seed", "why", "last step"], rows, [3, 5])
    errors = "".join(
        f"<details><summary>{escape(row['model'])} {escape(row['objective'])}"
        f" {escape(row['treatment'])} seed {row['seed']}: {escape(_last_line(row['error']))}"
        f"</summary><pre>{escape(row['error'])}</pre></details>"
        for row in data.errors.to_dicts()
    )
    opened = " open" if data.left_out.height <= 20 else ""
    shown = f"<details{opened}><summary>{len(rows)} runs</summary>{table}</details>" if rows else ""
    return f"<section><h2>Runs without a profile</h2>{shown}{errors}</section>"


def _last_line(error: str) -> str:
    lines = error.strip().splitlines()
    return lines[-1] if lines else ""


def provenance_section(data: ReportData) -> str:
    facts = [
        [what, value, str(count)]
        for what, values in data.made_with.items()
        for value, count in values.items()
    ]
    return (
        f"<section><h2>Provenance</h2>{html_table(['what', 'value', 'runs'], facts, [2])}"
        f"<details><summary>The sweep file</summary><pre>{escape(data.text)}</pre></details>"
        "</section>"
    )
