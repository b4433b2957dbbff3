"""Who called the task that runs, and what it may use: for task functions."""

from __future__ import annotations

from contextvars import ContextVar

from taskengine.errors import NotAllowed
from taskengine.policy import Policy, Rights


class _Rules:
    """Of this process: the engine's policy."""

    policy: Policy | None = None


_NOBODY: tuple[str, Rights] = ("", Rights(()))
_current: ContextVar[tuple[str, Rights]] = ContextVar("caller", default=_NOBODY)


def obey(policy: Policy | None) -> None:
    """This process runs tasks under the policy."""
    _Rules.policy = policy


def begin(name: str) -> None:
    """The tasks that this thread runs from here on are of the client `name`."""
    if name != _current.get()[0]:
        _current.set((name, Rights(()) if _Rules.policy is None else _Rules.policy.rights(name)))


def caller() -> str:
    """The name of the client that called the task which runs, as its key says; "" where clients show no keys.

    A thread that a task starts has none, unless it runs in the task's context (`contextvars.copy_context`).
    """
    return _current.get()[0]


def check_device(device: str) -> None:
    """Keep the task from using a device that its caller may not. Raises NotAllowed, which is what the client gets."""
    name, rights = _current.get()
    if _Rules.policy is not None and not rights.may_use(device):
        raise NotAllowed(f"the engine's policy does not let client {name!r} use device {device}")
