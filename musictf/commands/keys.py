"""Configuration keys read from the source of the dataclasses that declare them: nothing is imported.

Importing the dataclasses would import torch, and help would take seconds. Their source has all that help prints: the
fields with their defaults, and the ``Attributes`` section of the docstring with one clause for each.
"""

from __future__ import annotations

import ast
import builtins
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
REQUIRED = object()


@dataclass(frozen=True)
class Field:
    """A field of a dataclass.

    Attributes:
        name: Its name.
        default: Its value, a `SourceClass` where that is a dataclass of its own, or `REQUIRED`.
        clause: Its description in the docstring, up to the first full stop.
    """

    name: str
    default: Any
    clause: str


@dataclass(frozen=True)
class SourceClass:
    """A class in the source of a module of musictf."""

    module: str
    name: str

    @property
    def summary(self) -> str:
        """First sentence of its docstring, without the full stop."""
        return _first_sentence(self._docstring.partition("\n\n")[0])

    def fields(self) -> dict[str, Field]:
        """Its fields by name, those of its base classes first, as a dataclass orders them."""
        source, node = _source(self.module), self._node
        fields: dict[str, Field] = {}
        for base in node.bases:
            parent = source.value(base.id) if isinstance(base, ast.Name) else None
            fields |= parent.fields() if isinstance(parent, SourceClass) else {}
        # A Google-style section ends at an empty line; the lines that continue an entry are indented further.
        section = self._docstring.partition("Attributes:\n")[2].partition("\n\n")[0]
        entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, flags=re.MULTILINE)
        clauses = {name: old.clause for name, old in fields.items()}
        clauses |= {name: _first_sentence(text) for name, text in entries}
        for statement in node.body:
            if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
                continue
            if "ClassVar" in ast.unparse(statement.annotation):  # no field of a dataclass
                continue
            name = statement.target.id
            # A comment on the line of the field counts where the docstring has no clause.
            comment = source.lines[(statement.end_lineno or 1) - 1].partition("  # ")[2]
            fields[name] = Field(name, source.default(statement), clauses.get(name) or comment)
        return fields

    def __call__(self, **values: Any) -> SimpleNamespace:
        """Replaces an instance of the class by an object with the given values."""
        return SimpleNamespace(**values)

    @property
    def _node(self) -> ast.ClassDef:
        return _source(self.module).classes[self.name]

    @property
    def _docstring(self) -> str:
        return ast.get_docstring(self._node) or ""


def _first_sentence(text: str) -> str:
    return re.split(r"\.(?:\s|$)", " ".join(text.replace("``", "").split()))[0]


class _Source:
    """The names that the source of a module binds."""

    def __init__(self, module: str) -> None:
        path = PACKAGE.parent / module.replace(".", "/")
        text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
        self.module, self.lines = module, text.splitlines()
        self.classes: dict[str, ast.ClassDef] = {}
        self.functions: dict[str, ast.FunctionDef] = {}
        self.imports: dict[str, tuple[str, str]] = {}
        self.assignments: dict[str, ast.expr] = {}
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                self.classes[node.name] = node
            elif isinstance(node, ast.FunctionDef):
                self.functions[node.name] = node
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("musictf"):
                self.imports |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                self.assignments |= {target.id: node.value for target in targets if isinstance(target, ast.Name)}

    def default(self, statement: ast.AnnAssign) -> Any:
        """The default of a field; the class of its annotation where it has none."""
        if statement.value is not None:
            return self.evaluated(statement.value)
        annotation = statement.annotation
        value = self.value(annotation.id) if isinstance(annotation, ast.Name) else None
        return value if isinstance(value, SourceClass) else REQUIRED

    def value(self, name: str) -> Any:
        """The value or class that a name is bound to; None where that is not in the sources of musictf."""
        if name in self.imports:
            module, original = self.imports[name]
            # A class is read only when its fields are needed: parsing is most of the time that help takes.
            is_class = original[0].isupper() and not original.isupper()
            return SourceClass(module, original) if is_class else _source(module).value(original)
        if name in self.classes:
            return SourceClass(self.module, name)
        if name in self.assignments:
            return self.evaluated(self.assignments[name])
        if name in self.functions:
            return partial(self.returned, name)
        return math if name == "math" else None

    def returned(self, function: str) -> Any:
        """What a function of one expression returns."""
        (last,) = (node for node in self.functions[function].body if isinstance(node, ast.Return) and node.value)
        return self.evaluated(last.value or ast.Constant(None))

    def evaluated(self, expression: ast.expr) -> Any:
        """The value of an expression of constants, and of names that are constants themselves."""
        if isinstance(expression, ast.Constant):
            return expression.value
        names = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)} - set(dir(builtins))
        bound = {name: self.value(name) for name in names} | {"field": _field}
        # Our own source, which Python would run on import as well.
        return eval(compile(ast.Expression(expression), self.module, "eval"), bound)


def _field(default: Any = None, default_factory: Callable[[], Any] | None = None) -> Any:
    """Stands for `dataclasses.field`."""
    # The factory of a nested dataclass stays a class, whose fields become a section of the help.
    if default_factory is None or isinstance(default_factory, SourceClass):
        return default_factory or default
    return default_factory()


@cache
def _source(module: str) -> _Source:
    return _Source(module)


def find_class(packages: tuple[str, ...], choice: str, class_name: str | None = None) -> SourceClass:
    """The class of a choice in a module directly below one of the packages (``musictf.tasks``, ...).

    Args:
        packages: Packages to search, in this order.
        choice: What the class is called in ``name: ClassVar[str]``; counts where `class_name` is not given.
        class_name: Its name in Python.
    """
    # Searched as text, because parsing sixty corpora would take longer than everything else that help does.
    pattern = re.compile(r'^class (\w+)|^    name: (?:ClassVar\[str\]|str) = "(\w+)"', flags=re.MULTILINE)
    for package in packages:
        for path in sorted((PACKAGE.parent / package.replace(".", "/")).glob("*.py")):
            last = ""
            for match in pattern.finditer(path.read_text(encoding="utf-8")):
                last = match[1] or last
                if last == class_name or (class_name is None and match[2] == choice):
                    return SourceClass(f"{package}.{path.stem}", last)
    raise LookupError(f"no class of {class_name or choice} in {', '.join(packages)}")
