"""Metrics are computed where one comparison is sooner done, on a device that is not here."""

from __future__ import annotations

import pytest
import torch
from state_pairs import gaussian, seeded
from torch import Tensor

from workers.probes import quickest_device as under_test
from workers.probes.quickest_device import CPU, quickest_device
from workers.probes.similarity import Reference

DEVICE = torch.device("meta")
STATE = gaussian(40, 12, seeded(1))


class Machine:
    """A clock that a comparison moves on, by what the first and others take on each device."""

    def __init__(self, **seconds: tuple[float, float]) -> None:
        self.now, self.compared = 0.0, list[tuple[str, tuple[int, ...]]]()
        self._seconds = seconds

    def perf_counter(self) -> float:
        return self.now

    def compare(self, reference: Reference, state: Tensor) -> None:
        kind = state.device.type
        assert reference.coordinates.device.type == kind
        first = kind not in [each for each, _ in self.compared]
        self.now += self._seconds[kind][0 if first else 1]
        self.compared.append((kind, tuple(state.shape)))


def at(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(under_test, "time", machine)
    monkeypatch.setattr(under_test, "compare", machine.compare)
    return machine


@pytest.mark.parametrize(
    ("device_takes", "found"), [((9.0, 2.0), CPU), ((9.0, 0.5), DEVICE), ((0.1, 2.0), CPU)]
)
def test_the_faster_is_taken_and_said_and_a_first_time_does_not_count(
    device_takes: tuple[float, float],
    found: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    at(Machine(meta=device_takes, cpu=(5.0, 1.0)), monkeypatch)
    assert quickest_device(DEVICE, [STATE]) == found
    said = capsys.readouterr().err
    assert said.startswith(f"metrics are computed on {found}: a layer of 40 x 12 takes ")
    assert f"{1e3 * device_takes[1]:.0f} ms on meta, 1000 ms on cpu" in said


def test_on_a_cpu_and_without_a_state_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = at(Machine(), monkeypatch)
    assert quickest_device(CPU, [STATE]) == CPU
    assert quickest_device(DEVICE, []) == DEVICE
    assert quickest_device(DEVICE, [torch.ones(8, 3)]) == DEVICE
    assert not machine.compared


def test_what_cannot_be_compared_is_passed_over_and_much_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = at(Machine(meta=(1.0, 1.0), cpu=(2.0, 2.0)), monkeypatch)
    monkeypatch.setattr(under_test, "LARGEST", 5)
    assert quickest_device(DEVICE, [torch.full((8, 3), torch.nan), STATE]) == DEVICE
    assert {shape for _, shape in machine.compared} == {(10, 5)}
