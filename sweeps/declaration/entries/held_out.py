"""What a sweep file says of its evaluation, to the examples that runs are scored on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from sweeps.declaration.entries.sweep_spec import DataEntry, EvaluationEntry
from sweeps.declaration.sources import check_local, resolve_data
from sweeps.errors import UserError
from sweeps.rows.cells import Labels
from sweeps.rows.held_out import Part
from sweeps.rows.local_rows import label_role, require_one_numbering
from sweeps.rows.row_files import RowFile
from sweeps.spec import DataSource, Evaluation, FileData, Objective


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
    if entry is None:
        check_local(objective.data, objective.cells, labels, Part(said.fraction))
        return Evaluation(fraction=said.fraction, every=said.every, batches=said.batches)
    data = resolve_data(entry, objective.roles, folder)
    if data.identity() == objective.data.identity():
        raise UserError(
            "this is the very data that is trained on; give another split or file, or hold rows"
            " out with `fraction`"
        )
    check_local(data, objective.cells, _read_alike(labels, objective, data), Part(held_out=True))
    return Evaluation(data=data, every=said.every, batches=said.batches)


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


def _other_split(trained_on: DataEntry, split: str) -> DataEntry:
    """Return the whole of another split of a dataset, under the same columns."""
    said = {name: getattr(trained_on, name) for name in trained_on.model_fields_set}
    for part in ("limit", "shuffle_seed"):  # of the rows that are trained on
        said.pop(part, None)
    try:
        return DataEntry(**{**said, "split": split})
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"split: {message}") from None
