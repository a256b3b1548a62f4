"""Curricula: how hard training is, as schedules of an experiment.

A curriculum is a dictionary of `Experiment` fields, to be spread into one:
`Experiment(..., **curricula.cusp())`. The values change inside the compiled step, so a whole
curriculum is one program.
"""

from collections.abc import Sequence
from typing import Any, Literal

from jaxrobust import inputs
from jaxrobust.spec import Spec, use

Fields = dict[str, Any]
OBJECTIVES = {
    "pgd_at": use("pgd_at", steps=10, step_size=2 / 255),
    "trades": use("trades", beta=5.0, steps=10, step_size=0.007),
}
KINDS = ("cusp", "linf_only", "augmentation_only", "both_at_full_strength")


def constant(**values: float) -> Fields:
    """Values that hold for the whole training.

    Args:
      **values: by path, with a double underscore for the dot: `threat__eps=8 / 255`.

    Returns:
      `{"schedules": ...}`.

    Example:
      >>> from jaxrobust import curricula
      >>> curricula.constant(threat__eps=0.1)["schedules"]["threat.eps"].target
      'constant'
    """
    return {"schedules": {_path(p): use("constant", value=v) for p, v in values.items()}}


def ramp(
    *, from_epoch: float = 0.0, to_epoch: float | None = None, **values: tuple[float, float]
) -> Fields:
    """Values that rise (or fall) linearly and then stay.

    Args:
      from_epoch: 0-based epoch at which the ramp begins.
      to_epoch: 0-based epoch at which it ends; default: the end of training.
      **values: by path, pairs of first and last value: `threat__eps=(0.0, 8 / 255)`.

    Returns:
      `{"schedules": ...}`.

    Example:
      >>> from jaxrobust import curricula
      >>> fields = curricula.ramp(to_epoch=10, threat__eps=(0.0, 0.1))
      >>> fields["schedules"]["threat.eps"].kwargs["end"]
      0.1
    """
    times = {"from_epoch": from_epoch, "to_epoch": to_epoch}
    return {
        "schedules": {
            _path(p): use("linear", start=first, end=last, **times)
            for p, (first, last) in values.items()
        }
    }


def staged(*, epochs: Sequence[float], **values: Sequence[float]) -> Fields:
    """Values that change at given epochs, all together.

    Args:
      epochs: 0-based epochs at which the stages begin; the first is 0.
      **values: by path, one value per stage: `threat__eps=(2 / 255, 4 / 255)`.

    Returns:
      `{"schedules": ...}`.

    Raises:
      ValueError: if a value's stages are not as many as the epochs.

    Example:
      >>> from jaxrobust import curricula
      >>> fields = curricula.staged(epochs=(0, 5), threat__eps=(0.1, 0.2))
      >>> fields["schedules"]["threat.eps"].kwargs
      {'values': [(0, 0.1), (5, 0.2)]}
    """
    found: dict[str, Spec] = {}
    for path, stages in values.items():
        if len(stages) != len(epochs):
            raise inputs.InputError(
                f"{path} must have {len(epochs)} values, one for each stage, got {len(stages)}"
            )
        found[_path(path)] = use("stages", values=list(zip(epochs, stages, strict=True)))
    return {"schedules": found}


def cusp(
    *,
    kind: Literal["cusp", "linf_only", "augmentation_only", "both_at_full_strength"] = "cusp",
    objective: Literal["pgd_at", "trades"] = "pgd_at",
    epochs: int = 120,
    degrees: Sequence[float] = (120.0, 150.0, 180.0),
    eps: Sequence[float] = (2 / 255, 4 / 255, 8 / 255),
    peak: float = 0.1,
    method: Literal["bilinear", "two_pass", "nearest"] = "nearest",
) -> Fields:
    """CuSP as published, its TRADES form, and what it is compared with.

    Three stages of rotation range and eps that begin where the learning rate drops: at epochs 75
    and 90 of 120 (counted from 1), and a last drop without a stage at 100. Each image is rotated
    at random (nearest neighbour, black corners) and then attacked: ten steps of 2/255 for PGD;
    for TRADES beta 5 and ten steps of 0.007.

    Args:
      kind: "cusp"; "linf_only" and "augmentation_only" leave one of the two out, at full strength
        from the start; "both_at_full_strength" has no curriculum.
      objective: "pgd_at" or "trades".
      epochs: of training; the drops scale with it.
      degrees: rotation range of the three stages, to both sides.
      eps: l_inf radius of the three stages, image units.
      peak: first learning rate.
      method: of the rotation, as in `threats.spatial`.

    Returns:
      Fields of an `Experiment`: objective, threat, transform, schedules, learning_rate, epochs.

    Raises:
      InputError: for an unknown kind or objective, other than three stages, or a number out of
        its range.

    Example:
      >>> from jaxrobust import curricula
      >>> sorted(curricula.cusp())
      ['epochs', 'learning_rate', 'objective', 'schedules', 'threat', 'transform']

    References:
      Kamath et al., Can we have it all?, 2020 (arXiv:2002.11318), the curriculum CuSP.
    """
    inputs.as_choice(kind, name="kind", choices=KINDS)
    inputs.as_choice(objective, name="objective", choices=tuple(OBJECTIVES))
    inputs.as_count(epochs, name="epochs")
    inputs.as_number(peak, name="peak", low=0)
    if len(degrees) != 3 or len(eps) != 3:
        raise inputs.InputError(
            f"degrees and eps must have three stages, got {len(degrees)} and {len(eps)}"
        )
    for range_ in degrees:
        inputs.as_number(range_, name="degrees", low=0, high=180)
    for radius in eps:
        inputs.as_number(radius, name="eps", low=0, high=1)
    drops = [round(epoch * epochs / 120, 3) for epoch in (74, 89, 99)]
    attacked, moved = kind != "augmentation_only", kind != "linf_only"
    fields: Fields = {
        "epochs": epochs,
        "learning_rate": use("piecewise", value=peak, drops=[(epoch, 0.1) for epoch in drops]),
        "objective": OBJECTIVES[objective] if attacked else use("standard"),
        "threat": use("linf", eps=eps[-1]),
        "transform": use("spatial", max_degrees=degrees[-1], max_shift_px=0.0, method=method),
        "schedules": {},
    }
    if not moved:
        fields["transform"] = None
    if kind == "cusp":
        stages = {"threat__eps": tuple(eps), "transform__max_degrees": tuple(degrees)}
        fields |= staged(epochs=(0, *drops[:2]), **stages)
    return fields


def _path(keyword: str) -> str:
    return keyword.replace("__", ".", 1)
