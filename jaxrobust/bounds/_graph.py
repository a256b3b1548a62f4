"""A network as a list of operations on values that depend on the image.

Calls are inlined, constants are folded, and what the result does not need is left out.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from jaxrobust.bounds._patterns import recognised
from jaxrobust.bounds._rewritten import rewritten
from jaxrobust.bounds._rule import Known, Node, rule_of
from jaxrobust.bounds._unsupported import UnsupportedPrimitive, place, unsupported
from jaxrobust.inputs import as_network_logits, concrete, evaluation_mode
from jaxrobust.loops import scan_arguments

CALLS = frozenset(("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"))
CALLS |= {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
SAME = ("copy", "copy_p", "stop_gradient", "optimization_barrier", "name")
COMPARISONS = ("eq", "ge", "gt", "le", "lt", "ne", "and", "or", "not", "is_finite")
HARMLESS = (*COMPARISONS, "convert_element_type")  # alone: their readers are named instead
PRODUCTS = ("dot_general", "conv_general_dilated")


class Graph(NamedTuple):
    """A network on one image.

    Attributes:
      nodes: in an order in which each follows what it reads.
      output: number of the variable of the logits, or `Known` logits.
      types: shape and dtype of each variable; variable 0 is the image, `[1, h, w, c]`.
    """

    nodes: tuple[Node, ...]
    output: Any
    types: tuple[Any, ...]


@dataclass(frozen=True)
class _Refused:
    """Stands in for the rule of an operation that has none, which may turn out not to be needed."""

    error: UnsupportedPrimitive
    name: str


def traced(
    fn: Callable, image_shape: Sequence[int], dtype: Any, *, name: str, classes: int = 1
) -> Graph:
    """Traces a network on one image, so that nothing in it can depend on a batch.

    Args:
      fn: images `[b, h, w, c]` -> outputs `[b, k]`.
      image_shape: `(h, w, c)`.
      dtype: of the image.
      name: of the network's argument, for messages.
      classes: the least number of outputs.

    Returns:
      The operations that its output needs.

    Raises:
      UnsupportedPrimitive: if one of them has no rule.
      InputError: if the output is not `[1, k]`.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), dtype)
    least: Any = {"batch": 1, "signed": classes < 2}
    with jax.default_matmul_precision("highest"), evaluation_mode():
        # The lambda: JAX hashes the function, and a callable pytree need not be hashable.
        closed = jax.make_jaxpr(lambda x: as_network_logits(fn(x), name=name, **least))(image)
        builder = _Builder(image)
        (output,) = builder.inline(closed.jaxpr, closed.consts, [0])
    return Graph(_needed(builder.nodes, output), output, tuple(builder.types))


def _needed(nodes: list[Node], output: Any) -> tuple[Node, ...]:
    """The nodes that the output depends on; refuses the first that has no rule.

    A comparison is named only if nothing that reads it is refused as well.
    """
    wanted, kept = {output} if not isinstance(output, Known) else set(), []
    for node in reversed(nodes):
        if node.out in wanted:
            wanted.update(node.variables)
            kept.append(node)
    kept.reverse()
    refused = [node.rule for node in kept if isinstance(node.rule, _Refused)]
    for rule in sorted(refused, key=lambda rule: rule.name in HARMLESS):
        raise rule.error
    return tuple(kept)


class _Builder:
    """The nodes so far. Operands are `Known` values or numbers of variables."""

    def __init__(self, image: Any) -> None:
        self.nodes: list[Node] = []
        self.types: list[Any] = [image]
        self.made_by: dict[int, tuple[str, Node]] = {}
        self.place = ""  # of the call that is being inlined

    def inline(self, jaxpr: Any, consts: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
        """The operands that a jaxpr's outputs are."""
        known: dict[Any, Any] = {}
        known.update(zip(jaxpr.constvars, map(Known, consts), strict=True))
        known.update(zip(jaxpr.invars, operands, strict=True))

        def operand(atom: Any) -> Any:
            return Known(atom.val) if isinstance(atom, jex.Literal) else known[atom]

        for equation in jaxpr.eqns:
            found = self.equation(equation, [operand(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, found, strict=True))
        return [operand(atom) for atom in jaxpr.outvars]

    def equation(self, equation: Any, operands: list[Any]) -> list[Any]:
        """The operands that an equation's results are."""
        name, params = equation.primitive.name, equation.params
        if all(isinstance(x, Known) for x in operands):
            return self.folded(equation, operands)
        if name in SAME:
            return operands
        if name in CALLS:
            key = next(k for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params)
            outer, self.place = self.place, place(equation, self.place)
            found = self.called(params[key], operands)
            self.place = outer
            return found
        if name == "cond" and isinstance(operands[0], Known):
            return self.branch(equation, operands)
        if name == "scan":
            return self.unrolled(params, operands)
        written = rewritten(name, params, operands)
        if isinstance(written, list):
            return written
        if written is not None:
            return self.of_function(written, operands)
        return self.node(equation, operands)

    def folded(self, equation: Any, operands: list[Any]) -> list[Any]:
        """The values of an equation without the image, with the derivatives that it has."""
        params = equation.primitive.get_bind_params(equation.params)
        values = [x.value for x in operands]
        # Known numbers stay known within `jit`: patterns look at them.
        now = all(jnp.size(v) == 1 and not isinstance(v, jax.core.Tracer) for v in values)
        with equation.ctx.manager, jax.ensure_compile_time_eval() if now else nullcontext():
            found = equation.primitive.bind(*values, **params)
        return [Known(x) for x in (found if equation.primitive.multiple_results else [found])]

    def called(self, called: Any, operands: list[Any]) -> list[Any]:
        """The body of a call: the function itself, whatever its derivative rule says."""
        consts = getattr(called, "consts", ())
        return self.inline(getattr(called, "jaxpr", called), consts, operands)

    def branch(self, equation: Any, operands: list[Any]) -> list[Any]:
        """The branch of a `cond` that a known index chooses."""
        index = concrete(operands[0].value)
        if index is None:
            return self.node(equation, operands)
        branches = equation.params["branches"]
        return self.called(branches[min(max(int(index), 0), len(branches) - 1)], operands[1:])

    def of_function(self, function: Callable, operands: list[Any]) -> list[Any]:
        """A function of JAX on operands, traced and inlined."""
        arguments = [x.value if isinstance(x, Known) else self.types[x] for x in operands]
        # Known values stay out of the trace's arguments, or they would become variables.
        places = [i for i, x in enumerate(operands) if not isinstance(x, Known)]

        def of_variables(*variables: Any) -> Any:
            filled = list(arguments)
            for i, value in zip(places, variables, strict=True):
                filled[i] = value
            return function(*filled)

        closed = jax.make_jaxpr(of_variables)(*(arguments[i] for i in places))
        return self.inline(closed.jaxpr, closed.consts, [operands[i] for i in places])

    def unrolled(self, params: dict[str, Any], operands: list[Any]) -> list[Any]:
        """A `scan`, step by step."""
        consts, carry = scan_arguments(params)
        fixed, state = operands[:consts], operands[consts : consts + carry]
        sequences, rows = operands[consts + carry :], []
        steps = range(params["length"])
        for step in reversed(steps) if params["reverse"] else steps:
            now = [x for y in sequences for x in self.of_function(lambda v, i=step: [v[i]], [y])]
            found = self.called(params["jaxpr"], [*fixed, *state, *now])
            state, row = found[:carry], found[carry:]
            rows.append(row)
        rows = rows[::-1] if params["reverse"] else rows
        stacked = [self.of_function(_stack, list(column)) for column in zip(*rows, strict=True)]
        return [*state, *(x for column in stacked for x in column)]

    def node(self, equation: Any, operands: list[Any]) -> list[Any]:
        """An equation as a node; one that has no rule is kept until it is known to be needed."""
        name, params = equation.primitive.name, dict(equation.params)
        if len(equation.outvars) != 1:
            outs = [len(self.types) + i for i in range(len(equation.outvars))]
            error = _Refused(unsupported(equation, self.place), name)
            for out, variable in zip(outs, equation.outvars, strict=True):
                self.add(name, error, _nothing, params, operands, out, variable.aval)
            return outs
        if name in PRODUCTS:
            params["precision"] = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
        rule, operands = recognised(name, operands, self.made_by, self.types)
        if rule is None:
            rule = rule_of(name, params, tuple(operands))
        found: Any = (
            rule
            if rule is not None
            else _Refused(unsupported(equation, self.place, _why(operands)), name)
        )
        bind = functools.partial(
            equation.primitive.bind, **equation.primitive.get_bind_params(params)
        )
        out = len(self.types)
        self.add(name, found, bind, params, operands, out, equation.outvars[0].aval)
        return [out]

    def add(
        self, name: str, rule: Any, bind: Any, params: Any, operands: Any, out: int, aval: Any
    ) -> None:
        node = Node(rule, bind, name, params, tuple(operands), out, tuple(aval.shape))
        self.nodes.append(node)
        self.types.append(jax.ShapeDtypeStruct(aval.shape, aval.dtype))
        self.made_by[out] = name, node


def _why(operands: list[Any]) -> str:
    count = sum(not isinstance(x, Known) for x in operands)
    several = f"no rule bounds it with {count} operands that depend on the image"
    return several if count < len(operands) or count > 1 else ""


def _nothing(*operands: Any, **known: Any) -> Any:
    raise AssertionError("a refused operation is never applied")


def _stack(*values: Any) -> list[Any]:
    return [jnp.stack(values)]
