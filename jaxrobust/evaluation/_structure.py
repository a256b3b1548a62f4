"""Traced functions as lists of equations: evaluated again, and compared by their computation."""

import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np

from jaxrobust.digests import digest_of

CALLS = ("jit", "pjit", "closed_call", "core_call")
OWN_DERIVATIVES = ("custom_jvp_call", "custom_vjp_call")


class Equations:
    """The equations of a traced function, without the arrays that it closed over.

    Attributes:
      inputs: variables of those arrays, then of the arguments.
      eqns: the equations, in order.
      outputs: variables or literals.
    """

    def __init__(self, closed: Any) -> None:
        open_ = closed.jaxpr
        self.inputs = (*open_.constvars, *open_.invars)
        self.eqns, self.outputs = tuple(open_.eqns), tuple(open_.outvars)

    def values(self, inputs: Sequence[Any], *, inline: bool = False) -> list[Any]:
        """The outputs for values of the inputs; `inline` inlines `jit` calls."""
        known: dict[Any, Any] = dict(zip(self.inputs, inputs, strict=True))

        def value(atom: Any) -> Any:
            return atom.val if isinstance(atom, jex.Literal) else known[atom]

        for eqn in self.eqns:
            arguments = [value(atom) for atom in eqn.invars]
            if inline and eqn.primitive.name in CALLS:
                called = eqn.params["jaxpr" if "jaxpr" in eqn.params else "call_jaxpr"]
                inner = [*getattr(called, "consts", ()), *arguments]
                found = Equations(_closed(called)).values(inner, inline=True)
            else:
                params = eqn.primitive.get_bind_params(eqn.params)
                with eqn.ctx.manager:
                    found = eqn.primitive.bind(*arguments, **params)
            many = eqn.primitive.multiple_results
            known.update(zip(eqn.outvars, found if many else [found], strict=True))
        return [value(atom) for atom in self.outputs]

    def structure(self) -> tuple:
        """The computation as a value that can be hashed and compared, without names.

        Custom derivatives are left out, because nothing differentiates the result again.
        """
        number: dict[Any, int] = {}

        def place(atom: Any) -> Any:
            if isinstance(atom, jex.Literal):
                return str(atom.aval), digest_of(atom.val)
            return number.setdefault(atom, len(number)), str(atom.aval)

        inputs = tuple(place(atom) for atom in self.inputs)
        lines = []
        for eqn in self.eqns:
            ins = tuple(place(atom) for atom in eqn.invars)
            outs = tuple(place(atom) for atom in eqn.outvars)
            own = eqn.primitive.name.startswith(OWN_DERIVATIVES)
            params = tuple(
                (name, _comparable(param))
                for name, param in sorted(eqn.params.items())
                if not own or is_jaxpr(param)
            )
            lines.append((eqn.primitive, eqn.ctx.threefry_partitionable, ins, outs, params))
        return inputs, tuple(lines), tuple(place(atom) for atom in self.outputs)


def digest_of_structure(structure: Any) -> str:
    """SHA-256 of a structure, the same in every process: no addresses."""
    return hashlib.sha256(_text(structure).encode()).hexdigest()


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({' '.join(map(_text, value))})"
    if isinstance(value, jex.Primitive):
        return value.name
    text = repr(value)
    return type(value).__name__ if " at 0x" in text or isinstance(value, _Itself) else text


class _Itself:
    """A value that can be compared only by identity."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def is_jaxpr(value: Any) -> bool:
    """Whether a parameter is a traced function, open or closed."""
    return isinstance(value, jex.Jaxpr | jex.ClosedJaxpr)


def _closed(jaxpr: Any) -> Any:
    """An open jaxpr as a closed one without constants."""
    return jaxpr if hasattr(jaxpr, "jaxpr") else jex.ClosedJaxpr(jaxpr, [])


def _comparable(param: Any) -> Any:
    if is_jaxpr(param):
        held = tuple(digest_of(array) for array in getattr(param, "consts", ()))
        return Equations(_closed(param)).structure(), held
    if isinstance(param, dict):
        return tuple((name, _comparable(value)) for name, value in sorted(param.items()))
    if isinstance(param, tuple | list) and not hasattr(param, "_fields"):
        return tuple(_comparable(value) for value in param)
    if isinstance(param, np.ndarray | jax.Array):
        return digest_of(param)
    if callable(param) and not isinstance(param, type):
        return _Itself(param)  # whatever it says of its equality
    try:
        hash(param)
    except TypeError:
        return _Itself(param)
    return param
