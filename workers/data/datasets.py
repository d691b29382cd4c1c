"""Datasets to token arrays, and batches of them by (seed, step)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.errors import UserError
from sweeps.sources.content import held_to_its_digest
from sweeps.sources.corpora import corpus_rows
from sweeps.sources.local_rows import Rows, checked, read_rows
from sweeps.spec import BuiltinData, DataSource, FileData, HubData
from workers.models.hub import HubUnavailable, dataset_columns

Arrays = dict[str, NDArray[Any]]
TOKENISE_BATCH = 1000


def load_rows(data: DataSource, roles: tuple[str, ...]) -> dict[str, list[Any]]:
    """Return the columns of a dataset under their roles: texts as ``str``, labels as ``int``.

    Raises UserError when it cannot be loaded, is not what the run was declared with, lacks a
    column, or has a cell that is no text or no label.
    """
    columns = columns_of(data, roles)
    with held_to_its_digest(data, f"dataset {data.label}"):
        if isinstance(data, BuiltinData):
            rows = corpus_rows(data.builtin)
            return {role: [row[role] for row in rows] for role in roles}
        if isinstance(data, FileData):
            return checked(read_rows(Path(data.file), columns))
        return checked(Rows(f"dataset {data.label}", columns, _hub_cells(data, columns)))


def columns_of(data: DataSource, roles: tuple[str, ...]) -> dict[str, str]:
    """Return the column of each role."""
    return {role: data.columns.get(role, role) for role in roles}


def hub_table(data: HubData, columns: dict[str, str]) -> Any:
    """Return the columns of a dataset of the hub, by role, from this node's disk, downloading what
    is missing. Raises UserError where it cannot be loaded or lacks one."""
    import datasets

    datasets.disable_progress_bars()
    try:
        table = dataset_columns(data, list(columns.values()))
    except HubUnavailable:
        raise
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        # What datasets says is often no more than that something went wrong; the cause says what.
        detail = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"dataset {data.label}: cannot be loaded: {detail}") from error
    for role, column in columns.items():
        if column not in table.column_names:
            raise UserError(
                f"dataset {data.label} has no column {column!r} (the {role}); it has"
                f" {', '.join(table.column_names)}. Name it with `columns: {{{role}: ...}}`"
            )
    return table


def _hub_cells(data: HubData, columns: dict[str, str]) -> dict[str, list[Any]]:
    table = hub_table(data, columns)
    return {role: list(table[column]) for role, column in columns.items()}


def pack(tokenizer: Any, texts: Iterable[str], length: int, *, framed: bool) -> Arrays:
    """Return ``input_ids`` (N, length) int32: all texts in one stream, cut without padding.

    Texts are separated by the tokenizer's end token. ``framed`` gives each row the begin and end
    tokens that encoders were pretrained with. Raises UserError when there is not one full row.
    """
    stream: list[int] = []
    separator = tokenizer.eos_token_id
    if separator is None:
        separator = tokenizer.sep_token_id
    for text, ids in zip(texts, _tokenise(tokenizer, texts), strict=True):
        if text.strip():
            stream += ids
            if separator is not None:
                stream.append(separator)
    frame = framed and tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None
    inner = length - 2 if frame else length
    rows = len(stream) // inner
    if rows == 0:
        raise UserError(
            f"the dataset has {len(stream)} tokens, less than one sequence of {length}; lower"
            " sequence_length or give more text"
        )
    packed = np.asarray(stream[: rows * inner], dtype=np.int32).reshape(rows, inner)
    _require_words(tokenizer, packed)
    if frame:
        begin = np.full((rows, 1), tokenizer.cls_token_id, dtype=np.int32)
        end = np.full((rows, 1), tokenizer.sep_token_id, dtype=np.int32)
        packed = np.concatenate([begin, packed, end], axis=1)
    return {"input_ids": packed}


def pad(tokenizer: Any, texts: list[str], length: int, prefix: str = "") -> Arrays:
    """Return ``input_ids`` and ``attention_mask``, both (N, length) int32, one row a text.

    Longer texts are cut, shorter ones padded on the right.
    """
    filler = tokenizer.pad_token_id
    if filler is None:
        filler = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
    ids = np.full((len(texts), length), filler, dtype=np.int32)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(_tokenise(tokenizer, texts, framed=True, length=length)):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    empty = np.flatnonzero(mask.sum(axis=1) == 0)
    if empty.size:
        raise UserError(f"row {int(empty[0])} of the dataset has no token; remove empty texts")
    _require_words(tokenizer, ids[mask == 1])
    return {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}


def _require_words(tokenizer: Any, ids: NDArray[np.int32]) -> None:
    """Raise UserError where a tokenizer knows no word at all of a dataset."""
    empty = [*tokenizer.all_special_ids, tokenizer.unk_token_id]
    if np.isin(ids, [token for token in empty if token is not None]).all():
        raise UserError(
            "the tokenizer knows no word of the dataset: every token is"
            f" {tokenizer.unk_token or 'a special one'}. Is it the right column, and the model's"
            " own tokenizer?"
        )


def _tokenise(
    tokenizer: Any, texts: Iterable[str], *, framed: bool = False, length: int | None = None
) -> Iterable[list[int]]:
    texts = list(texts)
    for start in range(0, len(texts), TOKENISE_BATCH):
        encoded = tokenizer(
            texts[start : start + TOKENISE_BATCH],
            add_special_tokens=framed,
            truncation=length is not None,
            max_length=length,
            return_attention_mask=False,
            verbose=False,
        )
        yield from encoded["input_ids"]


def batch_indices(seed: int, step: int, batch_size: int, examples: int) -> NDArray[np.int64]:
    """Return the examples of ``step`` (1, 2, …): a pure function of its arguments.

    Steps walk through one seeded permutation of all examples after another, without gaps.
    """
    positions = np.arange((step - 1) * batch_size, step * batch_size)
    epochs, offsets = np.divmod(positions, examples)
    chosen = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        permutation = np.random.default_rng([seed, int(epoch)]).permutation(examples)
        chosen[here] = permutation[offsets[here]]
    return chosen
