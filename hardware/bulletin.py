"""The guardian's publications: the state of the machine on `hardware.system`, and the outputs that it made safe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskengine import Overloaded, TaskEngineError

from .device_config import Device, Value
from .shared_state import SharedState

TOPIC = "hardware."
SYSTEM = "hardware.system"


class Bulletin:
    """Publishes changes of the shared state with `publish`, and repeats them next time if that raises Overloaded."""

    def __init__(
        self, panel: SharedState, publish: Callable[[str, Any], None], complain: Callable[[str], object]
    ) -> None:
        self._panel = panel
        self._publish = publish
        self._complain = complain
        self._told: dict[str, Any] | None = None
        self._waiting: dict[str, Any] = {}
        self._has_failed = False

    def made_safe(self, device: Device, value: Value, now: float) -> None:
        """Note that an output was made safe; `tell` publishes that."""
        self._waiting[TOPIC + device.name] = {"time": now, "value": value, "source": "guardian"}

    def tell(self) -> None:
        """Publish all changes."""
        report = self._panel.report()
        if report != self._told:
            self._told = self._waiting[SYSTEM] = report
        for topic in list(self._waiting):
            try:
                self._publish(topic, self._waiting[topic])
            except Overloaded:
                continue
            except TaskEngineError as error:
                if not self._has_failed:
                    self._has_failed = True
                    self._complain(f"[GUARDIAN] {topic} cannot be published: {error}")
            del self._waiting[topic]
