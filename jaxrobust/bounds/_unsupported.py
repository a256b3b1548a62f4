"""The error for operations without a rule, and where in the network they stand."""

from typing import Any

LIBRARIES = ("jax", "jaxlib", "flax", "haiku", "equinox")


class UnsupportedPrimitive(NotImplementedError):
    """Raised where a network has an operation that no rule bounds; `register` adds a rule."""


def unsupported(equation: Any, within: str, reason: str = "") -> UnsupportedPrimitive:
    """The error for an equation of a traced network.

    Args:
      equation: of a jaxpr.
      within: the place of the call that it is inside of, or "".
      reason: what about it has no rule; default: the primitive has none at all.

    Returns:
      The error, which names the primitive and its line.
    """
    name, line = equation.primitive.name, place(equation, within)
    return UnsupportedPrimitive(
        f"primitive {name!r} at {line} cannot be bounded: {reason or 'no rule bounds it'}; "
        "jaxrobust.bounds.register adds a rule"
    )


def place(equation: Any, within: str) -> str:
    """`file:line (function)` of the innermost call outside of JAX and the network libraries.

    JAX keeps the trace of a jitted function, with the lines of the first call: lines that the
    enclosing call was not on are not believed.
    """
    traceback = equation.source_info.traceback
    lines = [
        f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
        for frame in (traceback.frames if traceback is not None else ())
        if not frame.file_name.startswith("<") and _library(frame.file_name) not in LIBRARIES
    ]
    if lines and (not within or within in lines):
        return lines[0]
    return within or "an unknown line"


def _library(file_name: str) -> str:
    """The package that a file was installed with; "" for files that are not installed."""
    _, installed, inner = file_name.replace("\\", "/").rpartition("/site-packages/")
    return inner.split("/")[0] if installed else ""
