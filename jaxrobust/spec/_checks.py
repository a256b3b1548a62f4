"""Names and arguments of parts are checked against the signature, which is not called."""

import inspect
from typing import Any

from jaxrobust.spec._parts import Part
from jaxrobust.spec._signatures import POSITIONAL, SEVERAL, hints_of, signature_of
from jaxrobust.spec._spec import Spec, mapped
from jaxrobust.spec._targets import resolved
from jaxrobust.spec._values import converted


def checked(spec: Any, part: Part, where: str) -> Spec:
    """A part with its arguments converted to the types of the signature.

    Args:
      spec: the part.
      part: the kind that it must be of.
      where: the field, for messages.

    Returns:
      The same part: arguments have their names, exported callables their short names.

    Raises:
      ValueError: in one line, for an unknown name or argument, or a value of the wrong type; the
        valid choices are named.
    """
    if not isinstance(spec, Spec):
        raise ValueError(f"{where} must be a part, {_wanted(spec)}")
    call = resolved(spec.target, part.names, where)
    name, signature, hints = part.short(spec.target, call), signature_of(call), hints_of(call)
    args, kwargs = _named(name, spec, signature, where)
    _check_names(name, args, kwargs, signature, part, where)

    def typed(value: Any, argument: str, place: str, *, kind: Part) -> Any:
        if _holds_parts(value):
            return mapped(lambda inner, key: checked(inner, kind, _place(place, key)), value)
        return converted(value, hints.get(argument, Any), place)

    places = [p.name for p in signature.parameters.values() if p.kind in POSITIONAL]
    several = _several(signature)
    return Spec(
        name,
        tuple(
            typed(v, places[n] if n < len(places) else several, f"{where}.{n}", kind=part)
            for n, v in enumerate(args)
        ),
        {k: typed(v, k, f"{where}.{k}", kind=part.of(k)) for k, v in kwargs.items()},
    )


def _wanted(value: Any) -> str:
    """What to write in place of something that is no part."""
    if inspect.isclass(value) or inspect.isfunction(value):
        return f"such as use({value.__name__}), got {value.__name__} itself"
    return f'such as use("name"), got {repr(value)[:80]}'


def _place(where: str, key: Any) -> str:
    return where if key == "" else f"{where}.{key}"


def _holds_parts(value: Any) -> bool:
    found: list[Spec] = []
    mapped(lambda spec, _: found.append(spec), value)
    return bool(found)


def _several(signature: inspect.Signature) -> str:
    """The name of `*args`, if there is one."""
    parameters = signature.parameters.values()
    return next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "")


def _named(
    name: str, spec: Spec, signature: inspect.Signature, where: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments without a name get theirs, but where `*args` take them."""
    places = [p for p in signature.parameters.values() if p.kind in POSITIONAL]
    count = len(spec.args)
    if count > len(places):
        if not _several(signature):
            raise ValueError(
                f"{where}: {name} takes at most {len(places)} arguments without a name, got {count}"
            )
        return spec.args, spec.kwargs
    if any(p.kind is p.POSITIONAL_ONLY for p in places[:count]):
        return spec.args, spec.kwargs
    given = {p.name: value for p, value in zip(places, spec.args, strict=False)}
    for twice in given.keys() & spec.kwargs.keys():
        raise ValueError(f"{where}.{twice} is given twice, with and without its name")
    return (), given | spec.kwargs


def _check_names(
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    signature: inspect.Signature,
    part: Part,
    where: str,
) -> None:
    """Every argument must be one of the call's, and none that it needs may be missing."""
    parameters = {n: p for n, p in signature.parameters.items() if p.kind not in SEVERAL}
    free_names = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for argument in kwargs:
        if argument not in parameters and not free_names:
            offered = [n for n in parameters if n not in part.supplied]
            raise ValueError(
                f"{where}.{argument} is not an argument of {name}; "
                f"choose from {', '.join(offered) or '(it has none)'}"
            )
    positional = [n for n, p in parameters.items() if p.kind in POSITIONAL]
    given = {*positional[: len(args)], *kwargs, *part.supplied}
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in given]
    if missing:
        raise ValueError(f"{where}: {name} needs {', '.join(missing)}")
