"""Compiled programs that take every array as an argument, including closed-over arrays.

`jax.jit` turns closed-over arrays into constants: hundreds of megabytes are compiled in, kept alive
by its cache, and compiled again for the next closure. Here a call is traced first. The arrays in
the trace become arguments, and the remaining program is compared by its structure. So another
closure over arrays of the same shapes does not compile again, and closed-over arrays do not outlive
the call. Every evaluation traces again, because a function may read values that have changed since.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxrobust.convolutions import jit
from jaxrobust.evaluation._examples import on_every_device
from jaxrobust.evaluation._structure import Equations, digest_of_structure
from jaxrobust.inputs import evaluation_mode

NUMBERS = (jax.Array, np.ndarray, np.generic, int, float)


class Program:
    """A traced function without its arrays; equal to any other that computes the same."""

    def __init__(self, closed: Any, out: Any) -> None:
        self.equations, self.out = Equations(closed), out
        self.structure = self.equations.structure()
        self._hash = hash((self.structure, out))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and (
            (self.structure, self.out) == (other.structure, other.out)
        )


class Compiled:
    """`call(*static, *parts, *arrays)`, compiled once per shape of the arrays.

    Args:
      call: a module-level function.
      *parts: networks and attacks: pytrees, whose leaves are arguments of the program, or any other
        callables.
      static: the first arguments of `call`; hashable.
      name: shown in profiles and logs; default: the name of `call`.
    """

    def __init__(
        self, call: Callable[..., Any], *parts: Any, static: tuple = (), name: str | None = None
    ) -> None:
        self._call, self._static, self._name = call, static, name or call.__name__
        self._functions = [part for part in parts if not is_container(part)]
        # The network comes last; of an attack that is a pytree nothing needs to be inlined.
        held = tuple(
            (Inlined(part) if part is parts[-1] else part) if is_container(part) else Opaque()
            for part in parts
        )
        self._opaque = [part for part in held if isinstance(part, Opaque)]
        leaves, self._tree = jax.tree.flatten(held)
        self._leaves = on_every_device(leaves)
        self._found: dict[Any, tuple[Program, list[Any]]] = {}
        shown = [part if is_container(part) else None for part in parts]
        structure = jax.tree.structure(shown)
        # Structures of classes with the same fields are equal to JAX; the text names the classes.
        self._kind = structure, str(structure), tuple(map(_shape, leaves))

    def again(self, *parts: Any) -> "Compiled":
        """The call with other parts; not traced again if only the values of leaves differ.

        Use it only for calls at one time, because a function may read values that change later.
        """
        other = Compiled(self._call, *parts, static=self._static, name=self._name)
        functions = zip(self._functions, other._functions, strict=False)
        if self._kind == other._kind and all(one is two for one, two in functions):
            other._found = self._found
        return other

    def __call__(self, *arrays: Any) -> Any:
        """The outputs, with the same placement as the arrays."""
        program, constants = self._program(arrays)
        values = [*constants, *self._leaves, *jax.tree.leaves(arrays)]
        return jax.tree.unflatten(program.out, _executor(self._name)(program, values))

    def held(self) -> list[Any]:
        """The arrays that the parts hold or close over, as found by the first call."""
        return [*self._leaves, *next(iter(self._found.values()))[1]]

    def structure(self, *arrays: Any) -> str:
        """A digest of the computation for arrays of these shapes; only traces."""
        return digest_of_structure(self._program(arrays)[0].structure)

    def _program(self, arrays: tuple) -> tuple[Program, list[Any]]:
        """The program for arrays of these shapes, and the closed-over arrays."""
        flat, tree = jax.tree.flatten(arrays)
        shapes = tree, tuple(map(_shape, flat))
        if shapes not in self._found:
            self._found[shapes] = self._traced(arrays)
        return self._found[shapes]

    def _traced(self, arrays: tuple) -> tuple[Program, list[Any]]:
        def call(leaves: list[Any], arrays: tuple) -> Any:
            return self._call(*self._static, *jax.tree.unflatten(self._tree, leaves), *arrays)

        with evaluation_mode(), self._open():
            closed, out = jax.make_jaxpr(call, return_shape=True)(self._leaves, arrays)
        program = Program(closed, jax.tree.structure(out))
        return program, on_every_device(list(closed.consts))

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        """Lets the functions be called; afterwards JAX's caches of traces keep none of them."""
        try:
            for opaque, function in zip(self._opaque, self._functions, strict=True):
                opaque.function = function
            yield
        finally:
            for opaque in self._opaque:
                opaque.function = None


@jax.tree_util.register_static
class Opaque:
    """Represents a callable that is not a pytree, as a pytree without leaves."""

    def __init__(self) -> None:
        self.function: Any = None

    def __call__(self, *args: Any) -> Any:
        """What the function returns."""
        return inlined(self.function, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inlined:
    """A callable pytree, for functions in it that close over arrays."""

    part: Any

    def __call__(self, *args: Any) -> Any:
        """What the callable returns."""
        return inlined(self.part, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.part, name)


def inlined(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` with its `jit` calls inlined: each would keep its closed-over arrays."""
    flat, tree = jax.tree.flatten(args)
    outs: list[Any] = []

    def of_leaves(*leaves: Any) -> list[Any]:
        out, out_tree = jax.tree.flatten(function(*jax.tree.unflatten(tree, leaves)))
        outs.append(out_tree)
        return out

    closed = jax.make_jaxpr(of_leaves)(*flat)
    values = Equations(closed).values([*closed.consts, *flat], inline=True)
    return jax.tree.unflatten(outs[-1], values)


def is_container(part: Any) -> bool:
    """Whether a callable is a pytree of arrays and numbers.

    A pytree with flags among its leaves (Equinox) counts as a function: it branches on them, so
    they cannot be arguments of a program.
    """
    if jax.tree_util.all_leaves([part]):
        return False
    leaves = jax.tree.leaves(part)
    return all(isinstance(leaf, NUMBERS) and not isinstance(leaf, bool) for leaf in leaves)


def _shape(leaf: Any) -> tuple[Any, ...]:
    return np.shape(leaf), str(jax.dtypes.result_type(leaf)), isinstance(leaf, int | float)


@functools.cache
def _executor(name: str) -> Callable[[Program, list[Any]], list[Any]]:
    """Compiles and runs programs, under the name shown in profiles and logs."""

    def run(program: Program, values: list[Any]) -> list[Any]:
        return program.equations.values(values)

    run.__name__ = name
    return jit(run, static_argnums=0)
