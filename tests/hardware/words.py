"""Random schedules of what clients say to a machine, and when it is heard; `schedules` plays them.

Clients that live, die and come back command devices, acquire and renew leases, bring devices to rest, stop the machine
and arm it. What they say is on its way for as long as it likes, in any order, also twice. A router numbers it, a lane
runs it by the real `Control` over the real `SharedState`; owners, guardian and time go on as in `schedules`.

The judge keeps its own account, of what was called when by a clock that sees all, and looks at each value that is
written to a pin: whatever moves does so by a word that is recent, was said after the latest stop, since whose arm its
client has consented, that nobody has brought to rest since, and that no other client's hold forbids.
"""

from __future__ import annotations

import mmap
import random
from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import taskengine_hardware
from taskengine import Origin, TaskEngineError
from taskengine_hardware.control import Control
from taskengine_hardware.device_config import LANE, Value
from taskengine_hardware.failover import Action, FailoverPolicy
from taskengine_hardware.shared_state import NEVER, SharedState
from tests.hardware.schedules import World

NS = 1_000_000_000
STEPS = 48
LEASE_NS = NS // 2
BEGIN = 10**12
DEVICES: dict[str, dict[str, Any]] = {
    "wheel": {"type": "Motor", "forward": 20, "backward": 21},
    "drill": {"type": "Motor", "forward": 22, "backward": 23},
    "lamp": {"type": "LED", "pin": 17},
}
SAFE: dict[str, Value] = {"wheel": 0.0, "drill": 0.0, "lamp": False}
LEASED = ("wheel", "drill")
PAUSES_S = (0.0, 0.001, 0.01, 0.03, 0.1, 0.3, 0.6, 2.0)
"""How long nothing happens."""
DEEDS = ("set", "set", "set", "set", "off", "acquire", "acquire", "renew", "release", "rest", "stop", "arm", "arm")
URGENT = frozenset({"rest", "stop"})


class Broken(Exception):
    """Something moved that should not, or a stop was undone that should not be."""


class Client:
    """A program that calls; one without a token is of wire 0.1."""

    def __init__(self, number: int, now: int, *, name: str, has_token: bool, bound: int) -> None:
        self.name = name
        self.number = number
        self.token = b"token-%d" % number if has_token else b""
        self.since = now if has_token else 0
        self.bound = bound
        self.knows = 0
        """The stop that it has heard of."""


class Word(NamedTuple):
    """Something that a client said, at `called`; `sent` and `bound` are what its message says of that."""

    deed: str
    client: Client
    device: str
    called: int
    sent: int
    id: bytes
    number: int | None
    flag: bool
    """It acquires for itself alone."""

    def __str__(self) -> str:
        says = f"{self.deed} {self.device} ({self.client.token.decode() or 'seed'}, {(self.called - BEGIN) / NS:.4f}"
        return f"{says}, names {self.number}{', alone' if self.flag else ''})"


class Package(NamedTuple):
    """Words that were sent together, by a connection to a router."""

    words: list[Word]
    connection: bytes


class Table:
    """One layout and one panel for all schedules, wiped for each."""

    def __init__(self) -> None:
        self.layout = taskengine_hardware.read({"devices": DEVICES})
        self.panel = SharedState(self.layout)
        self._memory = mmap.mmap(self.panel._fd, 0)
        self._image = self._memory[:]

    def wipe(self) -> None:
        """Have the panel be as it was when it was new."""
        self._memory[:] = self._image


class Judge:
    """The true events, and the devices that may move because of them."""

    def __init__(self) -> None:
        self.ids: dict[bytes, int] = {}
        self.stop, self.stopped_at = 0, 0
        self.armed, self.armed_at = 0, 0
        self.consents: set[bytes] = set()
        self.rests: dict[str, tuple[int, int]] = {}
        self.good: dict[str, int] = dict.fromkeys(LEASED, 0)
        """Until when the word is good that each leased device obeys."""
        self.authors: dict[str, bytes] = {}
        self.holds: dict[str, tuple[bytes, int]] = {}
        """Whose each device is alone, and until when at least."""
        self.seen: Counter[str] = Counter()

    def stops(self, id: bytes, number: int, now: int) -> None:
        """A stop was received, and has got this number."""
        if id in self.ids:
            if number != self.ids[id]:
                raise Broken("a stop that came again is another one")
            return
        if number <= self.stop:
            raise Broken("a stop has no number of its own")
        self.ids[id] = self.stop = number
        self.stopped_at = now
        self.consents.clear()
        self.holds.clear()

    def arms(self, word: Word, origin: Origin, now: int) -> None:
        """A word armed the machine, or was told that it is armed."""
        is_named = word.number is not None
        if is_named and word.number != self.stop:
            raise Broken(f"stop {self.stop} was undone by a word that named {word.number}")
        if not is_named and (word.called if word.sent else origin.received) <= self.stopped_at:
            raise Broken(f"stop {self.stop} was undone by an older word")
        if self.armed != self.stop:
            self.armed, self.armed_at = self.stop, now
        self.consents.add(origin.holder)
        self.seen["armed"] += 1

    def moves(self, word: Word | None, origin: Origin, position: int, now: int) -> None:
        """A device is driven to where it is not safe."""
        if word is None:
            raise Broken("something moved without a word")
        received, called = origin.received, word.called if word.sent else origin.received
        if self.armed != self.stop:
            raise Broken(f"{word.device} moved although the machine was stopped")
        if self.stop and (called <= self.stopped_at or received <= self.stopped_at):
            raise Broken(f"{word.device} moved by a word from before stop {self.stop}")
        if self.armed and not (origin.holder in self.consents or word.client.since > self.armed_at):
            raise Broken(f"{word.device} moved by a client that has not consented since the arm")
        if (received, position) < self.rests.get(word.device, (0, 0)):
            raise Broken(f"{word.device} moved by a word from before it was brought to rest")
        if word.device in LEASED and now > called + LEASE_NS:
            raise Broken(f"{word.device} moved by a word that was {(now - called) / NS:.3f} s old")
        holder, until = self.holds.get(word.device, (origin.holder, 0))
        if holder != origin.holder and now < until:
            raise Broken(f"{word.device} moved although another client holds it")
        self.seen["moved"] += 1

    def ran(self, word: Word, origin: Origin, now: int) -> None:
        """A word was run and not refused."""
        device, holder = word.device, origin.holder
        called = word.called if word.sent else origin.received
        self.seen[word.deed] += 1
        if word.deed == "acquire" and self.armed and called > self.armed_at:
            self.consents.add(holder)
        if word.deed == "release" and self.holds.get(device, (b"", 0))[0] == holder:
            del self.holds[device]
        if device not in LEASED:
            return
        if word.deed == "set":
            self.authors[device] = holder
        if word.deed in ("set", "acquire", "renew") and self.authors.get(device) == holder:
            self.good[device] = max(self.good[device], called + LEASE_NS)
        owner, until = self.holds.get(device, (holder, 0))
        # by what the message says of its time, which may be earlier
        end = (word.sent or origin.received) + LEASE_NS
        if word.deed == "acquire" and word.flag:
            self.holds[device] = holder, end
        elif word.deed in ("set", "renew", "acquire") and owner == holder and now < until:
            self.holds[device] = holder, max(until, end)

    def rested(self, device: str, place: tuple[int, int]) -> None:
        """Somebody wanted a device to be at rest."""
        self.rests[device] = max(self.rests.get(device, (0, 0)), place)

    def is_safe(self, device: str) -> None:
        """A device is at rest: no word holds there."""
        self.authors.pop(device, None)

    def is_up_to_date(self, device: str, value: Value, now: int) -> None:
        """The owner has done what was due, and a device is at this value."""
        if not value:
            return
        if self.armed != self.stop:
            raise Broken(f"{device} moves although the machine is stopped")
        if device in LEASED and now > self.good[device]:
            raise Broken(f"{device} moves {(now - self.good[device]) / NS:.3f} s after its last word was good")


class Machine(World):
    """A machine, its clients, and what is on its way between them."""

    def __init__(self, rng: random.Random, table: Table, story: list[str] | None = None) -> None:
        super().__init__(rng)
        self.story = story
        table.wipe()
        self.panel, self.layout = table.panel, table.layout
        self.places = [device.place for device in self.layout.devices.values()]
        self.ward = FailoverPolicy(self.places)
        self.now = BEGIN
        self.judge = Judge()
        self.epoch = 0
        self.made = 0
        self.clients = [self.client(index) for index in range(3)]
        self.air: list[Package] = []
        self.lane: list[tuple[Origin, list[tuple[int, Word]]]] = []
        self.control: Control | None = None
        self.running: Word | None = None
        self.origin, self.position = Origin(), 0
        self.received = 0
        while self.stage != 4:
            self.owner_steps()

    def client(self, index: int) -> Client:
        """Another program; the first two have one name, and the last speaks wire 0.1."""
        self.made += 1
        bound = self.rng.choice((1_000, 1_000_000, 40_000_000, 400_000_000))
        return Client(self.made, self.now, name="ab"[index // 2], has_token=index < 2, bound=bound)

    def step(self) -> None:
        """Something happens."""
        draw = self.rng.random()
        if draw < 0.26:
            self.speak()
        elif draw < 0.44:
            self.deliver()
        elif draw < 0.66:
            self.run()
        elif draw < 0.74:
            self.tick()
        elif draw < 0.84:
            self.now += int(self.rng.choice(PAUSES_S) * NS)
        elif draw < 0.88:
            self.hear()
        elif draw < 0.9:
            self.come_and_go()
        else:
            super().step()

    def note(self, what: str, *about: object) -> None:
        """Remember it for whoever reads this schedule."""
        if self.story is not None:
            self.story.append(f"{(self.now - BEGIN) / NS:8.4f} {what} {' '.join(map(str, about))}")

    # Clients and the router ------------------------------------------------------------------------------------------

    def speak(self) -> None:
        """A client sends a package."""
        client = self.rng.choice(self.clients)
        self.now += 1
        words = [self.word(client) for _ in range(self.rng.choice((1, 1, 2, 3)))]
        connection = b"%d-%s" % (self.epoch, client.token or b"%d" % client.number)
        self.air.append(Package(words, connection))
        self.note("says", *words)

    def word(self, client: Client) -> Word:
        """Something that it may say now."""
        rng = self.rng
        sent = 0 if not client.token else self.now - rng.randrange(2 * client.bound)
        number = None if rng.random() < 0.3 else client.knows
        return Word(
            rng.choice(DEEDS),
            client,
            rng.choice(tuple(DEVICES)),
            self.now,
            sent,
            b"id-%d" % rng.getrandbits(64),
            number,
            rng.random() < 0.4,
        )

    def deliver(self) -> None:
        """The router receives a package, whichever; it may come again."""
        if not self.air:
            return
        place = self.rng.randrange(len(self.air))
        package = self.air[place]
        if not all(word.deed in URGENT for word in package.words) or self.rng.random() < 0.7:
            del self.air[place]
        self.now += 1
        self.receive(package)

    def receive(self, package: Package) -> None:
        """Apply stops and rests of a package at once, and queue all of it for the lane."""
        client = package.words[0].client
        self.received = received = self.now
        origin = Origin(
            client=client.name,
            connection=package.connection,
            holder=client.name.encode() + b"\0" + client.token if client.token else package.connection,
            received=received,
            sent=min((word.sent for word in package.words), default=0),
            bound=client.bound,
            since=client.since,
            is_local=True,
        )
        for position, word in enumerate(package.words):
            if word.deed == "stop":
                number = self.panel.stop(self.now, by=client.name, id=word.id)
                self.judge.stops(word.id, number, self.now)
            elif word.deed == "rest":
                self.panel.rest(LANE, self.layout.devices[word.device].place, received, position)
                self.judge.rested(word.device, (received, position))
        self.note("receives", *package.words, origin)
        is_urgent = all(word.deed in URGENT for word in package.words)
        self.lane.insert(0 if is_urgent else len(self.lane), (origin, list(enumerate(package.words))))

    def hear(self) -> None:
        """A client hears of the stop that is in force."""
        self.rng.choice(self.clients).knows = self.panel.number

    def come_and_go(self) -> None:
        """Another router takes over, or a client dies, whose words are still on their way, and another one comes."""
        self.now += 1
        if self.rng.random() < 0.5:
            self.epoch += 1
            self.note("another router")
            return
        index = self.rng.randrange(len(self.clients))
        self.clients[index] = self.client(index)
        self.note("another client", index)

    # The lane --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """The lane's owner runs the next word."""
        if self.control is None or not self.lane or self.stage != 4:
            return
        self.now += 1
        self.origin, words = self.lane[0]
        self.position, word = words.pop(0)
        if not words:
            del self.lane[0]
        self.running = word
        try:
            self.obey(self.control, word)
        except TaskEngineError as error:
            self.judge.seen[type(error).__name__] += 1
            self.note("refuses", word, error)
        else:
            self.judge.ran(word, self.origin, self.now)
            self.note("runs", word)
        finally:
            self.running = None

    def obey(self, control: Control, word: Word) -> None:
        """Do what the task does."""
        now, output = self.now / NS, control.find(word.device)
        if word.deed == "set":
            control.command(output, True if word.device == "lamp" else 1.0, self.origin, now)
        elif word.deed == "off":
            control.command(output, SAFE[word.device], self.origin, now)
        elif word.deed == "acquire":
            control.acquire([output], self.origin, now, exclusive=word.flag, take_over=False)
        elif word.deed == "renew":
            control.renew([output], self.origin, now)
        elif word.deed == "release":
            control.admission.release([output], self.origin)
        elif word.deed == "rest":
            control.bring_to_rest(output, self.origin, self.position, now)
        elif word.deed == "arm":
            control.arm(self.origin, now, word.number)
            self.judge.arms(word, self.origin, self.now)

    def tick(self) -> None:
        """The owner does what is due, and the judge looks."""
        if self.control is None or self.stage != 4:
            return
        self.control.tick(self.now / NS)
        for name, output in self.control.outputs.items():
            self.judge.is_up_to_date(name, output.value, self.now)

    def written(self, device: str, value: Value) -> None:
        """The owner has driven a pin."""
        if self.owner not in self.pins:
            raise Broken(f"{device} was driven by who has no pins")
        if value:
            self.judge.moves(self.running, self.origin, self.position, self.now)
        else:
            self.judge.is_safe(device)

    # Owners and the guardian -----------------------------------------------------------------------------------------

    def open(self, owner: int) -> None:
        """See `World.open`."""
        super().open(owner)
        devices = self.layout.of(LANE)
        control = Control(LANE, devices, self.panel, lambda output, now: True, position=lambda: self.position)
        for output in control.outputs.values():
            output.write = partial(self.written, output.device.name)
        control.begin({device.place: SAFE[device.name] for device in devices}, self.now / NS)
        self.control = control

    def close(self, owner: int) -> None:
        """See `World.close`."""
        if self.control is not None:
            self.control.rest()
        self.control = None
        super().close(owner)

    def kill(self, who: int | None) -> None:
        """See `World.kill`; what waits for a dead owner is dropped."""
        if who is not None and who == self.owner:
            self.control = None
            self.lane.clear()
            self.note("the owner dies")
        super().kill(who)

    def look(self) -> Action | None:
        """See `World.look`; how late an owner is comes of the schedule."""
        is_late = LANE in self.panel.unconfirmed()
        return self.ward.next(
            self.panel.ends,
            self.now,
            wanted_by=self.wanted,
            has_begun=self.stage == 4,
            stopped_at=self.panel.stopped_at if is_late else None,
        )

    def settle(self) -> None:
        """See `World.settle`."""
        number = self.panel.number
        for device in self.layout.of(LANE):
            self.panel.note(device.place, SAFE[device.name])
            self.panel.ends[device.place] = NEVER
            self.judge.is_safe(device.name)
        self.panel.confirm(LANE, number)
        super().settle()

    def end_guardian(self) -> None:
        """See `World.end_guardian`."""
        super().end_guardian()
        self.ward = FailoverPolicy(self.places)
        self.ward.is_orphan = True


def play(schedules: int, seed: int) -> tuple[list[str], Counter[str]]:
    """Play so many schedules: what broke, at most ten times, and how often everything happened."""
    table = Table()
    broken: list[str] = []
    seen: Counter[str] = Counter()
    for number in range(schedules):
        found = play_one(f"{seed}-{number}", table, seen)
        if found:
            broken.append(f"schedule {seed}-{number}: {found}")
            if len(broken) == 10:
                break
    return broken, seen


def play_one(name: str, table: Table, seen: Counter[str], story: list[str] | None = None) -> str:
    """Return what broke in the schedule of this name, "" for nothing; `story` gets what happened."""
    world = Machine(random.Random(name), table, story)
    try:
        for _ in range(STEPS):
            world.step()
            if len(world.pins) > 1:
                return "two owners of a pin"
        world.tick()
    except Broken as error:
        return str(error)
    finally:
        seen.update(world.judge.seen)
    return ""
