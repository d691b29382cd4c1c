"""What a user did wrong, as opposed to what went wrong."""


class UserError(Exception):
    """A mistake the user can mend: one line that says what, where and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class Impossible(UserError):
    """What a model or its data, as declared, cannot do, however often it is asked."""


# Choices that an error names one by one: as many as there are commands, and tables' columns.
LISTED = 40


def nearest(name: str, valid: list[str] | tuple[str, ...]) -> str | None:
    """Return the valid choice that a name is most like; None where it is like none."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, valid, n=1, cutoff=0.5)), None)


def closest(name: str, valid: list[str] | tuple[str, ...]) -> str:
    """Return a hint naming the valid choice nearest to ``name``, or when none is near all, of many
    the first and how many more there are."""
    near = nearest(name, valid)
    if near is not None:
        return f"did you mean {near!r}?"
    listed = sorted(valid)
    more = len(listed) - LISTED
    return f"valid: {', '.join(listed[:LISTED])}" + f" and {more} more" * (more > 0)
