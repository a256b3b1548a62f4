"""The API pages: one a room, made of the exports' signatures and docstrings."""

import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

import jaxrobust
from _pages.docstrings import markdown
from _pages.exports import exports, groups

PRIVATE = re.compile(r"\b(jaxrobust\.\w+)(?:\._\w+)+\.")
ARRAY_LIKE = r"Array(,| \|) ndarray\1 bool\1 number\1 bool\1 int\1 float\1 complex"
OTHERS = re.compile(r"\b(?:jax|collections|typing|numpy|pathlib|flax|optax)(?:\.\w+)*\.(?=\w)")


def index() -> str:
    """Returns the page that lists all rooms."""
    lines = [
        "# API by room",
        "",
        "Every exported name has an entry here; a build without one fails.",
    ]
    for heading, rooms in groups().items():
        lines += ["", f"## {heading}", ""]
        lines += [f"- [`jaxrobust.{room}`]({room}.md): {_first_line(room)}" for room in rooms]
    names = [room for rooms in groups().values() for room in rooms]
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *names, "```", ""])


def page(room: str) -> str:
    """Returns the page of one room.

    Args:
      room: such as "attacks".

    Returns:
      Markdown for MyST.
    """
    parts = [f"# jaxrobust.{room}", _first_line(room)]
    parts += [_entry(f"jaxrobust.{room}.{name}", value) for name, value in exports(room).items()]
    return "\n\n".join(parts) + "\n"


def _first_line(room: str) -> str:
    return (inspect.getdoc(getattr(jaxrobust, room)) or "").partition("\n")[0]


def _entry(name: str, value: Any) -> str:
    kind = "class" if inspect.isclass(value) else "function" if callable(value) else "data"
    signature = "" if kind == "data" else _signature(value)
    body = markdown(_own_doc(value)) if kind != "data" else ""
    if inspect.isclass(value):
        body += "".join(f"\n\n{_method(n, m)}" for n, m in vars(value).items() if n[0] != "_")
    return f"`````{{py:{kind}}} {name}{signature}\n{body}\n`````"


def _method(name: str, value: Any) -> str:
    doc = inspect.getdoc(value)
    if isinstance(value, property) and doc:
        return f"````{{py:property}} {name}\n{markdown(doc)}\n````"
    function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    if inspect.isfunction(function) and doc:
        return f"````{{py:method}} {name}{_signature(function, bound=True)}\n{markdown(doc)}\n````"
    return ""


def _own_doc(value: Any) -> str:
    """The docstring, but not the one that `dataclass` and `NamedTuple` make of a signature."""
    doc = inspect.getdoc(value) or ""
    return "" if doc.startswith(f"{getattr(value, '__name__', '')}(") else doc


def _signature(value: Callable, *, bound: bool = False) -> str:
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return "(...)"
    hints = _hints(value.__init__ if inspect.isclass(value) else value)
    parameters = list(signature.parameters.values())[int(bound) :]
    shown = [
        p.replace(default=_Shown(p.default), annotation=hints.get(p.name, p.annotation))
        for p in parameters
    ]
    text = str(signature.replace(parameters=shown))
    text = OTHERS.sub("", PRIVATE.sub(r"\1.", text)).replace("\n", " ")
    text = re.sub(ARRAY_LIKE, "ArrayLike", text).replace("NoneType", "None")
    return re.sub(r"\bUnion\[ArrayLike(, None)?\]", _optional, text)


def _optional(match: re.Match) -> str:
    return "ArrayLike | None" if match[1] else "ArrayLike"


def _hints(function: Callable) -> dict[str, Any]:
    """The annotations without what pydantic needs of them."""
    try:
        return typing.get_type_hints(function)
    except (TypeError, NameError, AttributeError):
        return {}


class _Shown:
    """A default as it is shown: a function by its name, an object without its address."""

    def __new__(cls, value: Any) -> Any:
        return value if value is inspect.Parameter.empty else super().__new__(cls)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        if inspect.isroutine(self._value) or inspect.isclass(self._value):
            return self._value.__name__
        text = repr(self._value)
        return "..." if " at 0x" in text or "<" in text else text
