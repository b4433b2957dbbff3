"""Reads the registrations of a task module from its syntax tree, without running it. Pure.

Literal decorators and functions named `task_…` are read. If other code may register tasks, the module is in doubt, and
only an import can tell.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from taskengine.protocol.marks import PREFIX

DOOR: Final = "taskengine"
_KINDS: Final = ("task", "source")
_DYNAMIC: Final = frozenset({"globals", "locals", "vars", "setattr", "exec", "eval"})
_SOURCE_ARGUMENTS: Final = ("topic", "period")
_CLASSES: Final = "retry_on"
"""The argument of a decorator that has names of classes."""
_Function = ast.FunctionDef | ast.AsyncFunctionDef

NOTHING: Final = ""
MODULE: Final = "module"
NAME: Final = "name"
Offers = Callable[[str, int, str], str]
"""`offers(module, level, name)`: what that name of another module may be: NAME for a task or what makes tasks, MODULE
for a module that has such names, NOTHING for anything else. The name "" is the module itself."""


class Declared(NamedTuple):
    """A registered function: `kind` is "task" or "source", `options` the decorator's arguments."""

    kind: str
    function: str
    line: int
    options: dict[str, Any]
    signature: str
    doc: str
    is_async: bool
    is_callable: bool = True
    """Whether it can be called without arguments."""
    yields: bool = False


def _yields(function: _Function) -> bool:
    """Return whether a function is a generator: it has a `yield` that is in no function within it."""
    inner: list[ast.AST] = list(function.body)
    while inner:
        node = inner.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, _Function | ast.Lambda | ast.ClassDef):
            inner += ast.iter_child_nodes(node)
    return False


class Found(NamedTuple):
    """The registrations of a module; `doubt` says why an import has to tell, "" if none is needed.

    `complaints` are lines about functions that register nothing. The names in `offers` give other modules tasks, or
    something that makes tasks.
    """

    declared: list[Declared]
    complaints: list[str]
    doubt: str
    offers: frozenset[str]


class _Doubt(Exception):
    """Raised when the tree does not tell."""


def discover(tree: ast.Module, offers: Offers) -> Found:
    """Read a module's tree."""
    return _ModuleReader(tree, offers).found()


def method_hint(kind: str, name: str) -> str:
    """Return what to write in place of a decorator on the method `name`, "Class.method"."""
    if kind == "task":
        return f"write `task({name.lower()})` in the module, with an object in place of its class"
    return f"write a function of the module that calls it, and put @{kind} there"


class _ModuleReader:
    def __init__(self, tree: ast.Module, offers: Offers) -> None:
        self._offers = offers
        self._decorators: dict[str, str] = {}
        """Local names of `task` and `source`."""
        self._doors: set[str] = set()
        """Local names of the package."""
        self._makers: set[str] = set()
        """Names that may be tasks, or make some."""
        self._constants: dict[str, Any] = {}
        self._lines: dict[str, int] = {}
        """The line of each registered function."""
        self._declared: dict[str, Declared] = {}
        self._complaints: list[str] = []
        self._doubt = ""
        self._body = [node for node in tree.body if not _is_main_guard(node)]

    def found(self) -> Found:
        for imports in _imports(self._body):
            self._bind(imports)
        for node in self._body:
            if isinstance(node, _Function):
                self._note_maker(node)
        for node in self._body:
            try:
                self._read(node)
            except _Doubt as doubt:
                self._doubt = self._doubt or f"line {getattr(node, 'lineno', 0)}: {doubt}"
        offered = {*self._declared, *self._makers, *self._decorators, *self._doors}
        return Found(list(self._declared.values()), self._complaints, self._doubt, frozenset(offered))

    def _bind(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                if alias.name.partition(".")[0] == DOOR:
                    self._doors.add(name)
                elif self._offers(alias.name, 0, ""):
                    self._makers.add(name)
            return
        for alias in node.names:
            name = alias.asname or alias.name
            if node.module == DOOR and not node.level:
                if alias.name in _KINDS:
                    self._decorators[name] = alias.name
                elif alias.name == "*":
                    self._decorators |= dict(zip(_KINDS, _KINDS, strict=True))
                continue
            offered = self._offers(node.module or "", node.level, alias.name)
            if offered:
                self._makers.add(name)
            if offered == NAME:
                self._doubt = self._doubt or f"line {node.lineno}: {name} may be a task of another module"
            elif name.startswith(PREFIX):
                self._doubt = self._doubt or f"line {node.lineno}: {name} is another module's"

    def _note_maker(self, node: _Function) -> None:
        """Note a function that uses `task`: it may be a decorator that makes tasks."""
        if any(self._is_concerned(inner) for part in node.body for inner in ast.walk(part)):
            self._makers.add(node.name)

    def _is_concerned(self, node: ast.AST) -> bool:
        """Return whether the expression is `task`, `source`, or something that may make tasks."""
        if isinstance(node, ast.Name):
            return node.id in self._decorators or node.id in self._makers
        return self._kind_of(node) != ""

    def _kind_of(self, node: ast.AST) -> str:
        """Return which decorator an expression is: "task", "source", or "" for another."""
        if isinstance(node, ast.Name):
            return self._decorators.get(node.id, "")
        is_ours = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self._doors
        return node.attr if is_ours and isinstance(node, ast.Attribute) and node.attr in _KINDS else ""

    def _read(self, node: ast.stmt) -> None:
        if isinstance(node, _Function):
            self._read_function(node)
        elif isinstance(node, ast.ClassDef):
            self._read_class(node)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            return
        elif not (isinstance(node, (ast.Assign, ast.AnnAssign)) and self._is_constant(node)):
            self._check_free(node)

    def _is_constant(self, node: ast.Assign | ast.AnnAssign) -> bool:
        """Return whether an assignment gives a name to a literal; if so, keep the literal."""
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if node.value is None:
            return True
        try:
            value = ast.literal_eval(node.value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return False
        for target in targets:
            if isinstance(target, ast.Name):
                is_new = target.id not in self._constants
                self._constants[target.id] = value if is_new else _Doubt
        return True

    def _check_free(self, node: ast.AST) -> None:
        """Raise _Doubt where code that runs at the import may register tasks."""
        for inner in _at_import(node):
            if isinstance(inner, _Function):
                kinds = [self._kind_of(_called(decorator)) for decorator in inner.decorator_list]
                if any(kinds) or inner.name.startswith(PREFIX):
                    raise _Doubt(f"whether {inner.name} is a task depends on what runs")
            if self._is_concerned(inner) or (isinstance(inner, ast.Name) and inner.id in _DYNAMIC):
                raise _Doubt(f"{ast.unparse(inner)} may register tasks")
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store) and inner.id.startswith(PREFIX):
                raise _Doubt(f"{inner.id} may be a task")
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Del) and inner.id in self._declared:
                raise _Doubt(f"{inner.id} is deleted")

    def _read_class(self, node: ast.ClassDef) -> None:
        for decorator in (*node.decorator_list, *node.bases):
            self._check_free(decorator)
        for inner in node.body:
            if not isinstance(inner, _Function):
                self._check_free(inner)
                continue
            kinds = [kind for decorator in inner.decorator_list if (kind := self._kind_of(_called(decorator)))]
            if kinds:
                name = f"{node.name}.{inner.name}"
                hint = method_hint(kinds[0], name)
                self._complaints.append(
                    f"line {inner.lineno}: @{kinds[0]} on the method {name} registers nothing: {hint}"
                )
            elif any(self._is_concerned(_called(decorator)) for decorator in inner.decorator_list):
                raise _Doubt(f"a decorator of {node.name}.{inner.name} may register tasks")

    def _read_function(self, node: _Function) -> None:
        decorators = [_called(decorator) for decorator in node.decorator_list]
        if any(_last_name(decorator) == "overload" for decorator in decorators):
            return
        marks = [i for i, decorator in enumerate(decorators) if self._kind_of(decorator)]
        for i, decorator in enumerate(decorators):
            if i not in marks and any(self._is_concerned(inner) for inner in ast.walk(decorator)):
                raise _Doubt(f"@{ast.unparse(decorator)} may register tasks")
        before = self._lines.get(node.name)
        if before is not None:
            self._complaints.append(
                f"line {node.lineno}: {node.name} is defined again, so that the one in line {before} is lost: give one "
                "of them another name"
            )
            self._declared.pop(node.name, None)
        if not marks and not node.name.startswith(PREFIX):
            return
        if node.name not in self._declared:
            self._lines[node.name] = node.lineno
        kind, options = "task", {"name": node.name}
        if marks:
            kind = self._kind_of(decorators[marks[0]])
            options = self._options(kind, node.decorator_list[marks[0]])
        is_async = isinstance(node, ast.AsyncFunctionDef)
        doc = ast.get_docstring(node) or ""
        signature = signature_of(node)
        line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        is_callable = _needs_nothing(node.args)
        self._declared[node.name] = Declared(
            kind, node.name, line, options, signature, doc, is_async, is_callable, _yields(node)
        )

    def _options(self, kind: str, decorator: ast.expr) -> dict[str, Any]:
        """Return the decorator's arguments. Raises _Doubt if they are not literal."""
        options: dict[str, Any] = {}
        if not isinstance(decorator, ast.Call):
            return options
        names = _SOURCE_ARGUMENTS if kind == "source" else ()
        if len(decorator.args) > len(names):
            raise _Doubt("arguments of a decorator that cannot be read")
        given = [*zip(names, decorator.args, strict=False), *((key.arg, key.value) for key in decorator.keywords)]
        for name, value in given:
            if name is None:
                raise _Doubt("** in a decorator")
            if name != _CLASSES or not _is_classes(value):  # which classes these are matters to workers alone
                options[name] = self._literal(value)
        return options

    def _literal(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and self._constants.get(node.id, _Doubt) is not _Doubt:
            return self._constants[node.id]
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise _Doubt(f"{ast.unparse(node)} in a decorator is not literal") from None


def _imports(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run when the module is imported."""
    for statement in body:
        for node in _at_import(statement):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                yield node


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when the module is imported: not those in the bodies of functions."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, _Function):
            waiting += node.decorator_list
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def _is_main_guard(node: ast.stmt) -> bool:
    """Return whether it is `if __name__ == "__main__":`, which an import does not run."""
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) and "__main__" in ast.unparse(node.test)


def _called(decorator: ast.expr) -> ast.expr:
    return decorator.func if isinstance(decorator, ast.Call) else decorator


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_classes(node: ast.expr) -> bool:
    """Return whether an expression may name classes, such as `OSError`, `socket.timeout`, or a tuple of such."""
    if isinstance(node, ast.Tuple):
        return bool(node.elts) and all(map(_is_classes, node.elts))
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_classes(node.value))


def _needs_nothing(arguments: ast.arguments) -> bool:
    """Return whether each argument has a default."""
    plain = len(arguments.posonlyargs) + len(arguments.args)
    return plain == len(arguments.defaults) and None not in arguments.kw_defaults


def signature_of(node: _Function) -> str:
    """Return the signature as `inspect` writes it, with annotations and defaults as they stand in the file."""
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    parts = [_parameter(argument, default) for argument, default in zip(plain, defaults, strict=True)]
    if arguments.posonlyargs:
        parts.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg:
        parts.append("*" + _parameter(arguments.vararg, None))
    elif arguments.kwonlyargs:
        parts.append("*")
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    parts += [_parameter(argument, default) for argument, default in keywords]
    if arguments.kwarg:
        parts.append("**" + _parameter(arguments.kwarg, None))
    returns = f" -> {_annotation(node.returns)}" if node.returns else ""
    return f"({', '.join(parts)}){returns}"


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    text = f"{argument.arg}: {_annotation(argument.annotation)}" if argument.annotation else argument.arg
    if default is None:
        return text
    return f"{text} = {ast.unparse(default)}" if argument.annotation else f"{text}={ast.unparse(default)}"


def _annotation(node: ast.expr) -> str:
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if is_text and isinstance(node, ast.Constant) else ast.unparse(node)  # type: ignore[return-value]


def imported(tree: ast.Module) -> Iterator[tuple[str, int, list[str]]]:
    """Yield all imports of a module, wherever in it: the module, the level of a relative import, and the names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, [alias.name for alias in node.names]
