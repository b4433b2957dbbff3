"""The rule that nothing is reported without the compiled fast path; imports nothing of the engine before."""

from __future__ import annotations

import importlib
from importlib.machinery import ExtensionFileLoader
from types import ModuleType

FASTPATH = "taskengine._fastpath"
ECHO = "bench._echo"


class NotCompiled(Exception):
    """The fast path is missing, or is not the compiled extension; figures taken so would be of another program."""


def check_compiled(name: str = FASTPATH) -> ModuleType:
    """The module `name`. Raises NotCompiled unless it is there and is an extension module."""
    advice = "compile it first: `make bench` does, and so does `pip install -e .`"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise NotCompiled(f"{name} is missing, so there is nothing to measure; {advice}") from error
    loader = module.__spec__.loader if module.__spec__ else None
    if not isinstance(loader, ExtensionFileLoader):
        wrong = f"{name} is {module.__file__}, which is no compiled extension"
        raise NotCompiled(f"{wrong}: its figures would not be the engine's; {advice}")
    return module
