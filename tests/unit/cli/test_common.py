"""What a command says where a module is missing: the engine's on a client, or one that was made for another Python."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner, Result

from taskengine.cli.common import SAID_NO, WRONG_USAGE, Command


def told(error: Exception) -> Result:
    """Return how the program ends if a command raises this."""

    @click.group(cls=Command)
    def group() -> None:
        """The program."""

    @group.command()
    def serve() -> None:
        raise error

    return CliRunner().invoke(group, [])


def missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    "name", ["grp", "termios", "taskengine.doctor", "taskengine.supervisor.supervisor", "taskengine.worker.worker"]
)
def test_the_engines_side_is_not_on_a_client(name: str) -> None:
    ended = told(missing(name))
    assert ended.exit_code == SAID_NO
    assert "here is only the client" in ended.output
    assert ended.output.count("\n") == 1


@pytest.mark.parametrize("name", ["taskengine._fastpath", "taskengine._socket", "taskengine.client.blocking"])
def test_a_module_that_was_made_for_another_python(name: str) -> None:
    ended = told(missing(name))
    assert ended.exit_code == WRONG_USAGE
    assert f"No module named '{name}'; this is Python" in ended.output


def test_a_compiled_module_of_another_release_says_so_itself() -> None:
    ended = told(ImportError("taskengine._socket was compiled for taskengine 0.1", name="taskengine._socket"))
    assert ended.exit_code == WRONG_USAGE
    assert ended.output == "taskengine: taskengine._socket was compiled for taskengine 0.1\n"


@pytest.mark.parametrize("error", [missing("broker"), missing("other.worker"), ImportError("no name")])
def test_other_modules_are_not_ours_to_tell_of(error: ImportError) -> None:
    assert told(error).exception is error
