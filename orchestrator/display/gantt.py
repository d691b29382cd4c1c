"""A schedule as one self-contained HTML page: a row a GPU, a bar a run, as high as its share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from orchestrator.policy.occupancy import UNITS
from orchestrator.policy.simulation import Schedule
from sweeps.declaration.settings import run_labels
from sweeps.report.page import vega_script
from sweeps.spec import RunSpec

# So many bars are drawn as elements that can be read; above, as one picture.
READABLE_BARS = 3000
HEIGHT = 760
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 24px; background: #fff; color: #1d2129; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; }
pre { color: #5d6673; white-space: pre-wrap; }
#chart { width: 100%; }
"""


def gantt_page(
    title: str, done: Schedule, runs: Mapping[str, RunSpec], summary: Sequence[str]
) -> str:
    """Return the page; ``summary`` stands above the chart, all text escaped."""
    spec = json.dumps(_spec(bars(done, runs), done)).replace("<", "\\u003c")
    renderer = "svg" if len(done.stretches) <= READABLE_BARS else "canvas"
    label = escape(f"Schedule of {title}: runs by GPU over time", quote=True)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: schedule</title>"
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1><pre>{escape(chr(10).join(summary))}</pre>\n"
        f'<div id="chart" role="img" aria-label="{label}"></div>\n'
        f'<script type="application/json" id="spec">{spec}</script>\n'
        f"<script>{vega_script()}</script>\n"
        "<script>vegaEmbed('#chart', JSON.parse(document.getElementById('spec').textContent),"
        f" {{renderer: '{renderer}', actions: false}})"
        ".then(() => { document.documentElement.dataset.charts = 'drawn'; });</script>"
        "</body></html>\n"
    )


def bars(done: Schedule, runs: Mapping[str, RunSpec]) -> list[dict[str, Any]]:
    """Return a bar a run and GPU: from, to (hours), top and bottom (GPUs), and what it is."""
    labels = run_labels(list(runs.values()))
    row: dict[tuple[str, int], int] = {}
    for stretch in sorted(done.stretches, key=lambda s: s.gpus):
        for gpu in stretch.gpus:
            row.setdefault(gpu, len(row))
    # On a shared GPU each run takes the highest place nobody else is at.
    taken: dict[tuple[str, int], list[tuple[float, int, int]]] = {}
    found = []
    for stretch in done.stretches:
        units = stretch.run.demand.units
        run = runs[stretch.run.run_id]
        for gpu in stretch.gpus:
            still = [t for t in taken.get(gpu, []) if t[0] > stretch.starts]
            top = 0
            for _, begins, ends in sorted(still, key=lambda t: t[1]):
                if begins - top >= units:
                    break
                top = max(top, ends)
            top = min(top, UNITS - units)
            taken[gpu] = [*still, (stretch.ends, top, top + units)]
            found.append(
                {
                    "from": stretch.starts / 3600,
                    "to": stretch.ends / 3600,
                    "top": row[gpu] + top / UNITS,
                    "bottom": row[gpu] + (top + units) / UNITS,
                    "model": run.model.name,
                    "run": labels[run.run_id],
                    "id": run.run_id,
                    "gpu": f"{gpu[0]}, GPU {gpu[1]}",
                    "gpus": stretch.run.demand.total,
                }
            )
    return found


def _spec(rows: list[dict[str, Any]], done: Schedule) -> dict[str, Any]:
    import altair as alt

    data = alt.InlineData(values=rows)
    hours = alt.Scale(domain=[0, max(done.makespan, 1e-9) / 3600], nice=False)
    chart = (
        alt.Chart(data)
        .mark_rect(stroke="white", strokeWidth=0.3)
        .encode(
            x=alt.X("from:Q", title="hours", scale=hours),
            x2="to:Q",
            y=alt.Y(
                "top:Q",
                title="GPU",
                scale=alt.Scale(domain=[0, done.gpus], reverse=True, nice=False),
                axis=alt.Axis(tickMinStep=1, format="d"),
            ),
            y2="bottom:Q",
            color=alt.Color("model:N", legend=alt.Legend(orient="top", title=None, columns=6)),
            tooltip=[
                "run:N",
                "id:N",
                "gpu:N",
                "gpus:Q",
                alt.Tooltip("from:Q", format=".3f", title="from hour"),
                alt.Tooltip("to:Q", format=".3f", title="to hour"),
            ],
        )
        .properties(width="container", height=min(HEIGHT, max(120, 24 * done.gpus)))
    )
    spec = chart.to_dict()
    assert isinstance(spec, dict)
    return spec
