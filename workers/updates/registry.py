"""From the optimizer a specification names to its rule."""

from __future__ import annotations

from sweeps import spec
from sweeps.plugins.opened import opened
from workers.updates.adafactor import Adafactor
from workers.updates.adamw import AdamW
from workers.updates.lion import Lion
from workers.updates.muon import Muon
from workers.updates.sgd import Sgd
from workers.updates.update_rule import UpdateRule

RULES: dict[str, type[UpdateRule]] = {
    "adamw": AdamW,
    "sgd": Sgd,
    "lion": Lion,
    "adafactor": Adafactor,
    "muon": Muon,
}


def build_rule(optimizer: spec.Optimizer) -> UpdateRule:
    """Return the rule a run's specification names; a user's own has been opened."""
    if optimizer.own is not None:
        mark = opened(optimizer.own.code, "optimizer", optimizer.rule)
        built: UpdateRule = mark.build(optimizer, options=optimizer.own.options)
        return built
    return RULES[optimizer.rule](optimizer)
