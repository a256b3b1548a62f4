"""Checks of settings that several evaluators have, and their words."""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxrobust.evaluation import Work, settings_of
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


def check_columns(name: str, radii: Sequence[float]) -> None:
    """Refuses radii of which two would have one column in tables, which name them by six digits."""
    words = [f"{float(eps):.6g}" for eps in radii]
    if len(set(words)) < len(words):
        raise InputError(f"{name} must differ in their first six digits, got {list(radii)}")


def pgd_text(settings: Any) -> str:
    """PGD with all that its number depends on: `20`, or `20, 2 restarts, step size 0.01`."""
    restarts, size = settings.restarts, getattr(settings, "step_size", None)
    text = str(settings.steps)
    text += f", {restarts} restarts" if restarts > 1 else ""
    return text + (f", step size {size:.6g}" if size is not None else "")


def seed_text(seed: int) -> str:
    """A seed for names; 0 is not told."""
    return f", seed {seed}" if seed else ""


def kept_in(
    work: Work, room: str, evaluator: Any, *, without: Sequence[str] = ()
) -> pathlib.Path | None:
    """Where an evaluation is kept, if it is: evaluations that differ have different folders.

    Args:
      work: of the run.
      room: folder in the run's folder.
      evaluator: whose settings name the folder, as far as words of a few letters do; a digest of
        all of them is at the end.
      without: settings that change nothing of what is kept.

    Returns:
      Such as `runs/x/verdict/best_step310_linf_0.03137255_float32_0_3f2a90c1`.
    """
    if work.folder is None:
        return None
    settings = {k: v for k, v in settings_of(evaluator).items() if k not in without}
    words = [str(value) for value in settings.values() if isinstance(value, str | int | float)]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    parts = (work.name, *(word[:24] for word in words), digest)
    return work.folder / room / "_".join(part for part in parts if part)
