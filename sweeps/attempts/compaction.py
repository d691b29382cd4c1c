"""One part a table out of many: what a run leaves behind when it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweeps.files.whole_files import file_checksum, local_file
from sweeps.store.run_folder import RunFolder
from sweeps.store.schema import TABLES

# Parts are put together until they have so many rows: what a reader skips or reads at once.
ROWS_OF_A_GROUP = 100_000


def names_of(folder: RunFolder, table: str, parts: Mapping[str, Any]) -> list[str]:
    """Return the names of a table's parts, in order of steps."""
    names = [name for name in parts if name.startswith(f"{table}/")]
    return sorted(names, key=lambda name: folder.last_step_of(folder.path / name))


def compact(
    folder: RunFolder,
    table: str,
    parts: Mapping[str, Mapping[str, Any]],
    whole: AbstractContextManager[Path],
) -> dict[str, Any]:
    """Write the rows of a table's ``parts`` (accounts by name) into the file that ``whole`` makes,
    in order of steps; return its account. Raises RuntimeError for a part that was harmed."""
    with whole as temporary:
        rows = 0
        with pq.ParquetWriter(temporary, TABLES[table], compression="zstd") as file:
            for group in _row_groups(folder, names_of(folder, table, parts), parts):
                file.write_table(group)
                rows += group.num_rows
        return {**account(temporary), "rows": rows}


def account(path: Path) -> dict[str, Any]:
    """Return the size in bytes and the SHA-256 of a local file."""
    return {"bytes": path.stat().st_size, "sha256": file_checksum(path)}


def _row_groups(
    folder: RunFolder, names: list[str], parts: Mapping[str, Mapping[str, Any]]
) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for name in names:
        path, table = folder.path / name, name.split("/")[0]
        with local_file(path) as file:
            # Once it is part of another file, nobody could tell that it was harmed.
            if file_checksum(file) != parts[name]["sha256"]:
                raise RuntimeError(f"{path} does not match its checksum")
            held.append(_with_all_columns(pq.read_table(file, partitioning=None), TABLES[table]))
        if sum(rows.num_rows for rows in held) >= ROWS_OF_A_GROUP:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _with_all_columns(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows under a schema; a column that was added since they were written is null."""
    columns = [
        rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
