"""What a tokenizer's files say before it is loaded: which tokens it has, and which were added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sweeps.errors import UserError

# Tokenizers that have no special token but those their files name.
PLAIN_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
_ADDED = '"added_tokens":'


def lacks_token(folder: Path, which: str) -> bool:
    """Return whether a tokenizer is seen from here to have no ``mask_token``, or ``bos_token``.

    A class of its own may add one that its files do not name; the worker asks the tokenizer.
    """
    said = tokenizer_config(folder)
    if said.get("tokenizer_class") not in PLAIN_TOKENIZERS:
        return False
    return not {**_object(folder / "special_tokens_map.json"), **said}.get(which)


def lacks_chat_template(folder: Path) -> bool:
    """Return whether a tokenizer is seen from here to have no template of conversations.

    A class of its own may have one in its code; the worker asks the tokenizer.
    """
    said = tokenizer_config(folder)
    if any(folder.glob("tokenization*.py")) or said.get("chat_template"):
        return False
    files = ("chat_template.jinja", "chat_template.json", "chat_templates", "tekken.json")
    return not any((folder / name).exists() for name in files)


def no_chat_template(name: str) -> UserError:
    """Return what is said where messages are to be written for a tokenizer without a template."""
    return UserError(
        f"model {name}: its tokenizer has no chat template, which messages are written by; give a"
        " model that was tuned to chat, add chat_template.jinja to its folder, or give texts"
    )


def no_first_token(name: str) -> UserError:
    """Return what is said where a first token is asked of a tokenizer that has none."""
    return UserError(
        f"model {name}: its tokenizer has no token that begins a text (bos_token), which `bos` puts"
        " there; leave out `bos`"
    )


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json; empty where there is none."""
    return _object(folder / "tokenizer_config.json")


def has_sentinels(folder: Path) -> bool:
    """Return whether tokens stand for spans that were taken out, as T5's do."""
    return any(token.startswith("<extra_id_") for token in _added_tokens(folder).values())


def highest_added_token(folder: Path) -> tuple[int, str] | None:
    """Return the largest id of the tokens that were added to a vocabulary, with the token."""
    found = _added_tokens(folder)
    return max(found.items()) if found else None


def _added_tokens(folder: Path) -> dict[int, str]:
    found = {
        int(number): _text(token)
        for number, token in (tokenizer_config(folder).get("added_tokens_decoder") or {}).items()
        if str(number).isdecimal()
    }
    ids = _object(folder / "added_tokens.json")
    found |= {number: token for token, number in ids.items() if isinstance(number, int)}
    for token in _added(folder / "tokenizer.json"):
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            found[token["id"]] = _text(token)
    return found


def _added(path: Path) -> list[Any]:
    """Return ``added_tokens`` of a tokenizer.json without reading the rest of it as JSON, which is
    a vocabulary of megabytes."""
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        _, there, rest = text.partition(_ADDED)
        found = json.JSONDecoder().raw_decode(rest.lstrip())[0] if there else []
    except (OSError, ValueError):
        return []  # loading says what is wrong with it
    return found if isinstance(found, list) else []


def _text(token: Any) -> str:
    return str(token.get("content", "?") if isinstance(token, dict) else token)


def _object(path: Path) -> dict[str, Any]:
    """Return a file's JSON object; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    return content if isinstance(content, dict) else {}
