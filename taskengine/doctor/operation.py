"""Checks of what an engine needs while it serves: ports, keys, the clock, the service, room, and an answer. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from taskengine.doctor.observation import SERVICE, Case, Observation, Surroundings, ok, runs, warning, wrong

MIB = 2**20
DISK = ("/", 500 * MIB, 20 * MIB, "sudo du -xh / | sort -h | tail")
# the folders are asked for their room, not written to
ROOMS = (
    DISK,
    ("/tmp", 50 * MIB, MIB, "ls -lSh /tmp"),  # noqa: S108
    ("/dev/shm", 16 * MIB, MIB, "sudo mount -o remount,size=64M /dev/shm"),  # noqa: S108
)
"""Paths, the free bytes below which there is a warning, and below which something is wrong, and the line to type."""
MANY_RESTARTS = 3
SLOW_S = 0.02
EARLIEST = 1735689600
"""2025-01-01, in s since 1970. The clock of a Pi that has met no time server may be years behind."""


def check_ports(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check that the engine can listen on its ports, or does so already."""
    settings = case.settings
    ports = [settings.router_frontend, settings.router_backend, *settings.data_ports()]
    ports += [settings.stop_port] if settings.hardware and settings.stop_port else []
    ports += [settings.metrics_port] if settings.metrics_port else []
    refused = {port: why for port in ports if (why := around.refusal(settings.host, port))}
    if runs(case, around):
        yield ok("ports", f"the engine listens on {settings.host}:{settings.router_frontend}")
    elif refused:
        told = ", ".join(f"{settings.host}:{port} ({why})" for port, why in refused.items())
        first = next(iter(refused))
        yield wrong("ports", f"cannot listen on {told}", f"sudo ss -ltnp 'sport = :{first}'")
    else:
        yield ok("ports", f"{', '.join(map(str, ports))} are free on {settings.host}")


def check_keys(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check whether clients on other machines have keys; the settings' check tells of the files' modes."""
    if not case.settings.is_curved:
        yield ok("keys", f"not used: the engine serves on {case.settings.host}")
    elif case.clients:
        yield ok("keys", f"{case.clients} {'client is' if case.clients == 1 else 'clients are'} let in")
    else:
        yield warning("keys", "no client has a key, so nobody is let in", "taskengine keys pair NAME")


def check_clock(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check that the clock has been set."""
    now, told = (around.run("date", "+%s") or "").strip(), around.run("timedatectl", "show") or ""
    synchronized = re.search(r"^NTPSynchronized=(yes|no)$", told, re.MULTILINE)
    line = "sudo timedatectl set-ntp true"
    if now.isdigit() and int(now) < EARLIEST:
        date = (around.run("date", "+%Y-%m-%d") or now).strip()
        yield wrong("clock", f"it says {date}: nothing has set it", line)
    elif synchronized is None:
        yield ok("clock", "it is set; whether by a time server cannot be told")
    elif synchronized[1] == "no":
        yield warning("clock", "no time server has set it: published times may jump", line)
    else:
        yield ok("clock", "set by a time server")


def check_service(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check the state of the systemd service, if there is one."""
    told = around.run("systemctl", "show", SERVICE)
    if told is None:
        yield ok("service", "systemd does not run here, or does not answer")
        return
    shown = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    state, restarts = shown.get("ActiveState", ""), int(shown.get("NRestarts") or 0)
    log = f"journalctl -u {SERVICE} -n 50"
    if shown.get("LoadState") != "loaded":
        yield ok("service", "not installed: the engine does not start with the machine", "taskengine service install")
    elif state == "failed" or shown.get("SubState") == "auto-restart":
        yield wrong("service", f"{state or 'unknown'} ({shown.get('Result', '')}), {restarts} restarts", log)
    elif restarts >= MANY_RESTARTS:
        yield warning("service", f"{state}, but systemd has restarted it {restarts} times", log)
    elif state == "active":
        is_enabled = shown.get("UnitFileState") == "enabled"
        state_of = ok if is_enabled else warning
        line = "" if is_enabled else f"sudo systemctl enable {SERVICE}"
        yield state_of("service", "active" + ("" if is_enabled else ", but not started with the machine"), line)
    else:
        yield warning("service", f"installed, and {state or 'unknown'}", f"sudo systemctl start {SERVICE}")


def check_disk(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check that there is room for what the engine and its tasks write, also in shared memory."""
    roomy = []
    for path, few, none, line in ((case.folder, *DISK[1:]), *ROOMS):
        space = around.space(path)
        if space is None or not space.total:
            continue
        told = f"{space.free / MIB:,.0f} MiB free of {space.total / MIB:,.0f} in {path}"
        if space.free < none:
            yield wrong("disk", told, line)
        elif space.free < few:
            yield warning("disk", told, line)
        else:
            roomy.append(f"{path} {space.free / MIB:,.0f} MiB")
    if roomy:
        yield ok("disk", f"free: {', '.join(roomy)}")


def check_engine(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check whether the engine answers, and how fast."""
    reply = case.reply
    if reply.seconds is not None:
        state = warning if reply.seconds > SLOW_S else ok
        line = "taskengine top" if reply.seconds > SLOW_S else ""
        yield state("engine", f"{reply.address} answers in {reply.seconds * 1000:.2f} ms", line)
        if reply.release != case.release:
            theirs = f"taskengine {reply.release}" if reply.release else "a taskengine before 0.2"
            told = f"{reply.address} is {theirs}, and this is {case.release}: restart it if it was updated"
            yield warning("engine", told, "taskengine service install")
    elif not reply.address:
        yield ok("engine", f"not asked: {reply.why}")
    elif reply.is_ours:
        yield wrong("engine", f"one runs at {reply.address} and does not answer: {reply.why}", "taskengine top")
    else:
        yield ok("engine", f"none answers at {reply.address}: {reply.why}", "taskengine serve")
