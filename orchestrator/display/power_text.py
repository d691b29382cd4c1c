"""What a sweep can decide about its controls, as a table, in sentences and as data."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.display.plan_table import control_name
from sweeps.declaration.matched_seeds import FEWEST_SEEDS, matched_seeds
from sweeps.declaration.settings import Setting, control_options, text_of, varied
from sweeps.reading.text_table import GAP, Column, text_table
from sweeps.spec import RunSpec

if TYPE_CHECKING:
    from sweeps.findings.deciding import Deciding, Outlook

WIDTH = 80
# Conditions named in a sentence.
NAMED = 6
# Of the names of a condition, beside its numbers.
NARROWEST = 20


def decides_line(runs: Sequence[RunSpec]) -> list[str]:
    """Return the one line of ``plan``; none where a sweep asks no control about anything."""
    found = matched_seeds(runs)
    if not found.conditions:
        return []
    said = (
        f"verdicts {found.with_enough} of {len(found.conditions)} controlled conditions at"
        f" {FEWEST_SEEDS} seeds or more; "
    )
    see = "see depthsweep power"
    return [said + (see if len(said + see) <= WIDTH else "depthsweep power")]


def decides_data(runs: Sequence[RunSpec]) -> dict[str, int]:
    """Return what ``decides_line`` says, as JSON data."""
    found = matched_seeds(runs)
    return {
        "conditions": len(found.conditions),
        "with_enough_seeds": found.with_enough,
        "fewest_seeds": FEWEST_SEEDS,
    }


def power_text(name: str, found: Deciding, width: int = WIDTH) -> str:
    """Return the page: a row a condition, then what can be decided and what was assumed."""
    if not found.rows:
        return _fill(
            f"{name}: no run is under a control, so no verdict is asked for. This page says how"
            " many seeds it takes to tell whether a depth profile persists under a control: give a"
            " block both, `control: [standard, equal_step]`, with the same seeds."
        )
    legend = (
        "n: seeds planned both under the control and under standard, all other settings equal."
        f" persists: probability of this verdict where {found.effect:g} of the slope is kept;"
        f" collapses: where none is. seeds: how many give both {found.target:g}. runs: how many"
        " more runs that takes."
    )
    title = _fill(f"{name}: {', '.join(_controls(found))} against standard, before it runs")
    page = [title, "", *_table(found, width), "", _fill(legend), ""]
    page += [_fill(f"{head:<11}{said}", " " * 11) for head, said in _answers(found)]
    return "\n".join([*page, "", *(_fill(each) for each in _assumed(found))]) + "\n"


def _fill(text: str, indent: str = "") -> str:
    # A path or a name is longer than a line at times; it is broken rather than run over.
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


# ------------------------------------------------------------------------------------------ table
def _shown(found: Deciding) -> list[Setting]:
    """Return the settings that tell apart what model, objective and name of control do not."""
    runs = [one.condition.first for one in found.rows]
    differing, options = varied(runs), set(control_options())
    shown = [one for one in differing if one.name not in options]
    told = {
        (run.model.name, run.objective.label, control_name(run), *(s.value(run) for s in shown))
        for run in runs
    }
    return shown if len(told) == len(runs) else differing


def _controls(found: Deciding) -> list[str]:
    return list(dict.fromkeys(control_name(one.condition.first) for one in found.rows))


def _table(found: Deciding, width: int) -> list[str]:
    """Return a row a condition; where its names find no room beside the numbers, after them."""
    runs = [one.condition.first for one in found.rows]
    names = [
        Column("model", [run.model.name for run in runs]),
        Column("objective", [run.objective.label for run in runs]),
    ]
    if len(_controls(found)) > 1:
        names.append(Column("control", [control_name(run) for run in runs]))
    names += [Column(one.name, [text_of(one.value(run)) for run in runs]) for one in _shown(found)]
    numbers = _numbers(found)
    if sum(one.natural + GAP for one in (*names, *numbers)) - GAP <= width:
        return text_table([*names, *numbers], width)[0]
    # A name that is cut may be another's as well.
    head, *lines = text_table(numbers, width)[0]
    room = max(width - len(head) - GAP, NARROWEST)
    page = [f"{head}{' ' * GAP}condition"]
    for line, label in zip(lines, _labels(found, found.rows), strict=True):
        for k, part in enumerate(textwrap.wrap(label, room, break_on_hyphens=False)):
            page.append(f"{line if k == 0 else '':<{len(head) + GAP}}{part}")
    return page


def _numbers(found: Deciding) -> list[Column]:
    rows = found.rows
    columns = [("n", [str(one.n) for one in rows])]
    if any(one.spread.source != "assumed" for one in rows):
        columns.append(("cv", [_spread(one) for one in rows]))
    for verdict in ("persists", "collapses"):
        columns.append((verdict, [_probability(one, verdict) for one in rows]))
    columns.append(("seeds", ["never" if one.needed is None else str(one.needed) for one in rows]))
    more = ["–" if one.runs_more is None else f"+{one.runs_more}" for one in rows]
    columns.append(("runs", more))
    return [Column(name, cells, right=True, rigid=True, kept=True) for name, cells in columns]


def _labels(found: Deciding, rows: Sequence[Outlook]) -> list[str]:
    """Return what tells each condition from the others of the sweep."""
    shown, several = _shown(found), len(_controls(found)) > 1
    labels = []
    for row in rows:
        run = row.condition.first
        words = [run.model.name, run.objective.label, *([control_name(run)] if several else [])]
        words += [f"{one.name} {text_of(one.value(run))}" for one in shown]
        labels.append(" ".join(words))
    return labels


def _probability(row: Outlook, verdict: str) -> str:
    return f"{getattr(row, verdict):.2f}" if row.n >= FEWEST_SEEDS else "–"


def _spread(row: Outlook) -> str:
    over = f" n={row.spread.seeds}" if row.spread.seeds else ""
    return f"{row.spread.cv:.2g}{over}"


# -------------------------------------------------------------------------------------- sentences
def _answers(found: Deciding) -> list[tuple[str, str]]:
    rows = found.rows
    sure, perhaps, never = found.surely(), found.perhaps(), found.never()
    wanted = _percent(found.target)
    said = [("can decide", f"{len(sure)} of {len(rows)} conditions ({wanted} for either verdict)")]
    if perhaps:
        likely = [_percent(min(one.persists, one.collapses)) for one in perhaps]
        ends = list(dict.fromkeys(sorted(likely, key=lambda text: float(text.split()[0]))))
        said.append(
            (
                "less sure",
                f"{len(perhaps)} of {len(rows)}: {FEWEST_SEEDS} seeds or more, but only"
                f" {' to '.join([ends[0], *ends[1:][-1:]])} for the less likely verdict",
            )
        )
    if never:
        said.append(
            (
                "cannot",
                f"{len(never)} of {len(rows)}, short of {FEWEST_SEEDS}: {_reasons(found, never)}",
            )
        )
    hopeless = sum(1 for one in rows if one.needed is None)
    if len(hopeful := [one for one in rows if one.needed is not None]) > len(sure):
        said.append(
            ("to decide", f"{len(hopeful)} with {wanted}: {_runs(found.runs_more)} more in all")
        )
    if hopeless:
        said.append(("hopeless", f"{hopeless}: seeds this far apart, no reasonable number helps"))
    if found.standard_only:
        kinds = "condition is" if found.standard_only == 1 else "conditions are"
        said.append(("besides", f"{found.standard_only} {kinds} under standard only"))
    return said


def _percent(share: float) -> str:
    return f"{round(100 * share, 1 if share > 0.99 else 0):g} %"


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"


def _reasons(found: Deciding, rows: Sequence[Outlook]) -> str:
    """Return the conditions without a verdict by why, a few of each by name."""
    by_reason: dict[str, list[str]] = {}
    for row, label in zip(rows, _labels(found, rows), strict=True):
        by_reason.setdefault(reason(row), []).append(label)
    return "; ".join(
        ", ".join(names[:NAMED])
        + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        + f" ({why})"
        for why, names in by_reason.items()
    )


def reason(row: Outlook) -> str:
    """Return in words why a condition cannot have a verdict; empty where it can."""
    condition = row.condition
    if row.n >= FEWEST_SEEDS:
        return ""
    if not condition.standard:
        if not condition.differs:
            return "no standard run of this model and objective"
        verb = "differs" if len(condition.differs) == 1 else "differ"
        return f"no standard run with the same settings: {', '.join(condition.differs)} {verb}"
    if row.n == 0:
        return "no seed in common with standard"
    return f"{row.n} seed{'s' if row.n > 1 else ''}"


def _assumed(found: Deciding) -> list[str]:
    sources = {one.spread.source for one in found.rows}
    cvs = sorted({one.spread.cv for one in found.rows if one.spread.source == "assumed"})
    said = []
    if "assumed" in sources:
        said.append(
            f"assumed, not measured: the slopes of seeds have an sd of {cvs[0]:g} of their mean"
        )
    if "measured" in sources:
        said.append("cv (sd over mean of the slopes of seeds) is measured on n standard runs")
    if "median" in sources:
        said.append("conditions without 3 finished ones take the median of the others")
    spread = "; ".join(said)
    rates = ", ".join(f"{_percent(rate)} at {n}" for n, rate in found.failure_rates().items())
    return [
        f"Spread: {spread}. Of one seed, the slopes under control and standard correlate by"
        f" {found.correlation:g} (assumed). Kept or gone is told at {found.delta:g} of the slope.",
        "Not in it: a pair that diverged, a control that changed nothing, a run that learned"
        " nothing. Unseen failures are another matter: n unanimous seeds exclude only a failure"
        f" rate above 1 − 0.05^(1/n){': ' + rates if rates else ''}.",
    ]


# ------------------------------------------------------------------------------------------- data
def power_data(name: str, found: Deciding) -> dict[str, Any]:
    """Return the whole answer as JSON data."""
    shown = _shown(found)
    return {
        "sweep": name,
        "effect": found.effect,
        "target": found.target,
        "delta": found.delta,
        "correlation": found.correlation,
        "fewest_seeds": FEWEST_SEEDS,
        "decided": len(found.surely()),
        "standard_only": found.standard_only,
        "runs_more": found.runs_more,
        "failure_rate_excluded": {str(n): rate for n, rate in found.failure_rates().items()},
        "conditions": [
            {
                "model": row.condition.first.model.name,
                "objective": row.condition.first.objective.label,
                "control": row.condition.first.control.kind,
                "control_setting": row.condition.first.control.setting,
                "settings": {one.name: one.value(row.condition.first) for one in shown},
                "n": row.n,
                "cv": row.spread.cv,
                "cv_source": row.spread.source,
                "cv_seeds": row.spread.seeds,
                "persists": row.persists,
                "collapses": row.collapses,
                "seeds_needed": row.needed,
                "runs_more": row.runs_more,
                "seeds_to_add": None
                if row.lacks is None
                else {"control": row.lacks[0], "standard": row.lacks[1]},
                "reason": reason(row) or None,
            }
            for row in found.rows
        ],
    }
