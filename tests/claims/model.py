"""A model of the claim word and of what is published beside it, in which every order of steps is tried.

Two agents take steps over a memory that each sees through a store buffer of its own: a plain store waits in the buffer
and reaches the memory at any later moment, in any order with stores to other places, as on ARM. A store with release
reaches it only after all that were buffered before; a compare-and-swap takes effect at once, on the memory itself, and
with release also empties the buffer first. Loads see the agent's own buffer before the memory.

The worker claims strides of a batch, writes a result for each task and publishes how many there are. The router offers
the batch, takes back tasks from the end, and reads published results. What must hold in every end: each task was run
once or taken back once. What must hold in every step: a result that is published can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

HALF = 16
WORD, DONE, RESULT = "word", "done", "result"
Place = tuple[str, int]
Buffer = tuple[tuple[Place, int], ...]


class Rules(NamedTuple):
    """How the agents do it; the defaults are as `_claim.h` and `_progress.pxi` do it."""

    claims_at_once: bool = True
    takes_at_once: bool = True
    releases: bool = True
    tasks: int = 3
    strides: tuple[int, ...] = (1, 2)
    taken: tuple[int, ...] = (1, 2)


class State(NamedTuple):
    """Memory, and for each agent its buffer, where it is, and what it holds in registers."""

    memory: tuple[tuple[Place, int], ...]
    buffers: tuple[Buffer, Buffer]
    worker: tuple[str, int, int, int]
    """Step, word as seen, next task, tasks that are claimed."""
    router: tuple[str, int, int]
    """Step, word as seen, how many tasks the batch has left."""
    ran: tuple[int, ...]


WORKER, ROUTER = 0, 1


def _load(state: State, agent: int, place: Place) -> int:
    for stored, value in reversed(state.buffers[agent]):
        if stored == place:
            return value
    return dict(state.memory).get(place, 0)


def _store(state: State, agent: int, place: Place, value: int, *, releases: bool) -> State | None:
    """Store a value, at once with release: None while older stores are in the buffer."""
    if not releases:
        return _with_buffer(state, agent, (*state.buffers[agent], (place, value)))
    if state.buffers[agent]:
        return None
    return state._replace(memory=_written(state, place, value))


def _written(state: State, place: Place, value: int) -> tuple[tuple[Place, int], ...]:
    return tuple(sorted({**dict(state.memory), place: value}.items()))


def _with_buffer(state: State, agent: int, buffer: Buffer) -> State:
    buffers = list(state.buffers)
    buffers[agent] = buffer
    return state._replace(buffers=(buffers[0], buffers[1]))


def _drained(state: State) -> Iterator[State]:
    """Any buffered store reaches the memory, if none to the same place is before it."""
    for agent in (WORKER, ROUTER):
        buffer = state.buffers[agent]
        for number, (place, value) in enumerate(buffer):
            if all(other != place for other, _ in buffer[:number]):
                rest = _with_buffer(state, agent, (*buffer[:number], *buffer[number + 1 :]))
                yield rest._replace(memory=_written(state, place, value))


def _swapped(state: State, agent: int, seen: int, wanted: int, *, at_once: bool) -> tuple[State | None, bool]:
    """Swap the claim word: (state, whether it succeeded); None while older stores are in the buffer."""
    if state.buffers[agent]:
        return None, False
    if at_once and _load(state, agent, (WORD, 0)) != seen:
        return state, False
    return state._replace(memory=_written(state, (WORD, 0), wanted)), True


def _left(word: int) -> int:
    return max((word >> HALF) - (word & (1 << HALF) - 1), 0)


def _worker_steps(state: State, rules: Rules) -> Iterator[State]:
    step, seen, at, claimed = state.worker
    if step == "look":
        yield state._replace(worker=("claim", _load(state, WORKER, (WORD, 0)), at, 0))
    elif step == "claim":
        if not _left(seen):
            yield state._replace(worker=("end", 0, at, 0))
            return
        for stride in rules.strides:
            got = min(stride, _left(seen))
            after, is_ours = _swapped(state, WORKER, seen, seen + got, at_once=rules.claims_at_once)
            if after is not None:
                yield after._replace(worker=("run", 0, at, got) if is_ours else ("look", 0, at, 0))
    elif step == "run":
        ran = tuple(times + (task == at) for task, times in enumerate(state.ran))
        after = _store(state, WORKER, (RESULT, at), at + 1, releases=False)
        assert after is not None
        yield after._replace(worker=("publish", 0, at, claimed), ran=ran)
    elif step == "publish":
        after = _store(state, WORKER, (DONE, 0), at + 1, releases=rules.releases)
        if after is not None:
            yield after._replace(worker=("run" if claimed > 1 else "look", 0, at + 1, claimed - 1))


def _router_steps(state: State, rules: Rules) -> Iterator[State]:
    step, seen, left = state.router
    if step == "look":
        yield state._replace(router=("end", 0, left))
        yield state._replace(router=("take", _load(state, ROUTER, (WORD, 0)), left))
    elif step == "take":
        if not _left(seen):
            yield state._replace(router=("look", 0, left))
            return
        for most in rules.taken:
            taken = min(most, _left(seen))
            after, is_ours = _swapped(state, ROUTER, seen, seen - (taken << HALF), at_once=rules.takes_at_once)
            if after is not None:
                yield after._replace(router=("look", 0, (seen >> HALF) - taken if is_ours else left))


class Found(NamedTuple):
    """How many states there are, and what went wrong in some of them."""

    states: int
    problems: set[str]


def explore(rules: Rules) -> Found:
    """Try every order of steps from an offered batch on."""
    first = State(
        memory=(((WORD, 0), rules.tasks << HALF),),
        buffers=((), ()),
        worker=("look", 0, 0, 0),
        router=("look", 0, rules.tasks),
        ran=(0,) * rules.tasks,
    )
    seen, waiting, problems = {first}, [first], set[str]()
    steps: tuple[Callable[[State, Rules], Iterator[State]], ...] = (_worker_steps, _router_steps)
    while waiting:
        state = waiting.pop()
        problems |= _problems(state)
        for after in (*_drained(state), *(after for agent in steps for after in agent(state, rules))):
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    return Found(len(seen), problems)


def _problems(state: State) -> set[str]:
    found = set()
    done = _load(state, ROUTER, (DONE, 0))
    if any(_load(state, ROUTER, (RESULT, task)) != task + 1 for task in range(done)):
        found.add("a published result cannot be read")
    if state.worker[0] == state.router[0] == "end" and not any(state.buffers):
        owed = tuple(int(task < state.router[2]) for task in range(len(state.ran)))
        if any(times > owed for times, owed in zip(state.ran, owed, strict=True)):
            found.add("a task ran twice, or ran and was taken back")
        if any(times < owed for times, owed in zip(state.ran, owed, strict=True)):
            found.add("a task was lost")
    return found
