"""The checks of `taskengine doctor`, in the order of its table. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from taskengine.doctor import board, operation, software
from taskengine.doctor.observation import Case, Observation, Surroundings

CHECKS: tuple[Callable[[Case, Surroundings], Iterator[Observation]], ...] = (
    software.check_python,
    software.check_packages,
    software.check_compiled,
    software.check_libzmq,
    software.check_settings,
    board.check_groups,
    board.check_chips,
    board.check_buses,
    board.check_pins,
    board.check_power,
    board.check_temperature,
    operation.check_ports,
    operation.check_keys,
    operation.check_clock,
    operation.check_service,
    operation.check_disk,
    operation.check_engine,
)


def examine(case: Case, around: Surroundings) -> list[Observation]:
    """Return what every check finds."""
    return [observation for check in CHECKS for observation in check(case, around)]
