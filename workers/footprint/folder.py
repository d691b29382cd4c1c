"""Whether a run's model folder can be loaded and its probe's text is long enough: asked by a plan,
of files alone, before anything starts."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sweeps.spec import FileData, FolderModel, RunSpec
from workers.footprint.trace import size
from workers.loading import require_loadable
from workers.objectives.registry import build_objective
from workers.probes.rows import choose_rows

# A longer text is enough for any model's rows, and would take its time to tokenise.
SHORT_TEXT = 4 * 1024**2


def require_usable(run: RunSpec) -> None:
    """Raise UserError where the folder of a run's model cannot be loaded, as far as that is seen
    without reading a weight, or gives too few rows of a probe's text that lies here.

    Stand-ins and models of the hub may have no tokenizer here yet; their runs ask it themselves.
    """
    if not isinstance(run.model.source, FolderModel):
        return
    tokenizer = require_loadable(run.model, needs_head=build_objective(run.objective).needs_head)
    data = run.probe.data
    if isinstance(data, FileData) and sum(p.stat().st_size for p in data.paths) <= SHORT_TEXT:
        with tempfile.TemporaryDirectory() as cache:
            choose_rows(run.probe, size(run)["width"], tokenizer, Path(cache))
