"""``make bench``: every benchmark that finishes in minutes on two cores, one after another.

The first writes ``recorded/measured.json``, which pages print, and shows what is slower than the
committed one.
"""

import subprocess
import sys

BENCHMARKS = (
    *("recorded --measure", "similarity", "step_overhead", "scheduling.scheduler"),
    *("scheduling.makespan", "scheduling.driver", "analysis", "ledger", "error_rates"),
    "selecting",
)


def main() -> int:
    codes = []
    for name in BENCHMARKS:
        print(f"\n== {name}", flush=True)
        module, *options = name.split()
        command = [sys.executable, "-m", f"tests.benchmarks.{module}", *options]
        codes.append(subprocess.run(command).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
