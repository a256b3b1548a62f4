"""The evaluators that an experiment and its trade-off ask for."""

from dataclasses import fields, is_dataclass
from typing import Any

from jaxrobust import evaluators
from jaxrobust.evaluation import Evaluator
from jaxrobust.experiment._experiment import Evaluation, Experiment
from jaxrobust.experiment._parts import PARTS
from jaxrobust.experiment._tradeoff import Tradeoff


def evaluators_of(experiment: Experiment) -> tuple[Evaluator, ...]:
    """What `jaxrobust evaluate` evaluates a run by.

    Args:
      experiment: of the run.

    Returns:
      The evaluators of its `evaluation`, then its own `evaluators`.

    Example:
      >>> from jaxrobust.experiment import Experiment, evaluators_of, use
      >>> experiment = Experiment(name="x", data=use("digits"), model=use("mlp"),
      ...     objective=use("trades"), threat=use("linf", eps=0.1))
      >>> evaluators_of(experiment)[0].steps
      20
    """
    return (*_of(experiment.evaluation), *experiment.build("evaluators"))


def tradeoff_evaluators(tradeoff: Tradeoff, experiment: Experiment) -> tuple[Evaluator, ...]:
    """What a trade-off evaluates each of its runs by.

    Args:
      tradeoff: what it asks for.
      experiment: whose own evaluators every run is evaluated by.

    Returns:
      The evaluators, in the order of the table's columns.
    """
    return (*evaluators_of(experiment), *tradeoff.build_evaluators())


def _of(settings: Evaluation) -> tuple[Evaluator, ...]:
    pgd = evaluators.pgd(
        steps=settings.steps,
        step_size=settings.step_size,
        restarts=settings.restarts,
        grid=settings.spatial_grid,
    )
    if not settings.spatial_degrees and not settings.spatial_shift_px:
        return (pgd,)
    grid = evaluators.spatial_grid(
        max_degrees=settings.spatial_degrees,
        max_shift_px=settings.spatial_shift_px,
        counts=settings.spatial_grid,
    )
    return (pgd, grid)


def evaluator_name(evaluator: Any) -> str:
    """An evaluator's name in rows: its short name, or its import path if it is from outside.

    Args:
      evaluator: the evaluator.

    Returns:
      Such as "pgd" or "my_project.evaluators:noise".

    Example:
      >>> from jaxrobust import evaluators
      >>> from jaxrobust.experiment import evaluator_name
      >>> evaluator_name(evaluators.pgd())
      'pgd'
    """
    kind = type(evaluator)
    path = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, call in PARTS["evaluators"].names.items() if call is kind), path)


def evaluator_packages(evaluator: Any) -> set[str]:
    """The packages from outside whose code an evaluator and its settings are.

    Args:
      evaluator: the evaluator.

    Returns:
      Top-level names.

    Example:
      >>> from jaxrobust import evaluators
      >>> from jaxrobust.experiment import evaluator_packages
      >>> evaluator_packages(evaluators.per_class())
      set()
    """
    if isinstance(evaluator, list | tuple):
        return set().union(*map(evaluator_packages, evaluator))
    if not is_dataclass(evaluator):
        return set()
    inner = evaluator_packages([getattr(evaluator, field.name) for field in fields(evaluator)])
    return (inner | {type(evaluator).__module__.split(".")[0]}) - {"jaxrobust"}
