"""Finds every convolution in a traced function, however deeply nested, and puts in its faster form.

A traced function (a jaxpr) is a list of equations. An equation that is a convolution is replaced by
a call of its faster form; an equation that holds traced functions itself (`jit`, `scan`, `cond`,
`checkpoint`, ...) gets those rewritten; all others stay the very same objects. Inputs, outputs and
effects are never changed, so whatever surrounds the equations keeps its meaning.
"""

import weakref
from typing import Any

import jax
import jax.extend.core as jex
from jax.extend.core.primitives import conv_general_dilated_p

from jaxrobust.convolutions._forms import faster_form

# Primitives whose derivative follows from that of the functions they hold. The custom-derivative
# calls are absent on purpose: their author's rule decides, and our rewriting could not reach it.
# So is `shard_map`, whose inside means nothing outside of it; call `fast_on_cpu` inside of it.
_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2")
_TRANSPARENT = frozenset((*_CALLS, "scan", "while", "cond"))

# One rewritten copy per traced function, for as long as that lives: `jit` recognises programs that
# it has compiled by the identity of this object, so a fresh copy per call would compile per call.
_REWRITTEN: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def rewrite(jaxpr: Any) -> Any:
    """Replaces the convolutions in a jaxpr, open or closed; returns the jaxpr itself if none is."""
    if jaxpr not in _REWRITTEN:
        eqns = [_rewrite_equation(eqn) for eqn in jaxpr.eqns]
        changed = any(new is not old for new, old in zip(eqns, jaxpr.eqns, strict=True))
        # None, not the jaxpr: a value that is its own key would never be released.
        _REWRITTEN[jaxpr] = _with_equations(jaxpr, eqns) if changed else None
    copy = _REWRITTEN[jaxpr]
    return jaxpr if copy is None else copy


def _rewrite_equation(eqn: Any) -> Any:
    if eqn.primitive is conv_general_dilated_p:
        return _rewrite_convolution(eqn)
    if eqn.primitive.name in _TRANSPARENT:
        params = {name: _rewrite_parameter(value) for name, value in eqn.params.items()}
        if any(params[name] is not value for name, value in eqn.params.items()):
            return eqn.replace(params=params)
    return eqn


def _rewrite_parameter(value: Any) -> Any:
    if isinstance(value, (jex.Jaxpr, jex.ClosedJaxpr)):
        return rewrite(value)
    if isinstance(value, tuple) and any(isinstance(v, jex.ClosedJaxpr) for v in value):
        branches = tuple(_rewrite_parameter(v) for v in value)
        return branches if any(a is not b for a, b in zip(branches, value, strict=True)) else value
    return value


def _rewrite_convolution(eqn: Any) -> Any:
    avals = [v.aval for v in eqn.invars]
    images, kernel = avals
    form = faster_form(eqn.params, images, kernel, eqn.outvars[0].aval)
    if form is None:
        return eqn
    # Tracing the form yields one equation, a call with a custom rule; it takes this one's place.
    traced = jax.make_jaxpr(form)(*avals)
    (call,) = traced.eqns
    operands: dict[Any, Any] = dict(zip(traced.jaxpr.invars, eqn.invars, strict=True))
    for variable, constant in zip(traced.jaxpr.constvars, traced.consts, strict=True):
        operands[variable] = jex.Literal(constant, variable.aval)
    invars = [operands[variable] for variable in call.invars]
    return eqn.replace(primitive=call.primitive, params=call.params, invars=invars)


def _with_equations(jaxpr: Any, eqns: list[Any]) -> Any:
    # Up to jax 0.10 a closed jaxpr wraps an open one; later there is one class for both.
    if isinstance(jaxpr, jex.Jaxpr):
        return jaxpr.replace(eqns=eqns)
    return jex.ClosedJaxpr(jaxpr.jaxpr.replace(eqns=eqns), jaxpr.consts)
