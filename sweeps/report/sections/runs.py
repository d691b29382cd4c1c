"""The sections on runs themselves: how they ended, what their models are, what made them."""

from __future__ import annotations

from html import escape

import polars as pl

from sweeps.report.book import html_table, model_names
from sweeps.report.data import ReportData
from sweeps.report.profile_text import plain

STATUSES = (
    *("finished", "stopped", "diverged", "failed", "cancelled", "preempted", "lost"),
    *("unfinished", "pending"),
)


def status_section(data: ReportData) -> str:
    """Return how the runs of each model ended, in numbers."""
    runs = data.tables["runs"]
    by_status = dict(runs.group_by("status").agg(pl.col("runs").sum()).rows())
    hours = float(runs["seconds"].sum() or 0) / 3600
    there = [status for status in STATUSES if status in by_status]
    tiles = [
        (str(sum(by_status.values())), "runs"),
        *[(str(by_status[status]), status) for status in there],
        (str(len(model_names(data))), "models"),
        (f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min", "of attempts"),
    ]
    cards = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for value, name in tiles
    )
    counts = {(row["model"], row["status"]): row["runs"] for row in runs.to_dicts()}
    rows = [
        [model, *(str(counts.get((model, status), 0) or "–") for status in there)]
        for model in model_names(data)
    ]
    table = html_table(["model", *there], rows, numeric=range(1, len(there) + 1))
    return (
        f'<section><h2>Runs</h2><div class="tiles">{cards}</div>{table}{_model_facts(data)}'
        "</section>"
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


def left_out_section(data: ReportData) -> str:
    if data.left_out.is_empty() and data.errors.is_empty():
        return ""
    rows = [
        [
            row["model"],
            row["condition"],
            row["arm"],
            str(row["seed"]),
            row["reason"],
            "" if row["last_step"] is None else str(row["last_step"]),
        ]
        for row in data.left_out.to_dicts()
    ]
    table = html_table(["model", "condition", "control", "seed", "why", "last step"], rows, [3, 5])
    errors = "".join(
        f"<details><summary>{escape(row['model'])} {escape(row['condition'])}"
        f" {escape(row['arm'])} seed {row['seed']}: {escape(_last_line(row['error']))}"
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
