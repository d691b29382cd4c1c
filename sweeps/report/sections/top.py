"""What a reader sees first: what the sweep says, and what the page can be switched to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from sweeps.report.answers import Answer
from sweeps.report.book import model_names
from sweeps.report.charts.profiles import METRIC_TITLES
from sweeps.report.data import ReportData
from sweeps.report.tables.views import View

# Groups whose sentences are read at once; further ones are folded.
MOST_GROUPS = 4
# Of the scales of change that profiles can have, the first is what they begin with.
SCALES = {"shared": "one for all models", "own": "each model its own", "null": "up to the null"}


def header_section(data: ReportData, made: datetime) -> str:
    described = f'<p class="soft">{escape(data.description)}</p>' if data.description else ""
    return f"<header><h1>{escape(data.name)}</h1>{described}</header>{_answers(data)}" + (
        '<p class="soft">Change is measured as <span data-shown-metric>'
        f"{escape(METRIC_TITLES.get(data.metric, data.metric))}</span> at <span data-shown-step>"
        f"{escape(moment_said(data.views[0]))}</span>; in brackets 95 % t-intervals over seeds or"
        " models, of slopes with the error of the probe rows where it was measured. Fewer than 3"
        f" seeds have none. Written {made:%Y-%m-%d %H:%M} UTC.</p>"
    )


def moment_said(view: View) -> str:
    return "the last step" if view.at == "final" else f"step {view.at}"


def _answers(data: ReportData) -> str:
    """Return what the sweep says under each view, of which the page shows one."""
    blocks = []
    for k, (name, answers) in enumerate(data.answers.items()):
        hidden = "" if k == 0 else " hidden"
        blocks.append(
            f'<div class="answer" data-answer="{escape(name, quote=True)}"{hidden}>'
            f"{_of_view(answers)}</div>"
        )
    return f'<section aria-label="What the sweep says">{"".join(blocks)}</section>'


def _of_view(answers: Sequence[Answer]) -> str:
    first, rest = answers[0], answers[1:]
    lead = "".join(f"<p>{escape(text)}</p>" for text in first.sentences)
    items = [
        f"<li><b>{escape(one.group)}</b>: {escape(' '.join(one.sentences))}</li>" for one in rest
    ]
    shown, more = items[:MOST_GROUPS], items[MOST_GROUPS:]
    text = f'<div class="lead">{lead}</div>'
    text += f"<ul>{''.join(shown)}</ul>" if shown else ""
    if more:
        text += (
            f"<details><summary>{len(more)} more groups of conditions</summary>"
            f"<ul>{''.join(more)}</ul></details>"
        )
    return text


def tools(data: ReportData) -> str:
    """Return the bar that stays in sight: theme, metric, step, scale, and a button for a model."""
    metrics = dict.fromkeys(view.metric for view in data.views)
    steps = {str(view.at): moment_said(view) for view in data.views}
    buttons = "".join(
        f'<button type="button" data-model="{escape(name, quote=True)}" aria-pressed="false">'
        f"{escape(name)}</button>"
        for name in model_names(data)
    )
    return (
        '<nav class="models" aria-label="What is shown: every chart follows">'
        '<button type="button" id="theme" aria-label="Switch between light and dark">◐</button>'
        f"{_select('metric', {one: METRIC_TITLES.get(one, one) for one in metrics})}"
        f"{_select('step', steps)}{_select('scale', SCALES)}{buttons}</nav>"
    )


def _select(name: str, options: dict[str, str]) -> str:
    items = "".join(
        f'<option value="{escape(value, quote=True)}">{escape(said)}</option>'
        for value, said in options.items()
    )
    return f'<label>{name} <select id="{name}">{items}</select></label>'
