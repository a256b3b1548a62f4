"""A traced function evaluated again, with the twin's derivatives."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np

from jaxrobust.loops import scan_arguments
from jaxrobust.twins._known import Known, constant, floated, is_float, is_literal, literal
from jaxrobust.twins._rules import RULES, Told, bound, leaking
from jaxrobust.twins._stops import has_trusted_rule, is_numerical

CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2")
AUTHORS = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
ALIKE = ("broadcast_in_dim", "reshape", "convert_element_type", "squeeze", "copy")  # of scalars


def evaluated(called: Any, inputs: Sequence[Known], told: Told) -> list[Known]:
    """The results of a traced function.

    Args:
      called: a jaxpr, open or closed.
      inputs: what is known of its arguments.
      told: called with every equation that stops a gradient, what it does, and the calls that it
        is inside of.
    """
    open_ = getattr(called, "jaxpr", called)
    known: dict[Any, Known] = dict(zip(open_.invars, inputs, strict=True))
    known |= zip(open_.constvars, map(constant, getattr(called, "consts", ())), strict=True)
    for eqn in open_.eqns:
        args = [literal(atom) if is_literal(atom) else known[atom] for atom in eqn.invars]
        known |= zip(eqn.outvars, _results(eqn, args, told), strict=True)
    return [literal(atom) if is_literal(atom) else known[atom] for atom in open_.outvars]


def _results(eqn: Any, args: list[Known], told: Told) -> list[Known]:
    name = eqn.primitive.name
    if name in CALLS:
        return _call(eqn, args, told)
    if not any(known.depends for known in args):
        scalar = args[0].scalar if name in ALIKE else None
        return [constant(value, scalar) for value in bound(eqn, [k.value for k in args])]
    if name in AUTHORS and not has_trusted_rule(_called(eqn)):
        told(eqn, "has a derivative that its author prescribes")
        return evaluated(_called(eqn), args, inside(eqn, told))
    if name in ("scan", "cond"):
        eqn = _rewritten(eqn, args, told)
    values = bound(eqn, [known.value for known in args])
    found = RULES[name](eqn, args, values, told) if name in RULES else None
    return [Known(value, True) for value in values] if found is None else found


def _call(eqn: Any, args: list[Known], told: Told) -> list[Known]:
    """A call, without the call; of `jnp.clip` with a leak, as of a clamp."""
    outs = evaluated(_called(eqn), args, inside(eqn, told))
    clips = eqn.params.get("name") == "clip" and len(outs) == 1 and outs[0].depends
    if not clips or not args[0].depends or is_numerical(eqn) or not is_float(outs[0].value):
        return outs
    told(eqn, "cuts its input off")
    entered = floated(args[0])
    if entered.shape != outs[0].value.shape:
        return outs
    return [outs[0]._replace(value=leaking(outs[0].value, entered))]


def _called(eqn: Any) -> Any:
    return next(eqn.params[n] for n in ("jaxpr", "call_jaxpr", "fun_jaxpr") if n in eqn.params)


def inside(call: Any, told: Told) -> Told:
    """Reports what is inside of a call, which some equations are known by alone."""
    return lambda eqn, what, *calls: told(eqn, what, call, *calls)


def _rewritten(eqn: Any, args: list[Known], told: Told) -> Any:
    """A loop or a branch, of whose inside the twin is taken."""
    told = inside(eqn, told)
    depends = [known.depends for known in args]
    if eqn.primitive.name == "cond":
        branches = tuple(_twin(b, depends[1:], told) for b in eqn.params["branches"])
        return eqn.replace(params=eqn.params | {"branches": branches})
    consts, carry = scan_arguments(eqn.params)
    if any(depends):  # after one iteration at the latest, or it does no harm
        depends[consts : consts + carry] = [True] * carry
    return eqn.replace(params=eqn.params | {"jaxpr": _twin(eqn.params["jaxpr"], depends, told)})


def _twin(closed: Any, depends: list[bool], told: Told) -> Any:
    """The twin of a traced function, traced; of the same types."""

    def call(*values: Any) -> list[Any]:
        known = [Known(value, flag) for value, flag in zip(values, depends, strict=True)]
        return [found.value for found in evaluated(closed, known, told)]

    traced = jax.make_jaxpr(call)(*closed.in_avals)
    if not traced.consts:
        return traced
    return _without_constants(traced)


def _without_constants(closed: Any) -> Any:
    """Constants of a branch or a body stay with it as literals of the closed jaxpr."""
    return jex.ClosedJaxpr(closed.jaxpr, [np.asarray(c) for c in closed.consts])
