"""The text of a first sweep of one's own: models, data and an objective in, commented YAML out."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from sweeps.declaration.entries.sweep_spec import ModelEntry
from sweeps.declaration.sources import resolve_model
from sweeps.declaration.yaml_source import YamlSource
from sweeps.errors import UserError, closest
from sweeps.sources.ability import ability_of
from sweeps.sources.catalog import CATALOG
from sweeps.sources.hub_ids import HubId
from sweeps.spec import DATA_FORMS, OBJECTIVES, PRETRAINING_OBJECTIVES, STANDIN_FAMILIES, Probe

PRETRAINING = "pretraining"
# Tokens of a sequence, in training and on the probe, where every model reads as many.
LENGTH, PROBE_LENGTH = 128, int(Probe.model_fields["sequence_length"].default)
# Cells that are texts as a probe reads them.
PROBED = ("stream", "text", "prompt")
KINDS = (PRETRAINING, *(kind for kind in OBJECTIVES if kind not in PRETRAINING_OBJECTIVES))
TEXT = """\
# Where does {who} change when it is fine-tuned, and does that outlive equal steps?
#   depthsweep plan {file}      what would run, and what it needs; starts nothing
#   depthsweep run {file}       run it; again: what is left
#   depthsweep report {called}    one page with the answer
name: {name}

models:{models}

objectives:{objectives}

# Fixed tokens on which hidden states are compared before and after.
probe:
  data: {probe}{probe_length}
  every: 50             # steps; the last one always

defaults:
  steps: 200
  batch_size: 16
  sequence_length: {length}
  learning_rate: 2e-5   # the highest that the schedule reaches
  # warmup_steps: 20    # fewer than steps
  # precision: bf16     # on GPUs
  # eps: 1e-2           # large: steps as large as gradients, where a control has most to take away

blocks:
  - name: all
    grid:               # any setting can be a list: the block is their product
      model: [{names}]
      objective: [{objective}]
      control: [standard, equal_step]
      seed: [0, 1, 2]   # a verdict needs three; see depthsweep power
"""


def new_sweep(
    name: str,
    models: Sequence[str],
    data: str,
    objective: str,
    columns: Mapping[str, str],
    labels: int | None,
    probe: str | None,
    file: Path,
) -> str:
    """Return the text of a sweep file, to lie at ``file``, whose place decides how other files are
    named in it; raise UserError for a word that is no model, data or objective."""
    if objective not in KINDS:
        raise UserError(f"--objective {objective}: {closest(objective, KINDS)}")
    entries = dict(_model(model, file.parent) for model in models)
    pretraining = objective == PRETRAINING
    cells = _cells("clm" if pretraining else objective)
    roles = list(cells)
    if unknown := [role for role in columns if role not in roles]:
        raise UserError(f"--column {unknown[0]}=…: {closest(unknown[0], roles)}")
    source = _data(data, file.parent)
    own = {role: column for role, column in columns.items() if column != role}
    options = [f"labels: {labels}"] if labels is not None else []
    said = _flow(source | ({"columns": own} if own else {}))
    kinds = PRETRAINING_OBJECTIVES if pretraining else (objective,)
    probed = source if probe is None else _data(probe, file.parent)
    if probe is None:
        role = next((role for role, cell in cells.items() if cell in PROBED), None)
        if role is None:
            raise UserError(f"objective {objective} has no column of texts: give --probe FILE")
        text = columns.get(role, role)
        probed = source | ({"columns": {"text": text}} if text != "text" else {})
    listed = "".join(
        f"\n  {_word(key)}: {_flow(entry)}" if entry else f"\n  # {key}: in the catalogue"
        for key, entry in entries.items()
    )
    most = _positions(entries, file.parent)
    return TEXT.format(
        who=", ".join(entries) if len(entries) < 4 else f"each of {len(entries)} models",
        file=shlex.quote(file.name),
        name=_word(name),
        called=shlex.quote(name),
        models=listed if any(entries.values()) else " {}" + listed,
        objectives="".join(
            f"\n  {kind}: {{{', '.join([*options, f'data: {said}'])}}}" for kind in kinds
        ),
        probe=_flow(probed),
        probe_length=f"\n  sequence_length: {most}" if most < PROBE_LENGTH else "",
        length=min(LENGTH, most),
        names=", ".join(map(_word, entries)),
        objective=objective,
    )


def _positions(entries: Mapping[str, dict[str, object]], folder: Path) -> int:
    """Return how many tokens each of the models reads, LENGTH where none is known to read fewer.
    What is wrong with a model is said where the whole sweep is read."""
    most = LENGTH
    for name, entry in entries.items():
        known = {name: ModelEntry.model_validate(entry)} if entry else {}
        with contextlib.suppress(UserError):
            most = min(most, ability_of(resolve_model(name, known, folder)).positions or most)
    return most


def _cells(kind: str) -> dict[str, str]:
    """Return what each cell of a row is, by role, of all forms that the rows of a kind may have."""
    return {role: cell for form in DATA_FORMS[kind] for role, cell in form.cells.items()}


def _model(said: str, folder: Path) -> tuple[str, dict[str, object]]:
    """Return the name and the entry of a model; the catalogue's need none."""
    if said in CATALOG:
        return said, {}
    family = said.removeprefix("standin:")
    if family != said and family in STANDIN_FAMILIES:
        return f"tiny-{family.replace('_', '-')}", {"standin": family}
    found = HubId.of(said)
    if found is not None and found.is_pinned and found.config is None:
        return _name(found.hub), {"hub": found.hub, "revision": found.revision}
    if Path(said).is_dir():
        return _name(Path(said).resolve().name), {"folder": _seen_from(said, folder)}
    known = [*CATALOG, *(f"standin:{one}" for one in STANDIN_FAMILIES)]
    raise UserError(
        f"--model {said}: no folder here, no model of the catalogue, no org/name@COMMIT (40 hex"
        f" digits) of the hub; {closest(said, known)}"
    )


def _data(said: str, folder: Path) -> dict[str, object]:
    if said.startswith("builtin:"):
        return {"builtin": said.removeprefix("builtin:")}
    found = HubId.of(said)
    if found is not None and found.is_pinned:
        return {name: value for name, value in asdict(found).items() if value is not None}
    if not Path(said).exists():
        raise UserError(
            f"--data {said}: no file or folder here, no org/name@COMMIT[:CONFIG] of the hub, no"
            " builtin:python-docs"
        )
    return {"file": _seen_from(said, folder)}


def _seen_from(path: str, folder: Path) -> str:
    """Return a path as a sweep file in ``folder`` names it."""
    place, start = Path(path).resolve(), folder.resolve()
    return f"./{place.relative_to(start)}" if place.is_relative_to(start) else str(place)


def _name(said: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", said.split("/")[-1]).strip("-._") or "model"


def _flow(entry: Mapping[str, object]) -> str:
    """Return a mapping as YAML on one line."""
    words = (
        f"{key}: {_flow(value) if isinstance(value, Mapping) else _word(str(value))}"
        for key, value in entry.items()
    )
    return "{" + ", ".join(words) + "}"


def _word(text: str) -> str:
    """Return a string as YAML, as it is where a sweep file reads that as the same string: `true`
    and `1e3` would be something else, and so would what has a comma or a bracket."""
    if re.fullmatch(r"[\w./][\w./@+-]*", text):
        with contextlib.suppress(UserError):
            if YamlSource.parse(f"[{text}]", "").value() == [text]:
                return text
    return json.dumps(text, ensure_ascii=False)
