"""The sections of a report, a function each: data in, HTML out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Any

import polars as pl

from sweeps.findings.claims import CONTRADICTED, SUPPORTED, ClaimResult
from sweeps.report import charts
from sweeps.report.book import (
    Book,
    html_empty,
    html_figure,
    html_panel,
    html_table,
    model_names,
)
from sweeps.report.claims_text import SIGNS, numbers
from sweeps.report.data import ReportData
from sweeps.report.profile_text import plain, with_interval


def header_section(data: ReportData, made: datetime) -> str:
    moment = "the last step" if data.at == "final" else f"step {data.at}"
    described = f"<p>{escape(data.description)}</p>" if data.description else ""
    return (
        f"<header><h1>{escape(data.name)}</h1>{described}"
        f'<p class="soft">Change measured as {escape(data.metric)} at {moment}. Intervals are 95 %'
        " bootstrap intervals over seeds."
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
            for status in ("finished", "diverged", "failed", "unfinished", "pending")
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
        f"{html_figure(book.place(charts.run_chart(data)), 'Runs per model, by how they ended.')}"
        f"{_model_facts(data)}</section>"
    )


def _model_facts(data: ReportData) -> str:
    """Return what the models are; of stand-ins, how far their pretraining came."""
    models = data.tables["models"]
    pretrained_here = models["pretraining_loss"].is_not_null().any()
    names = ["model", "family", "block", "layers", "width", "parameters"]
    rows = [
        [
            *(str(row[name] or "?") for name in ("model", "family", "block")),
            *(f"{row[name] or 0:,}" for name in ("model_layers", "model_width", "parameters")),
            *(
                (plain(row["pretraining_loss"]), plain(row["unigram_entropy"]))
                if pretrained_here
                else ()
            ),
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
    table = html_table(names, rows, numeric=range(3, len(names)))
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
        flags = f" Note: {escape('; '.join(result.flags))}." if result.flags else ""
        cards.append(
            f'<article class="claim {_kind(result.verdict)}"><h3>{escape(result.claim.id)} '
            f'<span class="verdict">{SIGNS[result.verdict]} {escape(result.verdict)}</span></h3>'
            f"<p>{escape(result.claim.text)}</p><ul>{tests}</ul>"
            f'<p class="note">By metric: {escape(others)}.{flags}</p></article>'
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
    objectives = charts.objectives(data)
    key = "".join(
        f'<span><i data-hue="{k}"></i>{escape(name)}</span>' for k, name in enumerate(objectives)
    )
    cards: dict[str, list[str]] = {}
    for chart in charts.profile_charts(data):
        panel = html_panel(book.place(chart), chart.title)
        cards.setdefault(chart.only["model"], []).append(panel)
    grid = "".join(
        f'<div class="model" data-of-model="{escape(model, quote=True)}"><h3>{escape(model)}</h3>'
        f'<div class="panels">{"".join(panels)}</div></div>'
        for model, panels in cards.items()
    )
    return (
        "<section><h2>Depth profiles</h2><p>Change of each block against its relative depth, from"
        " the first block to the last. Band: interval over seeds. Dotted: the row-shuffled null,"
        " what unrelated representations of this size would show.</p>"
        f'<div class="key">{key}<label class="controls"><input type="checkbox" id="tonull">'
        f' scale to the null</label></div><div class="grid">{grid}</div></section>'
    )


def slopes_section(data: ReportData, book: Book) -> str:
    slopes = data.tables["slopes"].filter(pl.col("n") > 0)
    if slopes.is_empty():
        return ""
    figure = html_figure(book.place(charts.slope_chart(data)), "Slope of every condition.")
    rows = [
        [
            row["model"],
            row["objective"],
            row["treatment"],
            str(row["n"]),
            with_interval(row["slope"], row["slope_low"], row["slope_high"]),
            plain(row["spearman"]),
            plain(row["centre_of_mass"]),
            plain(row["concentration_last_quarter"]),
            plain(row["width"]),
            row["flags"],
        ]
        for row in slopes.to_dicts()
    ]
    table = html_table(
        [
            "model",
            "objective",
            "control",
            "n",
            "slope",
            "rank corr.",
            "centre",
            "last quarter",
            "width",
            "note",
        ],
        rows,
        numeric=range(3, 9),
    )
    return (
        "<section><h2>Slopes</h2><p>The locality gradient: ordinary least squares of change on"
        " relative depth. Right of the dashed line, later blocks change more. A condition with one"
        f" seed has no interval.</p>{figure}<details><summary>The same as a table</summary>"
        f"{table}</details></section>"
    )


def persistence_section(data: ReportData, book: Book) -> str:
    if data.tables["persistence"].is_empty():
        return ""
    figure = html_figure(
        book.place(charts.persistence_chart(data)),
        "Slope under equal steps over seeds matched with standard training.",
    )
    flagged = data.tables["persistence"].filter(pl.col("flags") != "")
    notes = "".join(
        f"<li>{escape(row['setting'])} {escape(row['objective'])}: {escape(row['flags'])}</li>"
        for row in flagged.to_dicts()
    )
    said = (
        f"<details><summary>{flagged.height} flagged</summary><ul>{notes}</ul></details>"
        if notes
        else ""
    )
    return (
        "<section><h2>Persistence</h2><p>A profile persists when the interval of its slope under"
        " equal steps, taken along the standard slope, lies above zero; it collapses when it"
        f" contains zero and reverses when it lies below.</p>{figure}{said}</section>"
    )


def associations_section(data: ReportData, book: Book) -> str:
    parts = []
    steepness = data.tables["steepness"]
    if steepness["objective_distance"].is_not_null().any():
        parts.append(
            "<h2>Steepness and objective distance</h2><p>Slope over mean change under standard"
            " training, against 1 − cosine between the gradients of the pretraining and the"
            " fine-tuning objective at initialisation.</p>"
            + html_figure(book.place(charts.steepness_chart()), _said(data, "rank correlation"))
        )
    if steepness["width"].is_not_null().any():
        parts.append(
            "<h2>Width</h2><p>Effective share of blocks that carry the change, standard training:"
            " 1 when every block changes alike.</p>"
            + html_figure(
                book.place(charts.width_chart(data)),
                _said(data, "explained by family", "explained by objective"),
            )
        )
    return f"<section>{''.join(parts)}</section>" if parts else ""


def _said(data: ReportData, *names: str) -> str:
    """Return the named associations in words."""
    found = [(name, data.associations[name]) for name in names]
    words = [f"{name}: {numbers(each) or each.blocked}" for name, each in found]
    return "; ".join(words) + "."


def training_section(data: ReportData, book: Book) -> str:
    if data.tables["curves"].is_empty():
        return ""
    curves = "".join(
        f'<figure class="wide">{html_panel(book.place(chart), chart.title)}</figure>'
        for chart in charts.curve_charts(data)
    )
    heat = "".join(
        f'<figure class="wide">{html_panel(book.place(chart), chart.title)}</figure>'
        for chart in charts.ratio_charts(data)
    )
    rows = [
        [row["model"], row["objective"], row["treatment"], f"{row['spread']:.1e}"]
        for row in data.tables["spread"].drop_nulls("spread").to_dicts()
    ]
    spread = html_table(["model", "objective", "control", "largest spread"], rows, numeric=[3])
    return (
        f'<section><h2>Training</h2><div class="grid">{curves}</div>'
        "<h2>Update ratios: <span data-shown-model></span></h2>"
        "<p>‖ΔW‖/‖W‖ of each block against the mean over blocks: blocks of one colour moved alike,"
        " as equal steps have them do."
        f'</p><div class="grid">{heat}</div><details><summary>Largest (max/min − 1) of the ratio'
        f" over blocks in any step</summary>{spread}</details></section>"
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
    facts: list[list[str]] = []
    for key, name in (("git_commit", "commit"), ("versions", "versions"), ("hardware", "hardware")):
        seen: dict[str, int] = {}
        for record in data.records:
            value = record.get(key)
            said = (
                ", ".join(f"{k} {v}" for k, v in sorted(value.items()))
                if isinstance(value, dict)
                else str(value)
            )
            seen[said] = seen.get(said, 0) + 1
        facts += [[name, said, str(count)] for said, count in seen.items()]
    return (
        f"<section><h2>Provenance</h2>{html_table(['what', 'value', 'runs'], facts, [2])}"
        f"<details><summary>The sweep file</summary><pre>{escape(data.text)}</pre></details>"
        "</section>"
    )
