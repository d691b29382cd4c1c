"""``depthsweep compare``: whether profiles outlive a control."""

from __future__ import annotations

import json

import click

from orchestrator.options import OUTPUT, moment
from orchestrator.shell.completion import SWEEP


@click.command()
@click.argument("name", shell_complete=SWEEP)
@click.option("--store", default="./store", show_default=True, help="Folder of the store.")
@click.option("--control", default="equal_step", show_default=True, help="The control asked about.")
@click.option("--against", default="standard", show_default=True, help="What it is compared with.")
@click.option("--metric", default="procrustes", show_default=True, help="Which change decides.")
@click.option("--at", default="final", show_default=True, help="final, or a probe step.")
@click.option(
    "--export", "form", type=click.Choice(["csv", "parquet", "json"]), help="One row per condition."
)
@OUTPUT
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
def command(
    name: str,
    store: str,
    control: str,
    against: str,
    metric: str,
    at: str,
    form: str | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Compare the slopes of two controls of sweep NAME over matched seeds.

    A condition persists when more than a quarter of its slope is shown to be left under the
    control, collapses when less than a quarter is, either way, and reverses when more than that is
    left the other way round; otherwise it is inconclusive. Before that comes what makes it no
    finding at all, such as idle: a control that had nothing to take away. Dose: how unequally the
    reference moves its blocks, largest over smallest. The verdict under each distance, and where
    both arms have changed equally, stands beside it.

    Where runs answer prompts it says what became of their refusals, too: of the slope and the fall
    of the refusal rate, which fall under the control at equal evaluation loss.
    """
    from orchestrator.display.output import emit, terminal_width
    from sweeps.findings.alignment.outcomes import (
        alignment_table,
        findings_of,
        with_alignment,
    )
    from sweeps.findings.arms import paths_of
    from sweeps.findings.persistence import verdicts_by_metric
    from sweeps.reading.tables import open_store
    from sweeps.report.alignment_text import alignment_text
    from sweeps.report.persistence_text import persistence_text
    from sweeps.statistics.profiles import measure_each, unequal_rows
    from sweeps.store.schema import NULL_METRICS

    tables = open_store(store, sweep=name)
    metrics = [metric, *[other for other in NULL_METRICS if other != metric]]
    profiles = measure_each(tables, metrics, moment(at))
    paths = paths_of(tables, metric) if at == "final" else None
    table = verdicts_by_metric(profiles, control, against, paths)
    alignment = alignment_table(profiles[metric], control, against)
    if as_json:
        page = {
            "sweep": name,
            "control": control,
            "against": against,
            "metrics": metrics,
            "at": at,
            "conditions": table.to_dicts(),
            "alignment": findings_of(alignment).to_dicts(),
        }
        click.echo(json.dumps(page, indent=1))
    elif form is not None or output is not None:
        emit(with_alignment(table, alignment), form, output)
    else:
        unequal = unequal_rows(profiles[metric])
        warnings = [] if unequal is None else [unequal]
        text = persistence_text(
            name, table, control, against, metrics, terminal_width(), warnings, at
        )
        click.echo(text, nl=False)
        if not alignment.is_empty():
            click.echo(
                "\n" + alignment_text(alignment, control, against, terminal_width()), nl=False
            )
