"""Who called the task that runs, and what it may use: for task functions."""

from __future__ import annotations

from taskengine.errors import NotAllowed
from taskengine.policy import Policy, Rights


class _Context:
    """Of this process: the engine's policy, and whose task runs."""

    policy: Policy | None = None
    name = ""
    rights: Rights | None = None


def obey(policy: Policy | None) -> None:
    """This process runs tasks under the policy."""
    _Context.policy = policy


def begin(name: str) -> None:
    """The tasks that run from here on are of the client `name`."""
    if name != _Context.name or _Context.rights is None:
        _Context.name = name
        _Context.rights = None if _Context.policy is None else _Context.policy.rights(name)


def caller() -> str:
    """The name of the client that called the task which runs, as its key says; "" where clients show no keys."""
    return _Context.name


def check_device(device: str) -> None:
    """Keep the task from using a device that its caller may not. Raises NotAllowed, which is what the client gets."""
    rights = _Context.rights
    if rights is not None and not rights.may_use(device):
        raise NotAllowed(f"the engine's policy does not let client {_Context.name!r} use device {device}")
