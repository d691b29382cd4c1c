"""What is said of a dataset of the hub that cannot be read, or has not the columns that are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from sweeps.errors import UserError
from sweeps.spec import HubData
from workers.models.hub import HubUnavailable


@contextmanager
def said_of_loading(data: HubData) -> Iterator[None]:
    """Surround what loads a dataset; what cannot be read is a UserError of one line."""
    import datasets

    try:
        yield
    except HubUnavailable:
        raise
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        # What datasets says is often no more than that something went wrong; the cause says what.
        detail = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"dataset {data.label}: cannot be loaded: {detail}") from error


def require_columns(data: HubData, columns: Mapping[str, str], there: Iterable[str]) -> None:
    """Raise UserError where a dataset that has the columns ``there`` lacks that of a role."""
    for role, column in columns.items():
        if column not in there:
            raise UserError(
                f"dataset {data.label} has no column {column!r} (the {role}); it has"
                f" {', '.join(there)}. Name it with `columns: {{{role}: ...}}`"
            )
