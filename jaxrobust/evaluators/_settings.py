"""Checks of settings that several evaluators have, and their words."""

from collections.abc import Sequence
from typing import Any

from jaxrobust.inputs import InputError, as_choice, as_count, as_number
from jaxrobust.typing import NORMS


def check_pgd(steps: int, restarts: int, step_size: float | None) -> None:
    """Refuses settings of PGD that are out of range."""
    as_count(steps, name="steps")
    as_count(restarts, name="restarts")
    if step_size is not None:
        as_number(step_size, name="step_size", low=0)


def check_grid(name: str, counts: Sequence[int]) -> None:
    """Refuses anything but three numbers of points."""
    if len(counts) != 3:
        raise InputError(f"{name} must be three numbers of points, got {counts}")
    for points in counts:
        as_count(points, name=name)


def check_radius(name: str, norm: str, eps: Any) -> None:
    """Refuses a radius that is none in its norm."""
    as_choice(norm, name="norm", choices=NORMS)
    as_number(eps, name=name, low=0)
    if norm == "linf" and eps > 1:
        raise InputError(f"{name} must be in image units (8/255, not 8), got {eps!r}")


def pgd_text(settings: Any) -> str:
    """PGD with all that its number depends on: `20`, or `20, 2 restarts, step size 0.01`."""
    restarts, size = settings.restarts, getattr(settings, "step_size", None)
    text = str(settings.steps)
    text += f", {restarts} restarts" if restarts > 1 else ""
    return text + (f", step size {size:.6g}" if size is not None else "")
