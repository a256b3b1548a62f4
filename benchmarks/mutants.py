"""Whether the tests notice small wrong changes: a sign, a bound, an off-by-one, a lost stop."""

import ast
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ("losses", "threats", "attacks", "objectives", "training")
OPERATORS: dict[type, tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
}
COMPARISONS: dict[type, tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
}
SECONDS = 120  # the time limit of a test, which takes seconds
NAMES = {"minimum": "maximum", "maximum": "minimum", "max": "min", "min": "max"}


class Mutant(NamedTuple):
    """One change of one file.

    Attributes:
      file: below the repository.
      start: offset of the first changed character.
      old: what stands there.
      new: what replaces it.
      line: its number.
    """

    file: str
    start: int
    old: str
    new: str
    line: int


class Row(NamedTuple):
    """One trial.

    Attributes:
      room: the package of the file, whose tests ran.
      file: below the repository.
      line: of the change.
      old: what stands there.
      new: what replaced it.
      outcome: "caught" by a test that fails, "endless" if a test ran into the time limit, or
        "survived".
      seconds: that they took.
    """

    room: str
    file: str
    line: int
    old: str
    new: str
    outcome: str
    seconds: float


def mutants_of(file: str) -> list[Mutant]:
    """Every change that this module knows to make in a file, in the file's order.

    Messages of errors, annotations and docstrings are left alone.
    """
    text = (ROOT / file).read_text()
    lines = [0]
    for line in text.splitlines(keepends=True):
        lines.append(lines[-1] + len(line.encode()))
    raw = text.encode()

    def offset(line: int, column: int) -> int:
        return len(raw[: lines[line - 1] + column].decode())

    def between(left: ast.expr, right: ast.expr, old: str, new: str) -> Iterator[Mutant]:
        start = offset(left.end_lineno or 0, left.end_col_offset or 0)
        end = offset(right.lineno, right.col_offset)
        if text[start:end].count(old) == 1 and "#" not in text[start:end]:
            yield Mutant(file, start + text[start:end].index(old), old, new, left.end_lineno or 0)

    def changes(node: ast.AST) -> Iterator[Mutant]:
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            yield from between(node.left, node.right, *OPERATORS[type(node.op)])
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
            yield from between(node.left, node.comparators[0], *COMPARISONS[type(node.ops[0])])
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            yield Mutant(file, offset(node.lineno, node.col_offset), "-", "", node.lineno)
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            old = str(node.value)
            start = offset(node.lineno, node.col_offset)
            if text[start : start + len(old)] == old:
                yield Mutant(file, start, old, str(node.value + 1), node.lineno)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, line, column = node.func.attr, node.func.end_lineno, node.func.end_col_offset
            start = offset(line or 0, column or 0) - len(name)
            if name in NAMES:
                yield Mutant(file, start, name, NAMES[name], line or 0)
            elif name == "stop_gradient":
                start = offset(node.func.lineno, node.func.col_offset)
                old = ast.get_source_segment(text, node.func) or name
                yield Mutant(file, start, old, "", line or 0)

    return sorted((m for node in _computing(ast.parse(text)) for m in changes(node)), key=_place)


def _place(mutant: Mutant) -> int:
    return mutant.start


def _computing(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that compute something."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, (ast.Raise, ast.JoinedStr)):
                yield child
                yield from _computing(child)


def drawn(room: str, number: int, seed: int) -> list[Mutant]:
    """So many mutants of a room, the same for a seed; all if there are fewer."""
    files = sorted((ROOT / "jaxrobust" / room).glob("*.py"))
    every = [m for file in files for m in mutants_of(str(file.relative_to(ROOT)))]
    return random.Random(seed).sample(every, min(number, len(every)))


def tried(mutant: Mutant, tests: list[str]) -> str:
    """The outcome of the tests on a copy of the repository with this change."""
    with tempfile.TemporaryDirectory(prefix="jaxrobust-mutant-") as folder:
        copy = pathlib.Path(folder)
        for part in ("jaxrobust", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        text = (ROOT / mutant.file).read_text()
        end = mutant.start + len(mutant.old)
        assert text[mutant.start : end] == mutant.old, mutant
        (copy / mutant.file).write_text(text[: mutant.start] + mutant.new + text[end:])
        programs = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "tests"))
        environment = os.environ | {
            "PYTHONPATH": folder,
            "JAX_COMPILATION_CACHE_DIR": programs,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        options = ["-x", "-m", "not slow", "-o", f"timeout={SECONDS}"]
        command = [sys.executable, "-m", "pytest", *options, *tests]
        ended = subprocess.run(command, cwd=copy, env=environment, capture_output=True)
    # An import that fails is noticed too; anything else is the command's mistake.
    if ended.returncode not in (0, 1, 2, 4):
        raise RuntimeError(ended.stdout.decode() + ended.stderr.decode())
    if b"+++ Timeout +++" in ended.stdout + ended.stderr:
        return "endless"
    return "caught" if ended.returncode else "survived"


def tests_of(mutant: Mutant, room: str) -> list[str]:
    """All tests and examples of a room, those first that name most of what the file defines.

    A test whose own name does counts for more than any that only mentions it.
    """
    file = pathlib.Path(mutant.file)
    tree = ast.parse((ROOT / file).read_text())
    names = {getattr(node, "name", "").strip("_") for node in tree.body} - {""}
    names |= set(file.stem.strip("_").split("_"))

    def named(test: pathlib.Path) -> tuple[int, int]:
        text = test.read_text()
        return sum(name in test.stem for name in names), sum(name in text for name in names)

    tests = sorted((ROOT / "tests" / room).glob("test_*.py"), key=named, reverse=True)
    return [mutant.file, *(str(test.relative_to(ROOT)) for test in tests), f"jaxrobust/{room}"]


def campaign(*, rooms: Sequence[str] = (), number: int, seed: int = 0) -> Iterator[Row]:
    """Tries mutants of rooms on the tests and examples of each, one after the other.

    Args:
      rooms: of `ROOMS`; default all.
      number: of mutants of each room.
      seed: draws them.

    Returns:
      An iterator of rows.
    """
    for room in rooms or ROOMS:
        for mutant in drawn(room, number, seed):
            start = time.monotonic()
            outcome = tried(mutant, tests_of(mutant, room))
            seconds = round(time.monotonic() - start, 1)
            yield Row(room, mutant.file, mutant.line, mutant.old, mutant.new, outcome, seconds)
