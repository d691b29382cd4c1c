"""``make bench``: every benchmark that finishes in minutes on two cores, one after another."""

import subprocess
import sys

BENCHMARKS = (
    *("similarity", "step_overhead", "scheduling.scheduler", "scheduling.makespan"),
    *("scheduling.driver", "analysis", "ledger", "error_rates", "selecting"),
)


def main() -> int:
    codes = []
    for name in BENCHMARKS:
        print(f"\n== {name}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"]).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
