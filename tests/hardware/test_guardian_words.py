"""The guardian claims nothing that it does not know about outputs that it cannot have."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from taskengine.runtime.control import StopProcess, packets
from taskengine.runtime.control_channel import ControlChannel, new_channel
from taskengine.supervisor.guardian_link import GuardianLink
from taskengine_hardware import SharedState, guardian, mock_pins, read
from taskengine_hardware.backends import BACKENDS
from taskengine_hardware.device_config import LANE
from taskengine_hardware.guardian import Guardian, Links

DEVICES = {
    "wheel": {"type": "Motor", "forward": 20, "backward": 21},
    "lamp": {"type": "LED", "pin": 17},
}


class Site:
    """A guardian of these devices, whose owner is dead; it ends as soon as it has done what is due."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = read({"devices": DEVICES})
        self.panel = SharedState(self.layout)
        self.said: list[str] = []
        self.published: dict[str, Any] = {}
        self.is_busy = True
        self.ends: list[socket.socket] = []
        monkeypatch.setitem(BACKENDS, "mock", self.pins)
        monkeypatch.setattr(guardian, "hurry", list)
        monkeypatch.setattr(guardian, "keep_memory", list)
        monkeypatch.setattr(guardian, "AGAIN_S", 0.0)
        self.panel.begin(LANE, os.getpid())
        for device in self.layout.devices.values():
            self.panel.note(device.place, 1.0, 5)

    def pins(self, layout: Any) -> Any:
        """Pins of which another program has those of the wheel."""
        factory = mock_pins.factory(0xA020D3)
        known = factory.pin

        def pin(name: Any) -> Any:
            if self.is_busy and name == 20:
                raise OSError("GPIO busy")
            return known(name)

        factory.pin = pin
        return factory

    def guardian(self) -> Any:
        """The guardian, whose supervisor has said stop."""
        there, here = new_channel()
        self.ends += [there, here]
        there.send(packets(StopProcess())[0])
        link = GuardianLink(ControlChannel(here, self.said.append))
        links = Links(link, 1.0, print, self.said.append, print, self.published.__setitem__)
        return Guardian(self.layout, self.panel, "mock", links)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(monkeypatch)
    yield made
    for end in made.ends:
        end.close()


def test_what_cannot_be_had_is_not_said_to_be_safe(site: Site) -> None:
    site.guardian().serve()
    assert any(line.startswith("[GUARDIAN] Not made safe: wheel") for line in site.said)
    wheel, lamp = (site.layout.devices[name] for name in ("wheel", "lamp"))
    assert site.published["hardware.lamp"]["value"] is False
    assert "hardware.wheel" not in site.published
    assert site.panel.last(lamp.place, lamp.kind.role) is False
    assert site.panel.last(wheel.place, wheel.kind.role) == 1.0
    assert site.panel.unconfirmed() == [LANE]


def test_it_is_said_as_soon_as_it_can_be_had(site: Site) -> None:
    seen = site.guardian()
    seen._act(time.monotonic_ns())
    site.panel.stop(time.monotonic_ns())
    assert site.panel.unconfirmed() == [LANE]
    site.is_busy = False
    seen._act(time.monotonic_ns())
    assert site.panel.unconfirmed() == []
    seen.serve()
    assert site.published["hardware.wheel"]["value"] == 0.0


def test_what_its_owner_had_not_either_keeps_no_stop_from_being_confirmed(site: Site) -> None:
    wheel = site.layout.devices["wheel"]
    site.panel.note(wheel.place, 0.0, 5)
    site.guardian().serve()
    assert site.panel.unconfirmed() == []
