"""The objective distance as a store keeps it: one small file per model, objective and probe.

Definition ("Profile"): 1 − mean over blocks of the cosine between the gradient of the pretraining
objective and that of the fine-tuning objective, at initialisation. It needs no training, so it does
not belong to a run: control, seed, steps and optimizer do not enter its key, and every run of the
same model, objective and probe shares one measurement.

    cache/objective_distance/<key>.json
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sweeps.files.whole_files import Place, read_if_readable, write_json
from sweeps.spec import RunSpec, content_id
from sweeps.store.store import Store

# Raise it with every change of how the distance is measured: what was measured before is then not
# taken for it.
DISTANCE_VERSION = 1


def distance_key(spec: RunSpec) -> str:
    """Return the content key of a run's objective distance."""
    return content_id(
        {
            "version": DISTANCE_VERSION,
            "model": spec.model.source.identity(),
            "pretraining": spec.model.source.pretraining,
            "objective": spec.objective.identity(),
            "probe": {
                name: value for name, value in spec.probe.identity().items() if name != "every"
            },
            "batch_size": spec.batch_size,
            "sequence_length": spec.sequence_length,
        },
        length=24,
    )


def distance_path(store: Store, key: str) -> Place:
    """Return where a distance is kept: with the results, whatever kind of store they are in."""
    return store.root / "cache" / "objective_distance" / f"{key}.json"


def record_distance(
    store: Store, spec: RunSpec, cosines: Sequence[float], **provenance: Any
) -> float:
    """Write one measurement and return the distance.

    Args:
        cosines: cosine between the two gradients of each block 1..L, in [−1, 1]; a single 1 where
            the fine-tuning objective is the pretraining objective.
        provenance: further plain data to keep beside it, such as versions.
    """
    distance = 1.0 - sum(cosines) / len(cosines)
    write_json(
        distance_path(store, distance_key(spec)),
        {
            "objective_distance": distance,
            "cosines": list(cosines),
            "model": spec.model.source.identity(),
            "objective": spec.objective.identity(),
            **provenance,
        },
    )
    return distance


def recorded_distance(store: Store, key: str) -> float | None:
    """Return the distance of a key, or None where none was measured."""
    record = read_if_readable(distance_path(store, key))
    return None if record is None else float(record["objective_distance"])
