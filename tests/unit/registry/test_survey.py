"""Which modules TASKS names, what they register, and how they are loaded."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine import TaskModuleError, task
from taskengine.errors import TaskFailed
from taskengine.registry.loading import install, load
from taskengine.registry.registry import Registry
from taskengine.registry.survey import Module, TaskCode, load_code, survey
from taskengine.supervisor.catalogue import load_catalogue
from taskengine.worker.worker import BatchRunner
from tests.engine import deadline


@pytest.fixture(autouse=True)
def clean_path() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    install({})
    for name in sys.modules.keys() - modules:
        del sys.modules[name]


def write(folder: Path, **files: str) -> list[str]:
    """Files of these names; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return [str(folder / f"{name}.py") for name in files]


def users(code: TaskCode) -> list[Module]:
    """The modules without the built-in ones."""
    return [module for module in code.modules if module.name != "taskengine.sources"]


def names(registry: Registry) -> list[str]:
    return list(registry.tasks)


CLAIMS = "from taskengine import task\nraise OSError('GPIO busy')\n@task(lane='arm')\ndef grip(): ...\n"


def test_nothing_is_imported_where_reading_tells(tmp_path: Path) -> None:
    code = load_catalogue(write(tmp_path, robot=CLAIMS))
    assert code.failures == []
    assert [(info.name, info.lane) for info in code.tasks] == [("grip", "arm")]
    assert [module.name for module in code.of_lane("arm")] == [str(tmp_path / "robot.py")]
    assert code.of_lane("") == []
    assert "GPIO busy" in load_catalogue(write(tmp_path, robot=CLAIMS), imports_all=True).failures[0]


def test_a_call_says_why_its_module_is_not_there(tmp_path: Path) -> None:
    code = survey(write(tmp_path, robot=CLAIMS))
    registry, failed = load_code(code.of_lane("arm"), code, lane="arm")
    assert [reason for _, reason in failed] == ["OSError: GPIO busy"]
    error = BatchRunner(registry)._failure("grip", None)
    assert isinstance(error, TaskFailed)
    assert error.type == "TaskModuleError"
    assert str(error) == f"{tmp_path / 'robot.py'} failed to load: OSError: GPIO busy"
    assert (
        str(BatchRunner(registry, tells_all=False)._failure("grip", None))
        == "robot.py failed to load: OSError: GPIO busy"
    )
    assert "no task is named 'grp'; did you mean grip?" in str(BatchRunner(registry)._failure("grp", None))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "it ended the process that loaded it (SIGILL)"),
        ("import os; os.abort()", "it ended the process that loaded it (SIGABRT)"),
        ("import os; os._exit(7)", "it ended the process that loaded it (exit code 7)"),
        ("import os; os._exit(0)", "it ended the process that loaded it (exit code 0)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("this is no Python", "SyntaxError: "),
        ("x = '\0'", "source code string cannot contain null bytes"),
    ],
)
def test_a_module_that_ends_its_process_is_named_and_the_rest_is_served(tmp_path: Path, text: str, why: str) -> None:
    code = load_catalogue(write(tmp_path, bad=text, good="def task_good(): ..."))
    assert [info.name for info in code.tasks] == ["task_good"]
    (failure,) = code.failures
    assert failure.startswith(f"task module {tmp_path / 'bad.py'}: ")
    assert why in failure


def test_a_module_that_is_never_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskengine.supervisor.catalogue.IMPORT_TIMEOUT_S", 5.0 + deadline(1.0))
    code = load_catalogue(write(tmp_path, bad="import time; time.sleep(600)", good="def task_good(): ..."))
    assert [info.name for info in code.tasks] == ["task_good"]
    assert "bad.py: its import takes longer than" in code.failures[0]


def test_a_file_imports_its_neighbours(tmp_path: Path) -> None:
    one = write(tmp_path / "one", main="import helper\ndef task_one(): return helper.VALUE, lazy()\n")
    (tmp_path / "one" / "main.py").write_text("import helper\ndef task_one(): return helper.VALUE\n")
    write(tmp_path / "one", helper="VALUE = 1")
    two = write(tmp_path / "two", main="from helper import VALUE\ndef task_two(): return VALUE\n", helper="VALUE = 2")
    code = survey([one[0], two[0]])
    assert {Path(path).relative_to(tmp_path).as_posix() for path in code.sources} == {
        *("one/main.py", "one/helper.py", "two/main.py", "two/helper.py")
    }
    registry, failed = load_code(code.modules, code)
    assert failed == []
    assert [registry.tasks[name].function() for name in ("task_one", "task_two")] == [1, 2]


def test_neighbours_hide_no_module_of_python(tmp_path: Path) -> None:
    files = write(tmp_path, main="import colorsys\ndef task_f(): return colorsys.__file__\n", colorsys="raise OSError")
    registry = Registry.load(files[:1])
    assert "python" in registry.tasks["task_f"].function()


def test_a_module_that_changes_the_folder_hides_no_later_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, one="import os\nos.chdir('/')\ndef task_one(): ...", two="def task_two(): ...")
    code = survey(["one.py", "two.py"])
    assert load_code(code.modules, code)[1] == []
    monkeypatch.chdir(tmp_path)
    assert load_catalogue(["one.py", "two.py"], imports_all=True).failures == []


def test_what_was_compiled_before_is_not_taken_for_current(tmp_path: Path) -> None:
    def edit(value: int) -> int:
        for name in ("helper", "main"):
            path = tmp_path / f"{name}.py"
            path.write_text(
                f"import helper\ndef task_f(): return helper.VALUE + {value}" if name == "main" else f"VALUE = {value}"
            )
            os.utime(path, (1_000_000_000, 1_000_000_000))
        code = survey([str(tmp_path / "main.py")])
        for module in [known for known in sys.modules if known == "helper" or known.startswith("taskengine_file_")]:
            del sys.modules[module]
        registry, _ = load_code(code.modules, code)
        result: int = registry.tasks["task_f"].function()
        return result

    assert [edit(value) for value in (1, 2, 3)] == [2, 4, 6]


def test_a_module_is_loaded_as_it_was_read(tmp_path: Path) -> None:
    """A worker that is started again between two reloads has the code of the others."""
    (file,) = write(tmp_path, main="import helper\ndef task_f(): return helper.VALUE\n")
    write(tmp_path, helper="VALUE = 1")
    code = survey([file])
    write(tmp_path, helper="VALUE = 2", main="raise OSError")
    registry, failed = load_code(code.modules, code)
    assert failed == []
    assert registry.tasks["task_f"].function() == 1


def test_a_traceback_shows_what_runs(tmp_path: Path) -> None:
    (file,) = write(tmp_path, main="def task_f():\n    raise OSError('old line')\n")
    code = survey([file])
    registry, _ = load_code(code.modules, code)
    write(tmp_path, main="def task_f():\n    this is being edited\n")
    with pytest.raises(OSError, match="old line") as caught:
        registry.tasks["task_f"].function()
    assert "    raise OSError('old line')" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "text", ["-" * 200_000 + "1", "x = " + " + ".join(["1"] * 50_000), "[" * 500, "lambda: " * 5_000 + "1", "f(" * 90]
)
def test_no_text_ends_the_reading(tmp_path: Path, text: str) -> None:
    files = write(tmp_path, deep=text, main="import deep\ndef task_main(): ...", good="def task_good(): ...")
    code = load_catalogue(files)
    assert [info.name for info in code.tasks] == ["task_main", "task_good"]


def test_two_modules_with_one_task_are_told(tmp_path: Path) -> None:
    files = write(tmp_path, one="def task_same(): ...", two="def task_same(): ...\ndef task_two(): ...")
    code = load_catalogue(files)
    assert [info.name for info in code.tasks] == ["task_same"]
    assert code.failures[0].endswith(f"'task_same' is registered by {files[0]} and by {files[1]}")


def test_the_same_task_by_two_modules_is_one(tmp_path: Path) -> None:
    arm = "from taskengine import task\n@task\ndef wave(): ..."
    files = write(tmp_path, arm=arm, main="from arm import wave\ndef task_main(): ...")
    code = load_catalogue([files[1]])
    assert [info.name for info in code.tasks] == ["wave", "task_main"]
    registry = Registry.load([str(tmp_path / "main.py")])
    assert names(registry) == ["wave", "task_main"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from functools import lru_cache\n@lru_cache\ndef task_x(): return 5", "task_x"),
        ("from functools import partial\ntask_x = partial(int, '5')", "task_x"),
        ("class Arm:\n  def wave(self): return 5\ntask_x = Arm().wave", "task_x"),
        ("class Arm:\n  def __call__(self): return 5\ntask_x = Arm()", "task_x"),
        ("from functools import cache\nfrom taskengine import task\n@cache\n@task(name='x')\ndef f(): return 5", "x"),
        ("from functools import partial\nfrom taskengine import task\nf = task(partial(int, '5'))", "f"),
    ],
)
def test_what_wraps_or_calls_a_function_may_be_a_task(tmp_path: Path, text: str, expected: str) -> None:
    code = load_catalogue(write(tmp_path, robot=text))
    assert code.failures == []
    assert [info.name for info in code.tasks] == [expected]
    registry, _ = load_code(code.modules, code)
    assert registry.tasks[expected].function() == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "from taskengine import task\nclass A:\n  @task\n  def f(self): ...",
            "@task on the method A.f registers nothing",
        ),
        (
            "from taskengine import task\ndef f():\n  @task\n  def g(): ...\nf()",
            "@task on f.<locals>.g registers nothing",
        ),
        ("from taskengine import task\ntask(name='x')(lambda: 5)", "@task on <lambda> registers nothing"),
        ("class A:\n  def f(self): ...\nfrom taskengine import source\nsource('t')(A().f)", "return a.f(...)"),
        ("from taskengine import task\nimport math\nf = task(math.sqrt)", "return sqrt(...)"),
        ("from taskengine import source\nimport time\nf = source('t')(time.time)", "cannot be a source itself"),
        ("from taskengine import task\n@task\nclass A: ...", "A cannot be a task: it is a class"),
        ("from taskengine import source\n@source('t')\nasync def f(): ...", "write `def`"),
        ("from taskengine import task\n@task(timeout=-1)\ndef f(): ...", "timeout is a positive number"),
        ("from taskengine import task\n@task(timeuot=1)\ndef f(): ...", "timeuot"),
        ("from taskengine import task\n@task\ndef f(): ...\n@task\ndef f(): ...", "f is defined again"),
        ("def task_f(): ...\ndef task_f(): ...", "task_f is defined again"),
        (
            "from taskengine import task\n@task(name='x')\ndef f(): ...\n@task(name='x')\ndef g(): ...",
            "registered twice",
        ),
    ],
)
def test_what_registers_nothing_is_told_with_what_to_write(tmp_path: Path, text: str, said: str) -> None:
    assert said in "\n".join(load_catalogue(write(tmp_path, robot=text)).failures)


def test_a_module_may_be_loaded_only_as_far_as_its_lane_goes(tmp_path: Path) -> None:
    source = "from taskengine import source\n@source('battery', 0.1)\ndef volts(): return 7\n"
    code = survey(write(tmp_path, arm="from taskengine import task\n@task(lane='arm')\ndef a(): ...", volts=source))
    assert [Path(module.name).name for module in code.of_lane("arm")] == ["arm.py"]
    loaders = [[m.name for m in code.of_data_worker(number, 2)] for number in range(2)]
    assert sum(str(tmp_path / "volts.py") in loaded for loaded in loaders) == 1


def test_a_bound_method_says_what_to_write() -> None:
    with pytest.raises(TaskModuleError, match="def append_task"):
        task([].append)


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(TaskModuleError, match="there is no file"):
        load("taskengine_file_gone", str(tmp_path / "gone.py"))
