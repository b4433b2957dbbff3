"""Decides who may command an output: stops, arms, calls to rest, ages, leases and holds. Pure.

A command is admitted if all of this holds, checked in this order: the machine is not stopped; the command was neither
sent nor received before the latest stop; its client has consented to motion since that stop was undone; the device was
not brought to rest since the command was received; the command says how old it is, and is young enough; and no other
client holds the device exclusively. The checks change nothing.

Leases. The **author** of an output is the holder (`Origin.holder`) whose command gave the present value. The author's
lease, in the shared state, is how long that command stays in force, counted from when it was sent: a late command stays
in force for less. Others that acquire the output get a **claim**: they may renew their own claim, but never the
author's lease. A **hold** keeps others out while its holder renews or commands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from taskengine import BadArguments, Cancelled, NotAllowed, Origin, TaskTimeout

from .device_config import EXCLUSIVE_S
from .outputs import NS, Output
from .shared_state import NEVER, SharedState

MAX_CLAIMS = 64
MAX_CONSENTS = 4096
"""How many holders an owner remembers; a forgotten holder has to call `lease.acquire` again."""


def stopped_text(panel: SharedState) -> str:
    """Return the error text of a command while the machine is stopped."""
    stop = panel.latest()
    by, why = stop.by and f" by {stop.by}", stop.why and f": {stop.why}"
    return f"the machine was stopped{by}{why} (stop {stop.number}); system.arm lets it move again"


class Admission:
    """Admits commands to the outputs of `lane`; a hold ends `exclusive` s after its holder's last call.

    `position` returns the position, in its package, of the task that runs.
    """

    def __init__(
        self, lane: str, panel: SharedState, exclusive: float = EXCLUSIVE_S, position: Callable[[], int] = lambda: 0
    ) -> None:
        self._lane = lane
        self._panel = panel
        self._watching = [other for other in panel.stop_lanes if other != lane]
        """The other lanes whose inputs can stop this one."""
        self._ends = panel.ends
        self._exclusive = exclusive
        self._position = position
        self._consents: dict[bytes, None] = {}
        self.late: list[Output] = []
        """Outputs that stop by a ramp, which has to begin so that it ends with their lease."""
        self.other_due = math.inf
        """The time, in s, at which something else than a lease is due."""
        self.due = math.inf
        """The time, in s, before which no lease ends, and nothing else is due."""

    # Checks ----------------------------------------------------------------------------------------------------------

    def check(self, output: Output, origin: Origin, now: float) -> None:
        """Check that a command may move an output. Raises NotAllowed, Cancelled, TaskTimeout."""
        if self._watching and (unread := self.unread()):
            raise NotAllowed(unread[0])
        if self._panel.number:  # the machine was stopped at least once
            self._check_stop(origin)
            self._check_consent(origin)
        self._check_age(output, origin, now)
        self._check_hold(output, origin, now)

    def unread(self) -> list[str]:
        """Return the reasons against motion that lie in other lanes: nobody reads their stop inputs."""
        lanes = [lane for lane in self._watching if not self._panel.has_owner(lane)]
        return [f"nobody reads the stop inputs of lane {lane} now" for lane in lanes]

    def _check_stop(self, origin: Origin) -> None:
        panel = self._panel
        if panel.is_stopped:
            raise NotAllowed(stopped_text(panel))
        stopped_at = panel.stopped_at
        if origin.received and panel.number:
            if origin.received <= stopped_at:
                raise NotAllowed(f"stop {panel.number} came after this command, and cancels it")
            if origin.sent and origin.sent <= stopped_at:
                raise NotAllowed(f"this command may have been sent before stop {panel.number}")

    def _check_consent(self, origin: Origin) -> None:
        panel = self._panel
        if not panel.armed or origin.holder in self._consents:
            return
        if origin.since > panel.armed_at:
            return
        if panel.consents.has(self._lane, origin.holder, panel.armed):  # consent given to an earlier owner
            self._remember(origin.holder)
        elif not panel.has_armed(origin.holder):
            raise NotAllowed(
                f"the machine was stopped and armed again (stop {panel.armed}), and this client has not said since that"
                " it wants to move things: call lease.acquire first"
            )

    def _check_age(self, output: Output, origin: Origin, now: float) -> None:
        received, device = origin.received, output.device
        if not received:
            return
        if output.rest_order >= received and self._panel.rested(output.place) > (received, self._position()):
            raise Cancelled(f"{device.name} was brought to rest after this command was called")
        if output.age is None:
            return
        if not origin.sent:
            if not (origin.is_local or device.untimed):
                raise NotAllowed(
                    f"{device.name} takes commands from other machines only if they say how old they are: use a"
                    " client of this version, or set untimed = true"
                )
        elif 2 * origin.bound > (output.lease_ns or output.age * NS):
            raise NotAllowed(
                f"the time of this command is known to {origin.bound / NS:.3g} s only, which is more than half the"
                f" lease of {device.name}: this link is too slow to drive it"
            )
        age = now - (origin.sent or received) / NS
        if age > output.age:
            self._panel.refuse(self._lane)
            raise TaskTimeout(
                f"this command of {device.name} came {age:.3g} s after it was called, which may be {output.age:g} s",
                seconds=output.age,
            )

    def _check_hold(self, output: Output, origin: Origin, now: float, *, takes_over: bool = False) -> None:
        if output.holder is None or output.holder == origin.holder:
            return
        if now >= output.held_until:
            output.holder = None
        elif not (takes_over and output.holder_client == origin.client):
            raise NotAllowed(f"another client holds {output.device.name} exclusively")

    def is_strange(self, output: Output, origin: Origin) -> bool:
        """Return whether the output follows the command of another client."""
        return self._runs(output) and output.author != origin.holder

    # Leases ----------------------------------------------------------------------------------------------------------

    def grant(self, output: Output, origin: Origin, now: float) -> None:
        """Make the client of an admitted command the author; skip the checks for its origin for a while."""
        if output.author != origin.holder and self._runs(output):
            self._claim(output, output.author, self._ends[output.place] / NS, now)
        output.author = origin.holder
        output.word_ns = _word(output, origin)
        if output.word_ns:
            self.due = min(self.due, _moment(output.word_ns + output.lease_ns - output.stop_ns))
        # as long as a rule restricts it, every command is checked
        output.granted = origin if output.restriction is None else None
        is_ageless = output.age is None or not origin.received
        output.granted_until = math.inf if is_ageless else (origin.sent or origin.received) / NS + (output.age or 0.0)

    def extend(self, output: Output, now: float) -> None:
        """Begin the author's lease again."""
        if output.lease_ns:
            self._ends[output.place] = end = (output.word_ns or int(now * NS)) + output.lease_ns
            self.due = min(self.due, _moment(end - output.stop_ns))
        if output.holder is not None and output.holder == output.author:
            self._hold_on(output, now)

    def over(self, outputs: Iterable[Output], now: float) -> list[Output]:
        """Return the outputs whose lease is over, which have to be brought to rest; end the holds of their authors."""
        now_ns, found, due = int(now * NS), [], self.other_due
        self.late.clear()
        for output in outputs:
            end = self._ends[output.place]
            if end == NEVER:
                continue
            if end <= now_ns:
                found.append(output)
                if output.holder == output.author:
                    output.holder = None
            elif output.stop_ns:
                if end - output.stop_ns <= now_ns:
                    self.late.append(output)
                else:
                    end -= output.stop_ns
            due = min(due, _moment(end))
        self.due = due
        return found

    def end(self, output: Output) -> None:
        """Note that an output is at rest and has no author. Holds stay, unless they were the author's."""
        output.granted = None
        output.claims.pop(output.author, None)
        # last, because other processes decide by it
        self._ends[output.place] = NEVER

    def forget(self, outputs: Iterable[Output]) -> None:
        """Forget all leases, claims and holds, because the machine was stopped."""
        self._consents.clear()
        for output in outputs:
            output.granted = output.holder = None
            output.claims.clear()

    def acquire(
        self, outputs: list[Output], origin: Origin, now: float, *, exclusive: bool = False, take_over: bool = False
    ) -> None:
        """Give a client claims to outputs, and note its consent to motion; with `exclusive` others are kept out.

        With `take_over` it gets the hold of another client object of its name. Raises BadArguments for an output
        without a lease, and the errors of `check`.
        """
        for output in outputs:
            if not output.lease_ns:
                raise BadArguments(f"{output.device.name} has no lease (its setting lease is false)")
            self._check_stop(origin)
            self._check_call(origin)
            self._check_age(output, origin, now)
            self._check_hold(output, origin, now, takes_over=take_over)
        if self._panel.armed and origin.received:
            self._consent(origin.holder)
        for output in outputs:
            if output.holder != origin.holder:
                output.holder = None
            if exclusive:
                output.holder, output.holder_client, output.held_until = origin.holder, origin.client, math.inf
                output.granted = None
            self._renew(output, origin, now)

    def _check_call(self, origin: Origin) -> None:
        """Check that consent was surely given after the arm, and not before it for whatever comes."""
        panel, received = self._panel, origin.received
        if origin.holder in self._consents or panel.has_armed(origin.holder):
            return  # it has given it, and need not know the clock so well
        if panel.armed and received and (origin.sent or received) <= panel.armed_at:
            raise NotAllowed(f"the machine was armed (stop {panel.armed}) after this was called: call it again")

    def renew(self, outputs: list[Output], origin: Origin, now: float) -> None:
        """Renew outputs that a client has acquired, or commanded last. Raises NotAllowed if its lease has lapsed.

        Raises the errors of `acquire` too.
        """
        for output in outputs:
            if not output.lease_ns:
                raise BadArguments(f"{output.device.name} has no lease (its setting lease is false)")
            self.check(output, origin, now)
            is_author = self._runs(output) and output.author == origin.holder
            if not is_author and output.claims.get(origin.holder, 0.0) <= now:
                raise NotAllowed(f"this client's lease of {output.device.name} has lapsed: call lease.acquire")
        for output in outputs:
            self._renew(output, origin, now)

    def _renew(self, output: Output, origin: Origin, now: float) -> None:
        holder, word = origin.holder, _word(output, origin)
        if not self._runs(output):
            output.author = holder
        if output.author == holder:
            output.word_ns, output.granted = word, None
            self.extend(output, now)
        self._claim(output, holder, (word / NS or now) + output.lease_ns / NS, now)
        if output.holder == holder:
            self._hold_on(output, now)

    def release(self, outputs: list[Output], origin: Origin) -> None:
        """End the client's holds of these outputs; their leases run on."""
        for output in outputs:
            if output.holder == origin.holder:
                output.holder = None

    # Arms ------------------------------------------------------------------------------------------------------------

    def arm(self, origin: Origin, number: int | None, now: float) -> None:
        """Undo the stop of this number; without one, the latest, if this was called after it. Raises NotAllowed.

        If that stop is undone already, the caller consents to motion.
        """
        panel = self._panel
        latest, stopped_at = panel.number, panel.stopped_at
        if number is None:
            number = latest
            if not _is_after(origin, stopped_at):
                raise NotAllowed(f"stop {latest} may have come after this was called: name the stop to undo")
        if panel.is_stopped and (late := panel.untold()):
            raise NotAllowed(f"lane {', '.join(late)} has not stopped yet")
        if number != latest or not panel.arm(number, origin.holder, int(now * NS)):
            raise NotAllowed(f"system.arm names stop {number!r:.20}, but the latest is {panel.number}")
        if origin.received:
            self._consent(origin.holder)

    # -----------------------------------------------------------------------------------------------------------------

    def _runs(self, output: Output) -> bool:
        """Return whether the output's lease runs."""
        return bool(self._ends[output.place] != NEVER)

    def _hold_on(self, output: Output, now: float) -> None:
        """Extend a hold that is not over."""
        if now >= output.held_until:
            output.holder = None
        else:
            output.held_until = now + min(self._exclusive, output.lease_ns / NS)

    def _claim(self, output: Output, holder: bytes, until: float, now: float) -> None:
        claims = output.claims
        claims.pop(holder, None)
        claims[holder] = until
        if len(claims) > MAX_CLAIMS:
            for old in [old for old, end in claims.items() if end <= now] or [next(iter(claims))]:
                del claims[old]

    def _consent(self, holder: bytes) -> None:
        if self._panel.armed and holder not in self._consents:
            self._panel.consents.give(self._lane, holder, self._panel.armed)
        self._remember(holder)

    def _remember(self, holder: bytes) -> None:
        self._consents[holder] = None
        if len(self._consents) > MAX_CONSENTS:
            del self._consents[next(iter(self._consents))]


def _word(output: Output, origin: Origin) -> int:
    """Return when the command was sent from which a lease counts, in ns.

    0 for now, if commands may be older than leases.
    """
    if output.age is None or output.age * NS > output.lease_ns:
        return 0
    return origin.sent or origin.received


def _moment(end: int) -> float:
    """Return that moment in s, rounded either way."""
    moment: float = (end + 1) / NS
    return moment


def _is_after(origin: Origin, moment: int) -> bool:
    """Return whether the call was surely made after `moment`; calls without a time count if they are local."""
    if origin.sent:
        return origin.sent > moment
    return not origin.received or (origin.is_local and origin.received > moment)
