"""Packing text that is larger than memory: tokens a second, and the most memory that it takes.

    python -m tests.benchmarks.packing [--tokens 1e9]

A .txt file of generated words is packed into the token cache as a run's first worker does it, in a
process of its own, beside what reading the same file into lists takes. The limit is what the
tokenizer alone does with the same text.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sweeps.declaration.entries.sweep_spec import DataEntry
from sweeps.declaration.sources import resolve_data
from sweeps.rows.local_rows import PLAIN_TEXT
from sweeps.spec import Objective
from workers.data.datasets import load_rows
from workers.data.token_cache import objective_arrays
from workers.objectives.registry import build_objective

WORDS, WORDS_A_LINE, LENGTH = 30_000, 50, 128
TARGET_GIB = 3.0
MOST_IN_LISTS = 2e8


def tokenizer() -> PreTrainedTokenizerFast:
    """Return one token a word: of the cost of packing what is not the tokenizer's."""
    vocabulary = {f"w{k:x}": k for k in range(WORDS)} | {"<unk>": WORDS, "<end>": WORDS + 1}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<end>")


def write_text(path: Path, tokens: int) -> None:
    """Write lines of words drawn with a seed, of which the end token is one more each."""
    generator = np.random.default_rng(0)
    with path.open("w") as file:
        for _ in range(0, tokens, 10_000 * (WORDS_A_LINE + 1)):
            for line in generator.integers(0, WORDS, (10_000, WORDS_A_LINE)).tolist():
                file.write(" ".join(f"w{k:x}" for k in line) + "\n")


def most_memory() -> float:
    """Return the most memory this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=float, default=1e9)
    parser.add_argument("--in", dest="inside", help=argparse.SUPPRESS)
    parser.add_argument("--how", choices=["packed", "lists", "tokenizer"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(carried_out(Path(arguments.inside), arguments.how)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_text(Path(folder) / "text.txt", int(arguments.tokens))
        for how in ("packed", "tokenizer", "lists"):
            if how == "lists" and arguments.tokens > MOST_IN_LISTS:
                print("lists      not tried: some 50 bytes a token")
                continue
            words = [sys.executable, "-m", __spec__.name, "--in", folder, "--how", how]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{how:<10} did not end: {done.stderr.strip().splitlines()[-1:]}")
                continue
            said = json.loads(done.stdout)
            print(
                f"{how:<10} {said['tokens'] / 1e6:8.1f} M tokens {said['seconds']:8.1f} s"
                f" {said['gib']:6.2f} GiB (before: {said['before']:.2f})"
                + (f", target {TARGET_GIB}" if how == "packed" else ""),
                flush=True,
            )


def carried_out(folder: Path, how: str) -> dict[str, float]:
    """Return tokens, seconds and the most memory of one way to go through the text."""
    data = resolve_data(DataEntry(file="text.txt"), ("text",), folder)
    before, began = most_memory(), time.monotonic()
    if how == "packed":
        objective = build_objective(Objective(kind="clm", data=data))
        arrays = objective_arrays(objective, tokenizer(), LENGTH, folder / "cache")
        tokens = arrays["input_ids"].size
    elif how == "lists":
        stream: list[int] = []
        texts = load_rows(data, PLAIN_TEXT)["text"]
        for start in range(0, len(texts), 1000):
            for ids in tokenizer()(texts[start : start + 1000])["input_ids"]:
                stream += ids
        tokens = len(stream)
    else:
        tokens, made = 0, tokenizer()
        with (folder / "text.txt").open() as lines:
            while batch := list(islice(lines, 1000)):
                tokens += sum(map(len, made(batch)["input_ids"]))
    seconds = time.monotonic() - began
    return {"tokens": tokens, "seconds": seconds, "gib": most_memory(), "before": before}


if __name__ == "__main__":
    main()
