"""Texts to token arrays: packed into one stream, or a row a text, padded.

A stream is cut into rows as it comes and kept outside of memory where it is long: four bytes a
token, whatever the dataset.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sweeps.errors import UserError
from workers.data.array_file import MAPPED_BYTES, Arrays
from workers.progress import PREPARATION

# What is tokenised at once: so many texts, or so many characters of fewer.
TOKENISE_BATCH, TOKENISE_CHARACTERS = 1000, 1 << 22


def pack(
    tokenizer: Any,
    texts: Iterable[str],
    length: int,
    *,
    framed: bool,
    bos: Literal["text", "sequence"] | None = None,
) -> Arrays:
    """Return ``input_ids`` (N, length) int32: all texts in one stream, cut without padding.

    Texts are separated by the tokenizer's end token. ``framed`` gives each row the begin and end
    tokens that encoders were pretrained with; ``bos`` puts the first token that the tokenizer has
    before each text, or each row. Texts are gone through once. Raises UserError when there is not
    one full row.
    """
    separator = tokenizer.eos_token_id
    if separator is None:
        separator = tokenizer.sep_token_id
    first = [] if bos is None else [tokenizer.bos_token_id]
    begin, end = (first, []) if bos == "sequence" else ([], [])
    if framed and tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None:
        begin, end = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    before = first if bos == "text" else []
    after = [] if separator is None else [separator]
    inner = length - len(begin) - len(end)
    rest = np.empty(0, dtype=np.int32)
    words = _Words(tokenizer)
    with closing(_Stream()) as stream, PREPARATION.counting("packing", "tokens") as more:
        for encoded in _tokenised(tokenizer, (text for text in texts if text.strip())):
            encoded = [[*before, *ids, *after] for ids in encoded]
            new = np.fromiter(itertools.chain.from_iterable(encoded), dtype=np.int32)
            rest = np.concatenate([rest, new])
            rows = rest[: len(rest) // inner * inner].reshape(-1, inner)
            rest = rest[rows.size :]
            words.look(rows)
            stream.add(_framed(rows, begin, end))
            more(len(new))
        if not stream.size:
            raise UserError(
                f"the dataset has {len(rest)} tokens, less than one sequence of {length}; lower"
                " sequence_length or give more text"
            )
        words.require()
        return {"input_ids": stream.array().reshape(-1, length)}


def _framed(rows: NDArray[np.int32], begin: list[int], end: list[int]) -> NDArray[np.int32]:
    """Return rows with tokens before and after each."""
    if not begin and not end:
        return rows
    first, last = (
        np.tile(np.asarray(each, dtype=np.int32), (len(rows), 1)) for each in (begin, end)
    )
    return np.concatenate([first, rows, last], axis=1)


class _Stream:
    """Numbers in the order they come: in memory, or from some size on in a file without a name."""

    def __init__(self) -> None:
        self.size = 0
        self._held: list[NDArray[np.int32]] = []
        self._bytes = 0
        self._file: Any = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()  # what is mapped of it stays

    def add(self, numbers: NDArray[np.int32]) -> None:
        self.size += numbers.size
        self._held.append(numbers)
        self._bytes += numbers.nbytes
        if self._bytes >= MAPPED_BYTES:
            if self._file is None:
                # It lives on until both it and what is mapped of it are let go.
                self._file = tempfile.TemporaryFile(prefix="depthsweep-")  # noqa: SIM115
            self._put_away()

    def array(self) -> NDArray[np.int32]:
        if self._file is None:
            return np.concatenate([numbers.reshape(-1) for numbers in self._held])
        self._put_away()
        self._file.flush()
        return np.memmap(self._file, dtype=np.int32, mode="r", shape=(self.size,))

    def _put_away(self) -> None:
        for numbers in self._held:
            self._file.write(np.ascontiguousarray(numbers).tobytes())
        self._held, self._bytes = [], 0


def pad(
    tokenizer: Any,
    texts: list[str],
    length: int,
    prefix: str = "",
    pairs: list[str] | None = None,
) -> Arrays:
    """Return ``input_ids`` and ``attention_mask``, both (N, length) int32, one row a text, or a
    text and its pair; of pairs ``token_type_ids`` too, where the tokenizer numbers them.

    What is longer is cut, of a pair the longer one first; what is shorter is padded on the right.
    """
    if pairs is None:
        encoded = _counted(_tokenised(tokenizer, texts, framed=True, length=length))
        return {
            f"{prefix}{name}": array
            for name, array in padded(tokenizer, encoded, len(texts), length).items()
        }
    # Some put nothing between the two.
    separated = tokenizer.num_special_tokens_to_add(
        pair=True
    ) > tokenizer.num_special_tokens_to_add(pair=False)
    if not separated:
        joined = _counted(_joined(tokenizer, texts, pairs, length))
        return padded(tokenizer, joined, len(texts), length)
    types: list[list[int]] = []
    encoded = _counted(_tokenised_pairs(tokenizer, texts, pairs, length, types))
    arrays = padded(tokenizer, encoded, len(texts), length)
    if types:
        numbered = np.zeros_like(arrays["input_ids"])
        for row, each in enumerate(types):
            numbered[row, : len(each)] = each
        arrays["token_type_ids"] = numbered
    return arrays


def padded(tokenizer: Any, encoded: Iterable[list[list[int]]], count: int, length: int) -> Arrays:
    """Return ``input_ids`` and ``attention_mask``, both (count, length) int32, of batches of token
    ids that are no longer; raise UserError for a row without a token, or where none is known."""
    filler = tokenizer.pad_token_id
    if filler is None:
        filler = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
    ids = np.full((count, length), filler, dtype=np.int32)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(itertools.chain.from_iterable(encoded)):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    empty = np.flatnonzero(mask.sum(axis=1) == 0)
    if empty.size:
        raise UserError(f"row {int(empty[0])} of the dataset has no token; remove empty texts")
    words = _Words(tokenizer)
    words.look(ids[mask == 1])
    words.require()
    return {"input_ids": ids, "attention_mask": mask}


def _counted(batches: Iterable[list[list[int]]]) -> Iterator[list[list[int]]]:
    """Yield the token ids of texts, which are counted as they come."""
    with PREPARATION.counting("tokenising", "rows") as more:
        for batch in batches:
            yield batch
            more(len(batch))


def _tokenised_pairs(
    tokenizer: Any, texts: list[str], pairs: list[str], length: int, types: list[list[int]]
) -> Iterator[list[list[int]]]:
    """Yield the token ids of pairs; ``types`` takes the number of each token's text, where the
    tokenizer gives one."""
    for start in range(0, len(texts), TOKENISE_BATCH):
        part = slice(start, start + TOKENISE_BATCH)
        encoded = tokenizer(
            texts[part],
            pairs[part],
            truncation="longest_first",
            max_length=length,
            return_attention_mask=False,
            verbose=False,
        )
        types += encoded.get("token_type_ids", [])
        yield encoded["input_ids"]


def _joined(
    tokenizer: Any, texts: list[str], pairs: list[str], length: int
) -> Iterator[list[list[int]]]:
    """Yield the token ids of pairs with the tokenizer's end token between the two."""
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    between = [] if end is None else [end]
    room = length - len(between)
    firsts, seconds = _tokenised(tokenizer, texts, framed=True), _tokenised(tokenizer, pairs)
    for some, others in zip(firsts, seconds, strict=True):
        found = []
        for first, second in zip(some, others, strict=True):
            # The longer one is cut until both fit, or both have half.
            kept = max(room - len(second), (room + 1) // 2)
            head = first[:kept]
            found.append([*head, *between, *second[: room - len(head)]])
        yield found


class _Words:
    """Whether a tokenizer knows any word of a dataset."""

    def __init__(self, tokenizer: Any) -> None:
        empty = [*tokenizer.all_special_ids, tokenizer.unk_token_id]
        self._none = [token for token in empty if token is not None]
        self._unknown = tokenizer.unk_token or "a special one"
        self._found = False

    def look(self, ids: NDArray[np.int32]) -> None:
        self._found = self._found or bool((~np.isin(ids, self._none)).any())

    def require(self) -> None:
        """Raise UserError where none of what was looked at is a word."""
        if not self._found:
            raise UserError(
                "the tokenizer knows no word of the dataset: every token is"
                f" {self._unknown}. Is it the right column, and the model's own tokenizer?"
            )


def _tokenised(
    tokenizer: Any, texts: Iterable[str], *, framed: bool = False, length: int | None = None
) -> Iterator[list[list[int]]]:
    """Yield the token ids of texts, some hundred texts at a time."""
    for batch in _batches(texts):
        encoded = tokenizer(
            batch,
            add_special_tokens=framed,
            truncation=length is not None,
            max_length=length,
            return_attention_mask=False,
            verbose=False,
        )
        yield encoded["input_ids"]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield texts as many at a time as are tokenised at once."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == TOKENISE_BATCH or characters >= TOKENISE_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
