"""Outputs on boards: what they are told is carried out by `flush`, all in one go, and a board may be lost. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .admission import Admission
from .device_config import Value
from .movements import Movements
from .outputs import Loss, Output


class Sending(Movements):
    """The outputs of a lane, some of them on boards; what drives them is `Control`."""

    outputs: dict[str, Output]
    admission: Admission

    def __init__(self) -> None:
        super().__init__()
        self.send: Callable[[], Mapping[str, Loss]] | None = None
        """Has boards carry out what their outputs were told, and returns the outputs that are lost; None for pins."""
        self._changed: dict[Output, None] = {}
        """The outputs that are to be published."""
        self._unsent: list[tuple[Output, Value, float]] = []
        """Safe values that boards have not carried out yet, and when."""

    def flush(self) -> None:
        """Have boards carry out what their outputs were told."""
        if self.send is None:
            return
        self.lose(self.send())
        unsent, self._unsent = self._unsent, []
        for output, value, now in unsent:
            if not output.is_lost and output.value == value:
                self._note(output, value, now)

    def lose(self, losses: Mapping[str, Loss]) -> None:
        """Note that the boards of outputs, by name, are lost: nothing drives them until they are there again."""
        for output in [self.outputs[name] for name in losses]:
            output.failure, is_safe = losses[output.device.name]
            self._drop(output)
            if is_safe:
                output.value = output.rest
                self._note(output, output.rest, 0.0)
            output.is_lost = not is_safe
            self.admission.end(output)
            output.told = None
            self._changed[output] = None
            self.due = min(self.due, output.next_tell)

    def regain(self, output: Output, value: Value, now: float) -> None:
        """Go on with an output that has this value since its board is there again."""
        output.value = value
        self._note(output, value, now)
        self._act_on_all(now)

    def _is_carried_out(self) -> bool:
        """Have boards carry out what their outputs were told; return whether all do, as far as anybody knows."""
        self.flush()
        return not any(output.is_lost for output in self.outputs.values())

    def _note_rest(self, output: Output, value: Value, now: float) -> None:
        """Note a safe value once it is there: the guardian is not to take an output for safe too early."""
        if output.is_buffered:
            self._unsent.append((output, value, now))
        else:
            self._note(output, value, now)

    def _note(self, output: Output, value: Value, now: float) -> None:
        raise NotImplementedError

    def _act_on_all(self, now: float) -> None:
        raise NotImplementedError
