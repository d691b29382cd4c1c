"""What a run needs of the hub, on this node's disk before its ranks meet.

A rank that waits for another in a collective gives up after a quarter of an hour; the hub's
patience, and a large model's download, may take longer.
"""

from __future__ import annotations

from sweeps.spec import HubData, HubModel, RunSpec
from workers.data.datasets import columns_of, hub_table
from workers.models.hub import downloaded
from workers.objectives.registry import build_objective
from workers.probes.rows import ROLES


def fetch(run: RunSpec) -> None:
    """Download the model and the datasets of a run that are the hub's; no collective.

    Processes of a node do it once. Raises UserError for what is not there.
    """
    if isinstance(run.model.source, HubModel):
        downloaded(run.model.name, run.model.source)
    objective = build_objective(run.objective)
    for data, roles in ((run.objective.data, objective.roles), (run.probe.data, ROLES)):
        if isinstance(data, HubData):
            hub_table(data, columns_of(data, roles))
