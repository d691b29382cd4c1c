"""Which roles a dataset has for an objective: those it must have, and those it may."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweeps.declaration.entries.sweep_spec import DataEntry
from sweeps.declaration.sources import columns_at_hand
from sweeps.errors import UserError, closest
from sweeps.spec import Cell, Form


def read_roles(
    entry: DataEntry, forms: Sequence[Form], folder: Path
) -> tuple[tuple[str, ...], dict[str, Cell]]:
    """Return the roles that are read of a dataset, in the order of its form, and their cells.

    An optional role is read where ``columns`` names it, or where the data is at hand and has a
    column that is called so, but for one that ``columns`` says is null. Of several forms it is the
    one that ``columns`` and the data have; of data that is not at hand and is not said to be
    otherwise, the first. Raises UserError for a role that no form has, roles of two forms, or data
    that has the columns of two.
    """
    known = list(dict.fromkeys(role for form in forms for role in form.cells))
    unknown = [role for role in entry.columns if role not in known]
    if unknown:
        raise UserError(f"columns: unknown role {unknown[0]!r}; {closest(unknown[0], known)}")
    named = {role for role, column in entry.columns.items() if column}
    left_out = set(entry.columns) - named
    possible = [
        form for form in forms if named <= set(form.cells) and not left_out & set(form.roles)
    ]
    if not possible:
        if left_out:
            raise UserError(f"columns: {', '.join(sorted(left_out))} cannot be left out")
        raise UserError(
            f"columns: {', '.join(entry.columns)} are not of one form; rows have"
            f" {' or '.join(' and '.join(form.roles) for form in forms)}"
        )
    present = columns_at_hand(entry, folder)
    if len(possible) > 1 and present is not None:
        there = [form for form in possible if _has(entry, form, present)]
        if len(there) > 1:
            raise UserError(
                f"the data has {' and '.join(' with '.join(form.roles) for form in there)}; say"
                f" which is read, as by `columns: {{{next(iter(there[0].roles))}: ...}}`"
            )
        possible = there or possible
    form = possible[0]
    roles = [
        role
        for role in form.cells
        if role in form.roles or role in named or (role in (present or ()) and role not in left_out)
    ]
    return tuple(roles), {role: form.cells[role] for role in roles}


def _has(entry: DataEntry, form: Form, present: Sequence[str]) -> bool:
    return all((entry.columns.get(role) or role) in present for role in form.roles)
