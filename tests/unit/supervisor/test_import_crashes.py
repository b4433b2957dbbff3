from __future__ import annotations

from taskengine.runtime.intervals import IMPORT_TIMEOUT_S
from taskengine.supervisor.import_crashes import KILLS, ImportCrashes

ROLE, MODULE = "task worker 1", "arm"


def test_a_module_that_ends_its_process_is_left_out_at_once() -> None:
    assert ImportCrashes().verdict(ROLE, MODULE, "SIGSEGV", 0.1) == "it ended the process that loaded it (SIGSEGV)"
    assert (
        ImportCrashes().verdict(ROLE, MODULE, "exit code 3", 0.1) == "it ended the process that loaded it (exit code 3)"
    )


def test_a_kill_counts_when_it_happens_again_and_again() -> None:
    crashes = ImportCrashes()
    found = [crashes.verdict(ROLE, MODULE, "SIGKILL", 0.1) for _ in range(KILLS)]
    assert found == [""] * (KILLS - 1) + ["it ended the process that loaded it (SIGKILL)"]


def test_kills_count_for_each_role_and_module_and_from_the_last_start_that_worked() -> None:
    crashes = ImportCrashes()
    for _ in range(KILLS - 1):
        assert not crashes.verdict(ROLE, MODULE, "SIGKILL", 0.1)
        assert not crashes.verdict(ROLE, "leg", "SIGKILL", 0.1)
        assert not crashes.verdict("task worker 2", MODULE, "SIGKILL", 0.1)
    crashes.online("task worker 2")
    assert not crashes.verdict("task worker 2", MODULE, "SIGKILL", 0.1)
    crashes.online(ROLE)
    assert not crashes.verdict(ROLE, MODULE, "SIGKILL", 0.1)


def test_an_import_that_takes_too_long_is_left_out_although_the_process_was_killed() -> None:
    assert ImportCrashes().verdict(ROLE, MODULE, "SIGKILL", IMPORT_TIMEOUT_S) == "its import takes longer than 60 s"
