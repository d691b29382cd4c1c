"""Where a study is shown beside the store: the ``track:`` section of a sweep file.

    track:
      wandb: {project: depth, entity: my-team, mode: offline, tags: [pilot]}
      mlflow: {uri: "http://mlflow.example:5000", experiment: depth, tags: {team: probing}}
      tensorboard:

It decides no result and enters no identity. It holds no secret either: keys and passwords are read
by each tracker's own client from its own environment, where the driver runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator

from sweeps.spec import Frozen

Said = Annotated[str, Field(min_length=1)]
_FOLDER = "Folder of its files: absolute, or within the store."


class WandbOptions(Frozen):
    """Weights & Biases; what is not said here comes from its own environment."""

    project: Said | None = Field(None, description="Else WANDB_PROJECT, else depthsweep.")
    entity: Said | None = None
    mode: Literal["online", "offline"] | None = Field(None, description="Else WANDB_MODE.")
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(default_factory=list)
    folder: Said = Field("wandb", description=f"{_FOLDER} Used offline only.")


class MlflowOptions(Frozen):
    """An MLflow tracking server or its own files."""

    uri: Said | None = Field(None, description="Tracking URI; else MLFLOW_TRACKING_URI.")
    experiment: Said | None = Field(
        None, description="Else MLFLOW_EXPERIMENT_NAME, else the sweep's name."
    )
    tags: dict[str, str] = Field(default_factory=dict)

    @field_validator("uri")
    @classmethod
    def _no_secret(cls, uri: str | None) -> str | None:
        if uri is not None and "@" in urlsplit(uri).netloc:
            raise ValueError(
                "a name or password does not belong in a sweep file; set"
                " MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where the sweep runs"
            )
        return uri


class TensorboardOptions(Frozen):
    """TensorBoard's event files, a folder for each run."""

    folder: Said = Field("tensorboard", description=_FOLDER)


def _with_defaults(value: Any) -> Any:
    """Take a tracker that is only named for one with its defaults, an empty section for none."""
    if isinstance(value, dict):
        return {name: {} if options is None else options for name, options in value.items()}
    return {} if value is None else value


class Track(Frozen):
    """Trackers by name, with their options; None where a tracker is not used."""

    wandb: WandbOptions | None = None
    mlflow: MlflowOptions | None = None
    tensorboard: TensorboardOptions | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The trackers that are used."""
        return tuple(kind for kind in TRACKERS if getattr(self, kind) is not None)

    def only(self, kinds: Iterable[str]) -> Track:
        """Return these trackers alone: with the options they have here, or with their defaults."""
        chosen = {kind: getattr(self, kind) or {} for kind in kinds}
        return Track.model_validate(chosen)

    def with_also(self, kinds: Iterable[str]) -> Track:
        """Return the trackers used here and these."""
        return self.only([*self.kinds, *kinds])


TRACKERS = tuple(Track.model_fields)

TrackEntry = Annotated[Track, BeforeValidator(_with_defaults)]
