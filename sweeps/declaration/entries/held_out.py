"""What a sweep file says of its evaluation, to the examples that runs are scored on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from sweeps.declaration.entries.prompts import refusal_of
from sweeps.declaration.entries.sweep_spec import DataEntry, EvaluationEntry
from sweeps.declaration.sources import check_local, resolve_data
from sweeps.errors import UserError
from sweeps.rows.cells import Labels
from sweeps.rows.held_out import Part
from sweeps.rows.local_rows import label_role, require_one_numbering
from sweeps.rows.row_files import RowFile
from sweeps.sources.content import sha256_of
from sweeps.spec import BuiltinData, DataSource, Evaluation, FileData, HubData, Objective


def held_out(
    said: EvaluationEntry | None, trained_on: DataEntry, objective: Objective, folder: Path
) -> Evaluation | None:
    """Return the evaluation of an objective whose own data is ``trained_on``; None where none is
    said.

    Raises UserError for data that cannot be used, cells that the objective cannot read, and a
    fraction that leaves nothing on one side.
    """
    if said is None:
        return None
    entry = said.data if said.split is None else _other_split(trained_on, said.split)
    labels = Labels(objective.labels, objective.label_names)
    refusal = refusal_of(said.refusal, folder)
    if entry is None:
        check_local(objective.data, objective.cells, labels, Part(said.fraction))
        return Evaluation(
            fraction=said.fraction, every=said.every, batches=said.batches, refusal=refusal
        )
    data = resolve_data(entry, objective.roles, folder)
    _require_other_rows(data, objective.data)
    check_local(data, objective.cells, _read_alike(labels, objective, data), Part(held_out=True))
    return Evaluation(data=data, every=said.every, batches=said.batches, refusal=refusal)


def _require_other_rows(data: DataSource, trained: DataSource) -> None:
    """Raise UserError where held-out data may have rows that are trained on: a file of the same
    content, the same corpus, or the same split on the hub, whichever part is read of either."""
    shared: str | None = None
    if isinstance(data, FileData) and isinstance(trained, FileData):
        known = {sha256_of(path) for path in trained.paths}
        shared = next((path.name for path in data.paths if sha256_of(path) in known), None)
    elif isinstance(data, BuiltinData) and isinstance(trained, BuiltinData):
        shared = data.builtin if data.builtin == trained.builtin else None
    elif isinstance(data, HubData) and isinstance(trained, HubData):
        same = [(one.hub, one.config, one.revision) for one in (data, trained)]
        if same[0] == same[1] and _overlap(data.split, trained.split):
            shared = f"split {data.split}"
    if shared is not None:
        raise UserError(
            f"{shared} is the very data that is trained on, whatever part or columns are read; give"
            " another split or file, or hold rows out with `fraction`"
        )


def _overlap(one: str, other: str) -> bool:
    """Return whether two splits share rows for sure: ``a+b`` is both, ``a[:10%]`` a part of a."""
    parts = [split.replace(" ", "").split("+") for split in (one, other)]
    bases = [[part.partition("[")[0] for part in each] for each in parts]
    return any(
        set(mine) & set(others)
        for mine, others in (parts, (parts[0], bases[1]), (bases[0], parts[1]))
    )


def _read_alike(labels: Labels, objective: Objective, data: DataSource) -> Labels:
    """Return how the labels of held-out rows are read: as those that are trained on are.

    Raises UserError where numbers would stand for something else in the one than in the other.
    """
    role, trained = label_role(objective.cells), objective.data
    if role is None or not isinstance(trained, FileData):
        return labels
    files = [(RowFile.at(path), trained.columns[role]) for path in trained.paths]
    if labels.names:
        return replace(labels, numbered=not _in_words(*files[0]))
    if isinstance(data, FileData):
        files += [(RowFile.at(path), data.columns[role]) for path in data.paths]
        require_one_numbering(files)
    return labels


def _in_words(file: RowFile, column: str) -> bool:
    """Return whether the first label of a file is a text."""
    cells = (cell for _, cell in file.stream(column))
    listed = (cell if isinstance(cell, list) else [cell] for cell in cells)
    return isinstance(next((one for labels in listed for one in labels), None), str)


def held_out_rows(objective: Objective, evaluation: Evaluation) -> int | None:
    """Return how many rows are held out; None of data that is not at hand or too large to read."""
    part = Part(evaluation.fraction, held_out=True)
    found = check_local(evaluation.data or objective.data, objective.cells, part=part)
    return len(next(iter(found.values()))) if found else None


def trained_rows(objective: Objective, evaluation: Evaluation | None) -> int | None:
    """Return how many rows are trained on; None as of ``held_out_rows``."""
    part = Part(evaluation.fraction if evaluation is not None else None)
    found = check_local(objective.data, objective.cells, part=part)
    return len(next(iter(found.values()))) if found else None


def _other_split(trained_on: DataEntry, split: str) -> DataEntry:
    """Return the whole of another split of a dataset, under the same columns."""
    if trained_on.stream:
        raise UserError(
            f"split: {split} of a dataset that is streamed would be read whole; give `data` of its"
            " own with a `limit`, or a `fraction`"
        )
    said = {name: getattr(trained_on, name) for name in trained_on.model_fields_set}
    for part in ("limit", "shuffle_seed"):  # of the rows that are trained on
        said.pop(part, None)
    try:
        return DataEntry(**{**said, "split": split})
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"split: {message}") from None
