"""What is in memory at the fullest moment of a stretch of code, by kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker

# As the tracker calls what it counts, by the names of a plan.
KINDS = {
    "Parameter": "weights",
    "Buffer": "buffers",
    "Gradient": "gradients",
    "Optstate": "moments",
    "Activation": "activations",
    "Temp": "activations",
}
TOTAL = "Total"


class Tracker(MemTracker):
    """torch's own tracker of a model's memory, several forward passes long.

    Modules are not told apart: those that are called again are an error to it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = model
        self.track_external(model)

    def _pre_fw_hook(self, module: nn.Module, inputs: Any) -> None: ...

    def _post_fw_hook(self, module: nn.Module, inputs: Any, outputs: Any) -> None: ...

    def _pre_bw_hook(self, module: nn.Module, args: Any) -> None: ...

    def _post_bw_hook(self, module: nn.Module, args: Any) -> None: ...

    def _update_peak_stats(self, peak_state: Any) -> None:
        # As it is there, but for modules, and for a deep copy at each of a step's operations.
        del peak_state
        for device, kinds in self._curr_mem_snap.items():
            if self._peak_mem.get(device, 0) < kinds[TOTAL]:
                self._peak_mem[device] = kinds[TOTAL]
                self._peak_mem_snap[device] = dict(kinds)

    def now(self) -> dict[str, int]:
        """Return the bytes of each kind at this moment."""
        return _by_kind(self.get_tracker_snapshot())

    def peak(self) -> dict[str, int]:
        """Return the bytes of each kind at the fullest moment since the last ``watching``."""
        return _by_kind(self.get_tracker_snapshot("peak"))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Surround what the next ``peak`` is of."""
        with self:
            for parameter in self._model.parameters():
                if not parameter.requires_grad:  # it would hook its gradient, which never comes
                    self._param_to_grad_hook_handles[parameter] = (_Unhooked(), _Unhooked())
            self._track_module_params_and_buffers(self._model)
            yield


class _Unhooked:
    """Stands for the handle of a hook where there is none."""

    def remove(self) -> None: ...


def _by_kind(snapshot: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for kinds in snapshot.values():
        for kind, size in kinds.items():
            called = str(getattr(kind, "value", kind))
            if called != TOTAL:
                name = KINDS.get(called, "other")
                found[name] = found.get(name, 0) + size
    return found
