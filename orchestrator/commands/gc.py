"""``depthsweep gc``: remove what no record of a store lists any more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from orchestrator.display.output import counted_aloud, wrapped
from sweeps.files.patience import remedy
from sweeps.store.store import Store
from sweeps.upkeep.leftovers import leftovers
from sweeps.upkeep.rubbish import Rubbish, rubbish_of_runs, strays, told
from sweeps.upkeep.sizes import said


@click.command("gc")
@click.option("--store", "location", default="./store", show_default=True, help="Results folder.")
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@click.option(
    "--cache",
    "cache_days",
    type=click.FloatRange(min=1),
    metavar="DAYS",
    help="Also what is cached and was not used for so many days.",
)
@click.option("--strays", "with_strays", is_flag=True, help="Also runs of no version of a sweep.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for programs.")
def command(
    location: str, dry_run: bool, cache_days: float | None, with_strays: bool, as_json: bool
) -> int:
    """Remove what no record lists: parts and checkpoints that ended runs do not need, what killed
    processes left behind, stale copies of stores and scratch on this node.

    A run that is going on keeps all it has; each is looked at again right before a removal. What is
    cached is made again when it is needed. 1 if something could not be removed.
    """
    store = Store.at(location)
    store.require_there()
    found = [*rubbish_of_runs(store), *leftovers(store, cache_days)]
    if with_strays:
        whole = strays(store)
        ids = {item.where for item in whole}
        found = [item for item in found if item.where.split("/")[0] not in ids] + whole
    done = _Done(found) if dry_run else _removed(found)
    if as_json:
        click.echo(json.dumps(done.page(dry_run), indent=1))
    else:
        click.echo("\n".join(done.lines(dry_run)))
    return 1 if done.refused else 0


@dataclass
class _Done:
    """What went, what is in use by now, and what this user may not remove, with the reason."""

    gone: list[Rubbish]
    kept: list[Rubbish] = field(default_factory=list)
    refused: dict[str, OSError] = field(default_factory=dict)

    def page(self, dry_run: bool) -> dict[str, Any]:
        items = [{"what": i.what, "where": i.where, "bytes": i.bytes} for i in self.gone]
        return {
            "dry_run": dry_run,
            "removed": items,
            "bytes": sum(item.bytes for item in self.gone),
            "in_use": [item.where for item in self.kept],
            "refused": {where: _reason(error) for where, error in self.refused.items()},
        }

    def lines(self, dry_run: bool) -> list[str]:
        freed = sum(item.bytes for item in self.gone)
        lines = [f"{what}: {n:,}, {said(size)}" for what, (n, size) in told(self.gone).items()]
        word = "would be freed" if dry_run else "freed"
        if self.gone:
            lines.append(f"{said(freed)} {word}")
        elif not (self.kept or self.refused):
            lines.append("nothing to remove")
        if self.kept:
            lines += wrapped(f"{len(self.kept)} left alone: they came into use meanwhile")
        if self.refused:
            where, error = next(iter(self.refused.items()))
            advice = remedy(error, "ask who owns them, or the administrator of the store")
            why = f"({where}: {_reason(error)}); {advice}"
            lines += wrapped(f"{len(self.refused)} could not be removed {why}")
        return lines


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _removed(found: Sequence[Rubbish]) -> _Done:
    done = _Done([])
    for item in counted_aloud(found, "looked at", len(found)):
        try:
            (done.gone if item.remove() else done.kept).append(item)
        except OSError as error:
            done.refused[item.where] = error
    return done
