"""A sweep file of one block that lists a user's own code, for tests that read one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeps.declaration.expand import Sweep, read_sweep
from sweeps.plugins.catalogue import read_plugins
from sweeps.plugins.entries import rule_of
from sweeps.plugins.opened import remember
from sweeps.spec import Optimizer

EXAMPLES = Path(__file__).resolve().parent / "own_code"
SWEEP = """
name: own
plugins: {plugins}
models:
  a: {{standin: opt, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 5}}
objectives:
  clm: {{data: {{builtin: python-source}}}}
  {objective}
probe: {{data: {{builtin: python-docs}}, rows: 32, sequence_length: 16, metrics: {metrics}}}
measurements: []
defaults: {{steps: 4, batch_size: 4, sequence_length: 16, learning_rate: 1e-3, {more}}}
blocks:
  - name: all
    grid: {{model: [a], objective: [{trained}], control: [{control}], seed: [3]}}
"""


def own_sweep(
    folder: Path,
    *plugins: Path | str,
    control: str = "standard",
    metrics: str = "[]",
    objective: str = "",
    more: str = "",
) -> Path:
    """Write a sweep file that lists plugins; return its path. ``more`` are settings of its run."""
    path = folder / "own.yaml"
    trained = objective.partition(":")[0] or "clm"
    listed = "[" + ", ".join(map(str, plugins)) + "]"
    text = SWEEP.format(
        plugins=listed,
        control=control,
        metrics=metrics,
        objective=objective,
        trained=trained,
        more=more,
    )
    path.write_text(text, encoding="utf-8")
    return path


def the_run(folder: Path, *plugins: Path | str, **said: str):
    """Return the one run of such a sweep."""
    return read(folder, *plugins, **said).runs[0]


def read(folder: Path, *plugins: Path | str, **said: str) -> Sweep:
    return read_sweep(own_sweep(folder, *plugins, **said))


def own_optimizer(name: str, options: dict[str, Any], **said: float) -> Optimizer:
    """Return an optimizer of the examples as a run has it, its code at hand."""
    plugins = read_plugins([EXAMPLES / f"{name}.py"])
    remember(plugins.bundles)
    plugin = plugins.require("optimizer", name, ())
    own = rule_of(plugin, plugin.mark.checked(options))
    return Optimizer(rule=name, own=own, **said)
