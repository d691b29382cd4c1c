"""One self-contained HTML page of a sweep: it opens offline and asks the network for nothing.

Every text that a user wrote (names, descriptions, claims, errors, the sweep file) is escaped where
it meets the page; tables travel as JSON in which no tag can be opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from sweeps.analysis import charts
from sweeps.analysis.charts import Chart
from sweeps.analysis.claims import CONTRADICTED, SUPPORTED, ClaimResult
from sweeps.analysis.claims_text import SIGNS, numbers
from sweeps.analysis.profile_text import plain, with_interval
from sweeps.analysis.report_data import ReportData

_PAGE = Path(__file__).parent / "page"
# Beyond this a digit is not read off a chart, and costs a byte per value.
_DIGITS = 5


def render(data: ReportData, made: datetime, live: str | None = None) -> str:
    """Return the page.

    Args:
        made: the moment it is dated.
        live: for a served page, the state it was made from: it asks the server for ``state`` and
            reloads when that differs. A page without it asks nobody anything.
    """
    book = _Book()
    body = "\n".join(
        [
            _header(data, made),
            _models(data),
            _overview(data, book),
            _claims(data.claims, data.claims_source),
            _profiles(data, book),
            _slopes(data, book),
            _persistence(data, book),
            _associations(data, book),
            _training(data, book),
            _left_out(data),
            _provenance(data),
        ]
    )
    title = escape(f"{data.name}: depth profiles")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>"
        '<link rel="icon" href="data:,">'
        f"<style>{(_PAGE / 'report.css').read_text(encoding='utf-8')}</style></head>\n"
        f'<body><main>{body}</main><p id="status" role="status" class="unseen"></p>\n'
        f'<script type="application/json" id="report-data">{book.json(data)}</script>\n'
        f"<script>{vega_script()}</script>\n"
        f"<script>{(_PAGE / 'report.js').read_text(encoding='utf-8')}</script>\n"
        f"{'' if live is None else _reloading(live)}</body></html>\n"
    )


def _reloading(state: str) -> str:
    return (
        "<script>setInterval(async () => { try {"
        f" if (await (await fetch('/state')).text() !== {json.dumps(state)}) location.reload();"
        " } catch { /* the server has stopped: the page stays as it is */ } }, 3000);</script>\n"
    )


@cache
def vega_script() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script that defines window.vegaEmbed."""
    import altair as alt
    import vl_convert

    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    # Its own scope: the bundle is a module, whose names are not meant for the page.
    return "(() => {" + bundle.replace("</script", "<\\/script") + "})();"


class _Book:
    """Collects the charts of the page, each under its number."""

    def __init__(self) -> None:
        self._charts: list[Chart] = []

    def place(self, chart: Chart) -> str:
        """Return the element in which ``chart`` will be drawn."""
        self._charts.append(chart)
        number = len(self._charts) - 1
        label = escape(chart.label, quote=True)
        return f'<div class="chart" data-chart="{number}" role="img" aria-label="{label}"></div>'

    def json(self, data: ReportData) -> str:
        """Return charts and the tables they draw, as JSON that cannot close its script element."""
        used = {chart.table for chart in self._charts}
        page = {
            "models": _model_names(data),
            "charts": [
                {
                    "spec": chart.spec,
                    "table": chart.table,
                    "only": chart.only,
                    "follows": chart.follows,
                    "label": chart.label,
                }
                for chart in self._charts
            ],
            "tables": {name: _columnar(data.tables[name]) for name in sorted(used)},
        }
        text = json.dumps(page, separators=(",", ":"), allow_nan=False)
        return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _columnar(table: pl.DataFrame) -> dict[str, Any]:
    """Return a table by column: names once with codes, numbers to five digits."""
    columns: dict[str, Any] = {}
    for name, kind in table.schema.items():
        column = table[name]
        if kind == pl.String:
            names = column.drop_nulls().unique(maintain_order=True).to_list()
            codes = {value: code for code, value in enumerate(names)}
            columns[name] = {
                "names": names,
                "codes": [None if value is None else codes[value] for value in column],
            }
        elif kind.is_float():
            finite = pl.when(pl.col(name).is_finite()).then(pl.col(name).round_sig_figs(_DIGITS))
            columns[name] = table.select(finite).to_series().to_list()
        else:
            columns[name] = column.to_list()
    return {"length": table.height, "columns": columns}


def _model_names(data: ReportData) -> list[str]:
    return [str(name) for name in data.tables["runs"]["model"].unique(maintain_order=True)]


# ---------------------------------------------------------------------------------------- sections
def _header(data: ReportData, made: datetime) -> str:
    moment = "the last step" if data.at == "final" else f"step {data.at}"
    described = f"<p>{escape(data.description)}</p>" if data.description else ""
    return (
        f"<header><h1>{escape(data.name)}</h1>{described}"
        f'<p class="soft">Change measured as {escape(data.metric)} at {moment}. Intervals are 95 %'
        " bootstrap intervals over seeds."
        f" Written {made:%Y-%m-%d %H:%M} UTC.</p></header>"
    )


def _models(data: ReportData) -> str:
    buttons = "".join(
        f'<button type="button" data-model="{escape(name, quote=True)}" aria-pressed="false">'
        f"{escape(name)}</button>"
        for name in _model_names(data)
    )
    return (
        '<nav class="models" aria-label="Choose a model: every chart follows">'
        '<button type="button" id="theme" aria-label="Switch between light and dark">◐</button>'
        f"{buttons}</nav>"
    )


def _overview(data: ReportData, book: _Book) -> str:
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
        (str(len(_model_names(data))), "models"),
        (f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min", "of attempts"),
    ]
    cards = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for value, name in tiles
    )
    return (
        f'<section><h2>Overview</h2><div class="tiles">{cards}</div>'
        f"{_figure(book.place(charts.run_chart(data)), 'Runs per model, by how they ended.')}"
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
    table = _table(names, rows, numeric=range(3, len(names)))
    return f"<details><summary>The models</summary>{note}{table}</details>"


def _claims(results: Sequence[ClaimResult], source: str) -> str:
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


def _profiles(data: ReportData, book: _Book) -> str:
    bands = data.tables["bands"]
    if bands.is_empty():
        return _empty("Depth profiles", "No finished run has a profile yet.")
    objectives = charts.objectives(data)
    key = "".join(
        f'<span><i data-hue="{k}"></i>{escape(name)}</span>' for k, name in enumerate(objectives)
    )
    cards: dict[str, list[str]] = {}
    for chart in charts.profile_charts(data):
        panel = _panel(book.place(chart), chart.title)
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


def _slopes(data: ReportData, book: _Book) -> str:
    slopes = data.tables["slopes"].filter(pl.col("n") > 0)
    if slopes.is_empty():
        return ""
    figure = _figure(book.place(charts.slope_chart(data)), "Slope of every condition.")
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
    table = _table(
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


def _persistence(data: ReportData, book: _Book) -> str:
    if data.tables["persistence"].is_empty():
        return ""
    figure = _figure(
        book.place(charts.persistence_chart(data)),
        "Slope under equal steps over seeds matched with standard training.",
    )
    flagged = data.tables["persistence"].filter(pl.col("flags") != "")
    notes = "".join(
        f"<li>{escape(row['model'])} {escape(row['objective'])}: {escape(row['flags'])}</li>"
        for row in flagged.to_dicts()
    )
    said = (
        f"<details><summary>{flagged.height} flagged</summary><ul>{notes}</ul></details>"
        if notes
        else ""
    )
    return (
        "<section><h2>Persistence</h2><p>A profile persists when the interval of its slope under"
        " equal steps lies above zero, collapses when it contains zero, reverses when it lies"
        f" below.</p>{figure}{said}</section>"
    )


def _associations(data: ReportData, book: _Book) -> str:
    parts = []
    steepness = data.tables["steepness"]
    if steepness["objective_distance"].is_not_null().any():
        parts.append(
            "<h2>Steepness and objective distance</h2><p>Slope over mean change under standard"
            " training, against 1 − cosine between the gradients of the pretraining and the"
            " fine-tuning objective at initialisation.</p>"
            + _figure(book.place(charts.steepness_chart()), _said(data, "rank correlation"))
        )
    if steepness["width"].is_not_null().any():
        parts.append(
            "<h2>Width</h2><p>Effective share of blocks that carry the change, standard training:"
            " 1 when every block changes alike.</p>"
            + _figure(
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


def _training(data: ReportData, book: _Book) -> str:
    if data.tables["curves"].is_empty():
        return ""
    curves = "".join(
        f'<figure class="wide">{_panel(book.place(chart), chart.title)}</figure>'
        for chart in charts.curve_charts(data)
    )
    heat = "".join(
        f'<figure class="wide">{_panel(book.place(chart), chart.title)}</figure>'
        for chart in charts.ratio_charts(data)
    )
    rows = [
        [row["model"], row["objective"], row["treatment"], f"{row['spread']:.1e}"]
        for row in data.tables["spread"].drop_nulls("spread").to_dicts()
    ]
    spread = _table(["model", "objective", "control", "largest spread"], rows, numeric=[3])
    return (
        f'<section><h2>Training</h2><div class="grid">{curves}</div>'
        "<h2>Update ratios: <span data-shown-model></span></h2>"
        "<p>‖ΔW‖/‖W‖ of each block against the mean over blocks. Under equal steps every block is"
        " the same colour: the control held."
        f'</p><div class="grid">{heat}</div><details><summary>Largest (max/min − 1) of the ratio'
        f" over blocks in any step</summary>{spread}</details></section>"
    )


def _left_out(data: ReportData) -> str:
    if data.left_out.is_empty() and data.errors.is_empty():
        return ""
    rows = [
        [
            row["model"],
            row["objective"],
            row["control"],
            str(row["seed"]),
            row["reason"],
            "" if row["last_step"] is None else str(row["last_step"]),
        ]
        for row in data.left_out.to_dicts()
    ]
    table = _table(["model", "objective", "control", "seed", "why", "last step"], rows, [3, 5])
    errors = "".join(
        f"<details><summary>{escape(row['model'])} {escape(row['objective'])}"
        f" {escape(row['control'])} seed {row['seed']}: {escape(_last_line(row['error']))}"
        f"</summary><pre>{escape(row['error'])}</pre></details>"
        for row in data.errors.to_dicts()
    )
    opened = " open" if data.left_out.height <= 20 else ""
    shown = f"<details{opened}><summary>{len(rows)} runs</summary>{table}</details>" if rows else ""
    return f"<section><h2>Runs without a profile</h2>{shown}{errors}</section>"


def _last_line(error: str) -> str:
    lines = error.strip().splitlines()
    return lines[-1] if lines else ""


def _provenance(data: ReportData) -> str:
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
        f"<section><h2>Provenance</h2>{_table(['what', 'value', 'runs'], facts, [2])}"
        f"<details><summary>The sweep file</summary><pre>{escape(data.text)}</pre></details>"
        "</section>"
    )


# ------------------------------------------------------------------------------------------- pieces
def _figure(chart: str, caption: str) -> str:
    return f'<figure class="wide">{chart}<figcaption>{escape(caption)}</figcaption></figure>'


def _panel(chart: str, title: str) -> str:
    return f"<div><figcaption>{escape(title)}</figcaption>{chart}</div>"


def _empty(title: str, said: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="soft">{escape(said)}</p></section>'


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    """Return an HTML table; a row whose first cell names a model follows the selection."""
    right = set(numeric)

    def cell(tag: str, k: int, text: str) -> str:
        kind = ' class="number"' if k in right else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    head = "".join(cell("th", k, name) for k, name in enumerate(names))
    lines = []
    for row in rows:
        of_model = f' data-of-model="{escape(row[0], quote=True)}"' if names[0] == "model" else ""
        cells = "".join(cell("td", k, text) for k, text in enumerate(row))
        lines.append(f"<tr{of_model}>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
