"""Measure what is recorded, or print what was.

    python -m tests.benchmarks.recorded            # print the committed file
    python -m tests.benchmarks.recorded --measure  # minutes: measure, show what is slower, write it

``--threads`` lists how many are tried; ``--short`` leaves out the largest size of each; ``--small``
takes seconds and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from tests.benchmarks.recorded import optimizer_step
from tests.benchmarks.recorded.figures import (
    FILE,
    Figure,
    machine,
    read,
    regressions,
    table,
    write,
)


def measured(threads: list[int], small: bool, short: bool) -> Iterator[Figure]:
    """Yield every figure, one after another in this process."""
    # Not needed to print: it imports scipy, which few have who only read.
    from tests.benchmarks import similarity

    layers = list(similarity.SMALL if small else similarity.SHAPES)
    sizes = dict(optimizer_step.SMALL if small else optimizer_step.SHAPES)
    if short:
        layers.pop()
        sizes.popitem()
    for count in threads:
        yield from similarity.figures(count, layers)
        yield from optimizer_step.figures(count, sizes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    before, where = read(FILE)
    if not arguments.measure and not arguments.small:
        if not before:
            print(f"{FILE.name}: nothing is recorded; make bench measures it", file=sys.stderr)
            return 1
        print(table(before, where))
        return 0
    here = machine()
    figures = []
    for figure in measured(arguments.threads, arguments.small, arguments.short):
        figures.append(figure)
        print(f"{figure.what}, {figure.size}: {figure.ratio:.2f}", file=sys.stderr, flush=True)
    print(table(figures, here))
    print("\n".join(regressions(before, figures)) or "nothing is slower than was recorded")
    if not arguments.small:
        write(FILE, figures, here)
    return 0


if __name__ == "__main__":
    sys.exit(main())
