"""Model families of a user's own: whose models they are, by what their configuration says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sweeps.errors import UserError
from sweeps.plugins.catalogue import Plugins
from sweeps.sources.architectures import is_known
from sweeps.spec import Pretraining


@dataclass(frozen=True)
class Family:
    """The family of one model: how it was pretrained, and what a specification says of it. Both are
    empty for a model of transformers' own."""

    pretraining: Pretraining | None = None
    fields: dict[str, Any] = field(default_factory=dict)


class OwnFamilies:
    """The families that a sweep has beside those of transformers."""

    def __init__(self, plugins: Plugins) -> None:
        """Raises UserError for one that transformers has under the same name."""
        self._plugins = plugins
        for name in plugins.names("family"):
            plugin = plugins.find("family", name)
            if plugin is not None and is_known(name):
                raise plugin.mark.mistake("is a model_type of transformers: choose another")

    def of(self, model: str, said: str | None, config: dict[str, Any]) -> Family:
        """Return the family of a model by its configuration, or as its entry says where that is not
        here yet; raise UserError where both say another, or nobody has it."""
        found = config.get("model_type")
        if said is not None and found is not None and said != found:
            raise UserError(f"model {model!r}: its config.json has model_type {found}, not {said}")
        name = said or found
        if not isinstance(name, str) or (said is None and is_known(name)):
            return Family()
        plugin = self._plugins.find("family", name)
        if plugin is None and said is not None:
            self._plugins.require("family", name, ())
        if plugin is None:
            return Family()
        pretraining = plugin.mark.details["pretraining"]
        return Family(pretraining, {"family": name, "code": plugin.code})
