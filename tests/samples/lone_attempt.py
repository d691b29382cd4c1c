"""The attempt of a test that writes a run by itself, and that nobody else ever takes up."""


class LoneAttempt:
    """Stands for ``sweeps.store.attempt.Attempt`` where nothing is claimed."""

    label = "a1-00000000"

    def require_ownership(self):
        """It is always the owner."""

    require_not_superseded = require_ownership

    def superseded(self):
        return AssertionError("nobody else is there")
