"""How a rank process ends."""

import subprocess
import sys

LEAVES_A_THREAD = """
import threading
from workers.ranks.rank_process import end_process

threading.Thread(target=threading.Event().wait).start()
print("done", end="")
end_process(3)
"""


def test_a_process_ends_with_its_code_and_its_output_whatever_threads_are_left():
    ended = subprocess.run(
        [sys.executable, "-c", LEAVES_A_THREAD], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (3, "done")
