"""The router's process: its limits, and what it says at its start."""

from __future__ import annotations

import zmq

from taskengine.config.settings import Settings
from taskengine.protocol.messages import TaskInfo
from taskengine.router.router import Router
from taskengine.runtime.control import Online, StartFailed
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.runtime.memory import give_back_memory, hold_back_collections
from taskengine.runtime.rlimits import limit_files, limit_memory, router_memory
from taskengine.runtime.topology import Topology


def run(
    settings: Settings,
    frontends: list[str],
    backends: list[str],
    topology: Topology,
    lanes: dict[str, int],
    tasks: list[TaskInfo],
    control: ControlChannel,
    log: LogBuffer,
) -> None:
    """Run the router's process. Tells the supervisor `online`, or `failed` with the reason."""
    give_back_memory()
    hold_back_collections()
    limit_files(settings)
    limit_memory(router_memory(settings))
    try:
        router = Router(settings, frontends, backends, topology, lanes, tasks, control, log)
    except zmq.ZMQError as error:
        control.send(StartFailed(f"the router cannot listen: {error}"))
        return
    log.say(f"Starting [ROUTER] on socket: {settings.frontend.removeprefix('tcp://')}")
    log.say(f"[ROUTER-{settings.router_frontend}(FRONTEND)] Listener online")
    log.say(f"[ROUTER-{settings.router_backend}(BACKEND)] Listener online")
    log.say("[ROUTER-MASTER] Routing started")
    control.send(Online())
    router.serve()
