"""What a model can be asked for, as far as its files tell before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweeps.errors import UserError
from sweeps.sources.architectures import HEADS, require_head, saved_without_head
from sweeps.sources.hub_cache import cached_snapshot
from sweeps.sources.model_folder import (
    no_mask_token,
    positions_of,
    read_config,
    require_length,
    stored_shapes,
    vocabulary_of,
)
from sweeps.sources.tokenizer_files import (
    has_sentinels,
    lacks_chat_template,
    lacks_token,
    no_chat_template,
    no_first_token,
)
from sweeps.spec import (
    ANSWERING,
    RECURRENT_STANDINS,
    STANDIN_POSITIONS,
    FolderModel,
    HubModel,
    ModelSource,
    StandinModel,
)


@dataclass(frozen=True)
class Ability:
    """What is known of a model from here; what is not is the worker's to see.

    Attributes:
        positions: how many tokens a sequence may have.
        maskless: its tokenizer has no mask token; ``sentinels``, it has those of T5.
        config: its config.json.
        headless: the class that it was saved as, where that has no output head.
        templateless: its tokenizer has no chat template; ``bosless``, no first token of texts.
    """

    positions: int | None = None
    maskless: bool = False
    sentinels: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    headless: str | None = None
    templateless: bool = False
    bosless: bool = False

    def require(self, name: str, objective: str, lengths: Mapping[str, int]) -> None:
        """Raise UserError where a run asks for more: an objective, or sequences of ``lengths``."""
        for what, length in lengths.items():
            require_length(what, name, length, self.positions)
        if objective == "mlm" and self.maskless:
            raise no_mask_token(name)
        if objective == "span_corruption" and self.maskless and not self.sentinels:
            raise no_mask_token(name, objective)
        head = "clm" if objective in ANSWERING else objective
        if head in HEADS:
            require_head(name, dict(self.config), head)
            if self.headless is not None:
                raise UserError(
                    f"model {name}: was saved as {self.headless}, without the head that objective"
                    f" {objective} predicts with; give the model it was made of, or take another"
                    " objective"
                )

    def require_template(self, name: str) -> None:
        """Raise UserError where conversations cannot be written down for the model."""
        if self.templateless:
            raise no_chat_template(name)

    def require_first_token(self, name: str) -> None:
        """Raise UserError where nothing can be put before a text."""
        if self.bosless:
            raise no_first_token(name)


def files_of(source: ModelSource) -> Path | None:
    """Return the folder that has a model's files on this machine, if there is one with its
    configuration."""
    folder: Path | None = None
    if isinstance(source, FolderModel):
        folder = Path(source.folder)
    elif isinstance(source, HubModel):
        folder = cached_snapshot(source.hub, source.revision)
    return folder if folder is not None and (folder / "config.json").is_file() else None


def ability_of(source: ModelSource) -> Ability:
    """Return what can be told of a model from here."""
    if isinstance(source, StandinModel):
        templateless = source.language != "made_up"
        if source.standin in RECURRENT_STANDINS:
            return Ability(templateless=templateless)
        # RoBERTa's first position is behind that of padding, token 0.
        positions = STANDIN_POSITIONS - (source.standin == "roberta")
        return Ability(positions, templateless=templateless)
    folder = files_of(source)
    if folder is None:
        return Ability()
    config = read_config(folder)
    return Ability(
        positions_of(config),
        lacks_token(folder, "mask_token"),
        has_sentinels(folder),
        config,
        _headless(folder, config, source.pretraining),
        lacks_chat_template(folder),
        lacks_token(folder, "bos_token"),
    )


# What two checkpoints of one architecture have alike, as configurations and stand-ins call it.
_SHAPE_KEYS = (
    *("model_type", "hidden_size", "n_embd", "d_model", "dim", "num_hidden_layers", "n_layer"),
    *("num_layers", "n_layers", "intermediate_size"),
)
_STANDIN_SHAPE = ("standin", "layers", "blocks_of_its_own", "width", "vocabulary", "language")


def require_same_architecture(
    name: str, source: ModelSource, other: str, compared: ModelSource
) -> None:
    """Raise UserError where ``compare_to`` names a model whose layers are not those of the model,
    as far as both tell from here: its layers would go back to nothing, or to others' weights."""
    if isinstance(source, StandinModel) and isinstance(compared, StandinModel):
        pairs = [(key, getattr(source, key), getattr(compared, key)) for key in _STANDIN_SHAPE]
    else:
        mine, theirs = ability_of(source).config, ability_of(compared).config
        pairs = [
            (key, mine[key], theirs[key]) for key in _SHAPE_KEYS if key in mine and key in theirs
        ]
    for key, ours, its in pairs:
        if ours != its:
            raise UserError(
                f"model {name!r}: compare_to {other} is of another architecture, {key} {its} and"
                f" not {ours}; name the checkpoint that it was made of"
            )


def _headless(folder: Path, config: dict[str, Any], pretraining: str) -> str | None:
    """Return the class without an output head that a checkpoint was saved as, where its weights
    have none either: one tensor alone, the embedding, has a row for each token.

    Of masked models the head has a bias of that size at least. Of others it may be the embedding
    itself, unless the configuration says that it is not.
    """
    saved_as, rows = saved_without_head(config), vocabulary_of(config)
    tied = config.get("tie_word_embeddings")
    if saved_as is None or rows is None or (pretraining != "mlm" and tied is not False):
        return None
    shapes = stored_shapes(folder)
    alike = sum(1 for shape in shapes if shape and shape[0] == rows)
    return saved_as if shapes and alike == 1 else None
