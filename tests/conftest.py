"""Settings of all tests."""

from hypothesis import settings

# Time is not asserted on: these machines are shared.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
