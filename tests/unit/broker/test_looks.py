"""What is taken from the page of a worker at work is answered once, whatever the worker says or does later."""

from __future__ import annotations

import math

import pytest

from taskengine._fastpath import FIRST_LOOK
from taskengine.broker.broker import Broker
from taskengine.broker.lane import Batch
from taskengine.broker.looks import PageLook, Piece
from taskengine.broker.package import Package
from taskengine.broker.partials import PartialResults
from taskengine.broker.quota import NO_LIMITS, QuotaLimits
from taskengine.broker.recovery import SENSELESS, Account, Answered
from taskengine.broker.tuning import LONGEST_LOOK_S, LOOK_S
from taskengine.errors import TaskFailed
from tests.packages import Plain, answer, package

CURSOR = (1, 2, 3, 4, 5)


def each(tasks: int) -> Plain:
    made = package(tasks)
    made.results = PartialResults(tasks)
    return made


class Scene:
    """A worker with a package of `tasks` tasks in one batch."""

    def __init__(self, tasks: int = 5, made: Plain | None = None, limits: QuotaLimits = NO_LIMITS) -> None:
        self.broker = Broker(None, {"": 1}, limits=limits)
        self.broker.join("w", "")
        self.package = each(tasks) if made is None else made
        self.broker.accept(self.package)
        (self.batch,) = self.broker.dispatch()

    def looks(self, now: float) -> list[PageLook]:
        return self.broker.looks.due(now)

    def take(self, *pieces: Piece) -> list[Package]:
        """The worker's page has these."""
        self.broker.looks.due(0.0)
        (look,) = self.broker.looks.due(LOOK_S)
        return self.broker.looks.take(look, pieces, CURSOR)

    def piece(self, first: int, stop: int, failed: int = 0) -> Piece:
        job, first, stop, _, _, body = answer(self.batch.slices[0], first, stop)
        return job, first, stop, failed, body

    def entry(self, first: int, stop: int, failed: int = 0) -> Answered:
        job, _, _, _, took_ns, body = answer(self.batch.slices[0], first, stop)
        return job, first, stop, failed, took_ns, body

    def sent(self) -> dict[int, bytes]:
        """What the client has by now, and no task twice."""
        results = self.package.results
        assert isinstance(results, PartialResults)
        found: dict[int, bytes] = {}
        for part in results.take():
            entries = b"".join(part.bodies).removeprefix(b"<").removesuffix(b">").split(b"><")
            assert found.keys().isdisjoint(range(part.first, part.stop))
            found |= dict(zip(range(part.first, part.stop), entries, strict=True))
        return found


ALL = {position: b"%d" % position for position in range(5)}


def lost(first: int) -> dict[int, bytes]:
    """What the client has of tasks that had run, and of the others, that were lost."""
    return {position: b"%d" % position + (b" WorkerLost" if position >= first else b"") for position in range(5)}


def test_when_a_page_is_looked_at() -> None:
    scene = Scene()
    assert not scene.looks(10.0)
    assert scene.broker.looks.is_watching
    assert not scene.looks(10.0 + LOOK_S / 2)
    (look,) = scene.looks(10.0 + LOOK_S)
    assert look == PageLook("w", scene.batch.number, FIRST_LOOK, frozenset({scene.package.flight.job}))
    assert not scene.looks(10.0 + 1.5 * LOOK_S)
    assert not scene.broker.looks.take(look, [scene.piece(0, 2)], CURSOR)
    (look,) = scene.looks(11.0)
    assert look.cursor == CURSOR
    scene.broker.looks.take(look, [scene.piece(2, 4)], CURSOR)
    assert not scene.looks(20.0), "the last task ends the batch"
    assert not scene.broker.looks.is_watching


def test_looks_become_rarer_until_something_is_found() -> None:
    scene = Scene()
    looks = scene.broker.looks
    assert not looks.due(0.0)
    assert looks.next_at == LOOK_S
    now, pauses = 0.0, []
    while now < 1.0:
        pauses.append(looks.next_at - now)
        now = looks.next_at
        (look,) = looks.due(now)
    assert [round(pause, 6) for pause in pauses] == sorted(round(pause, 6) for pause in pauses)
    assert pauses[0] == LOOK_S
    assert pauses[-1] == pytest.approx(LONGEST_LOOK_S)
    assert len(pauses) < 1.1 / LONGEST_LOOK_S
    looks.take(look, [scene.piece(0, 2)], CURSOR)
    assert looks.next_at == now + LOOK_S
    looks.due(now + LOOK_S)
    assert looks.next_at == pytest.approx(now + 2 * LOOK_S)
    scene.broker.finish("w", [scene.entry(0, 5)])
    looks.due(2.0)
    assert not looks.is_watching
    assert looks.next_at == math.inf


@pytest.mark.parametrize("made", [each(1), package(5)], ids=["one task", "one reply"])
def test_nobody_looks_at_what_nobody_wants_early(made: Plain) -> None:
    scene = Scene(made=made)
    for now in (0.0, 10.0, 20.0):
        assert not scene.looks(now)
        assert not scene.broker.looks.is_watching


def test_an_answer_gives_the_rest() -> None:
    scene = Scene()
    assert not scene.take(scene.piece(0, 1), scene.piece(1, 3, failed=1))
    assert scene.sent() == {0: b"0", 1: b"1", 2: b"2"}
    stats = scene.broker.stats({})
    assert (stats.answered, stats.in_flight) == (3, 2)
    assert scene.broker.finish("w", [scene.entry(0, 5, failed=2)]) == [scene.package]
    assert scene.sent() == {3: b"3", 4: b"4"}
    stats = scene.broker.stats({})
    assert (stats.answered, stats.in_flight, stats.errors) == (5, 0, {"failed": 2})
    assert sum(stats.running.tasks) == 5
    assert scene.package.results.failed == 2


def test_a_package_may_be_whole_before_its_batch() -> None:
    scene = Scene()
    assert scene.take(scene.piece(0, 5)) == [scene.package]
    assert scene.sent() == ALL
    scene.package.forget()
    assert scene.broker.idle()
    assert scene.broker.finish("w", [scene.entry(0, 5)]) == []
    assert scene.broker.stats({}).answered == 5


def test_who_dies_leaves_the_rest() -> None:
    scene = Scene()
    scene.take(scene.piece(0, 2))
    sent = scene.sent()
    account = Account([], scene.entry(0, 4), (scene.package.flight.job, 4))
    assert scene.broker.leave("w", [account]) == [scene.package]
    assert sent | scene.sent() == lost(4)


@pytest.mark.parametrize("account", [None, SENSELESS, Account([], None, None)], ids=["none", "senseless", "empty"])
def test_what_was_taken_is_not_run_again_whatever_the_page_says(account: Account | None) -> None:
    scene = Scene()
    scene.take(scene.piece(0, 2))
    sent = scene.sent()
    whole = scene.broker.leave("w", [account])
    if account is not SENSELESS:
        scene.broker.join("other", "")
        (batch,) = scene.broker.dispatch()
        assert [slice.tasks()[1:] for slice in batch.slices] == [(2, 5)]
        whole = scene.broker.finish("other", [scene.entry(2, 5)])
    assert whole == [scene.package]
    assert sent | scene.sent() == (lost(2) if account is SENSELESS else ALL)
    stats = scene.broker.stats({})
    assert (stats.accepted, stats.answered, stats.in_flight) == (5, 5, 0)


def test_an_answer_that_takes_back_what_was_taken_is_not_believed() -> None:
    scene = Scene()
    scene.take(scene.piece(0, 4))
    assert scene.broker.finish("w", [scene.entry(0, 1), scene.entry(1, 2)]) == []
    (batch,) = scene.broker.dispatch()
    assert [slice.tasks()[1:] for slice in batch.slices] == [(4, 5)]
    assert scene.broker.finish("w", [scene.entry(4, 5)]) == [scene.package]
    assert scene.sent() == ALL


def test_an_answer_without_room_fails_the_rest() -> None:
    scene = Scene()
    scene.take(scene.piece(0, 4))
    assert scene.broker.give_up("w", TaskFailed("too large")) == [scene.package]
    assert scene.sent() == {**ALL, 4: b"4 TaskFailed"}


def nonsense(scene: Scene) -> list[Piece]:
    job, *_ = scene.piece(0, 1)
    return [(job + 1, 0, 1, 0, b"x"), (job, 1, 2, 0, b"x"), (job, 0, 9, 0, b"x"), (job, 0, 0, 0, b"")]


@pytest.mark.parametrize("number", range(4))
def test_a_page_without_sense_is_looked_at_no_more(number: int) -> None:
    scene = Scene()
    assert scene.take(nonsense(scene)[number]) == []
    assert not scene.looks(10.0)
    assert scene.broker.finish("w", [scene.entry(0, 5)]) == [scene.package]
    assert scene.sent() == ALL


def test_what_finds_no_room_waits_for_the_next_look() -> None:
    scene = Scene(limits=QuotaLimits(10**6, 10**6, 10**6, package(5).size + 4096))
    job, first, stop, failed, _ = scene.piece(0, 2)
    assert scene.take((job, first, stop, failed, bytes(5000))) == []
    assert scene.sent() == {}
    (look,) = scene.looks(1.0)
    assert look.cursor == FIRST_LOOK


def test_a_look_at_a_batch_that_was_answered_meanwhile_finds_nothing() -> None:
    scene = Scene()
    scene.looks(0.0)
    (look,) = scene.looks(1.0)
    scene.broker.finish("w", [scene.entry(0, 5)])
    assert scene.broker.looks.take(look, [scene.piece(0, 2)], CURSOR) == []
    scene.broker.looks.give_up(look)
    assert scene.sent() == ALL


def test_slices_of_others_are_passed_over() -> None:
    broker = Broker(1, {"": 1})
    broker.join("w", "")
    warm = package(1)
    broker.accept(warm)
    (batch,) = broker.dispatch()
    broker.finish("w", [answer(batch.slices[0], 0, 1)])
    plain, wanted = package(2), each(3)
    for made in (plain, wanted):
        broker.accept(made)
    batch = joined(broker.dispatch())
    assert [slice.package for slice in batch.slices] == [plain, wanted]
    broker.looks.due(0.0)
    (look,) = broker.looks.due(1.0)
    assert look.jobs == {wanted.flight.job}
    one, two = (answer(slice, slice.first, slice.stop) for slice in batch.slices)
    broker.looks.take(look, [(one[0], 0, 2, 0, None), (two[0], 0, 1, 0, b"<0>")], CURSOR)
    assert (plain.results.missing, wanted.results.missing) == (2, 2)
    assert broker.finish("w", [one, two]) == [plain, wanted]
    assert plain.results.join() == b"<0><1>"


def joined(batches: list[Batch]) -> Batch:
    (batch,) = batches
    return batch
