"""What each run of a sweep is called in a tracker, and the id by which it is found again there."""

from __future__ import annotations

import secrets

from orchestrator.tracking.tracker import RunCard
from sweeps.declaration.expand import Sweep
from sweeps.declaration.settings import HEADS, SEED, run_labels, settings_of
from sweeps.files.records import create
from sweeps.files.whole_files import read_json
from sweeps.store.store import Store


def run_cards(sweep: Sweep, store: Store) -> dict[str, RunCard]:
    """Return a card for each run of a sweep, by run id."""
    identity = sweep_identity(store, sweep.name)
    labels = run_labels(sweep.runs)
    cards = {}
    for run in sweep.runs:
        values = {one.name: one.value(run) for one in settings_of(type(run))}
        parameters = {name: value for name, value in values.items() if value is not None}
        cards[run.run_id] = RunCard(
            run.run_id,
            f"{run.run_id}-{identity}",
            f"{run.run_id} {labels[run.run_id]}",
            sweep.name,
            sweep.description,
            {name: str(values[name]) for name in (*HEADS, SEED)},
            parameters,
        )
    return cards


def sweep_identity(store: Store, name: str) -> str:
    """Return what tells this sweep in this store from one of the same name in another.

    Drawn once and kept beside the sweep, so that it stays when the store is moved or copied: a
    path or URL would make every run a new one. A run that two sweeps share is shown in each.
    """
    path = store.sweep_folder(name) / "tracking.json"
    if not path.is_file():
        create(path, {"identity": secrets.token_hex(4)})
    return str(read_json(path)["identity"])
