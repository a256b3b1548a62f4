"""What stops a gradient, and which line of code it is."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

JAX = str(pathlib.Path(jax.__file__).parent)
HERE = str(pathlib.Path(__file__).parent)
OWN = str(pathlib.Path(__file__).parents[1])
# Where gradients are stopped for the sake of rounding: the maximum in softmax, for example.
NUMERICAL = tuple(f"{JAX}/_src/{part}" for part in ("nn/", "scipy/", "ops/", "random"))
NUMERICAL += (f"{OWN}/mixing/_mix.py",)


class Stop(NamedTuple):
    """An operation that depends on the input and stops or quantises its gradient.

    Attributes:
      primitive: JAX's name of the operation.
      what: it in words, such as "rounds".
      shapes: of its operands.
      source: the line that calls it, `file:line (function)`; "" if unknown.
    """

    primitive: str
    what: str
    shapes: tuple[tuple[int, ...], ...]
    source: str

    def __str__(self) -> str:
        shapes = " ".join(str(list(shape)) for shape in self.shapes)
        return f"{self.primitive} {self.what}, {shapes}" + (self.source and f", {self.source}")


def stop_of(eqn: Any, what: str, calls: Sequence[Any] = ()) -> Stop:
    """An equation of a jaxpr as a finding; `calls` are those that it is inside of."""
    shapes = tuple(tuple(getattr(v.aval, "shape", ())) for v in eqn.invars)
    sources = (_defined(eqn), *map(source_of, (eqn, *reversed(calls))))
    name = "clip" if eqn.params.get("name") == "clip" else eqn.primitive.name
    return Stop(name, what, shapes, next(filter(None, sources), ""))


def source_of(eqn: Any) -> str:
    """The innermost line outside of JAX that an equation comes from; "" inside of a call."""
    for frame in _frames(eqn):
        if not frame.file_name.startswith((JAX, HERE)):
            name = pathlib.Path(frame.file_name).name
            return f"{name}:{frame.line_num} ({frame.function_name.split('.')[-1]})"
    return ""


def _defined(eqn: Any) -> str:
    """Where the function of an author's rule is defined; "" for all other equations."""
    name, _, place = _definition(eqn.params.get("call_jaxpr")).partition(" at ")
    return f"{pathlib.Path(place).name} ({name})" if place else ""


def _definition(called: Any) -> str:
    info = getattr(getattr(called, "jaxpr", called), "debug_info", None)
    return str(getattr(info, "func_src_info", None) or "")


def is_numerical(eqn: Any) -> bool:
    """Whether one of JAX's own functions made an equation for the sake of rounding."""
    for frame in _frames(eqn):
        if frame.file_name.startswith(NUMERICAL):
            return True
        if not frame.file_name.startswith(JAX):
            return False
    return False


def has_trusted_rule(called: Any) -> bool:
    """Whether the derivative rule of a function is JAX's or this library's."""
    return _definition(called).partition(" at ")[2].startswith((JAX, OWN))


def _frames(eqn: Any) -> list[Any]:
    traceback = getattr(eqn.source_info, "traceback", None)
    return [] if traceback is None else list(traceback.frames)
