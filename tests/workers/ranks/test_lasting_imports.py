"""What is imported for good is left out of what the collector looks through."""

import gc
import subprocess
import sys

from workers.ranks.lasting_imports import lasting_imports

# How often the whole heap is looked through while a large library is imported, and how much of it
# is looked through afterwards.
IMPORTS = """
import gc
from workers.ranks.lasting_imports import lasting_imports
rounds = []
gc.callbacks.append(lambda phase, info: phase == "start" and rounds.append(info["generation"]))
with lasting_imports():
    import polars
print(len(rounds), gc.isenabled(), len(gc.get_objects()) < gc.get_freeze_count() / 10)
"""


def test_what_is_imported_is_not_looked_through_then_or_later():
    found = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert found.stdout.split() == ["0", "True", "True"], found.stderr


def test_the_collector_is_there_again_where_an_import_fails():
    try:
        with lasting_imports():
            assert not gc.isenabled()
            raise ImportError
    except ImportError:
        assert gc.isenabled()
