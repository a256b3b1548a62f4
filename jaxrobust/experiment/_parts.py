"""What may stand in which field of an experiment."""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

import optax
import optax.contrib

from jaxrobust import augment, data, evaluators, models, objectives, schedules, threats
from jaxrobust.spec import Part, choices


def _returns(accept: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether an export is a function whose annotated return type is accepted."""
    return lambda value: inspect.isfunction(value) and accept(get_type_hints(value).get("return"))


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda returned: isinstance(returned, type) and issubclass(returned, kind)


def _is_dataset(returned: Any) -> bool:
    """In memory, or either in memory or streamed."""
    return data.Dataset in (get_args(returned) or (returned,))


def _is_network(returned: Any) -> bool:
    return hasattr(returned, "init") and hasattr(returned, "apply")


def _is_threat(returned: Any) -> bool:
    return is_dataclass(returned) and hasattr(returned, "ascend")


def _annotated(value: Any) -> Any:
    """What a function of Optax returns: some of its other annotations cannot be evaluated."""
    return value.__annotations__.get("return") if inspect.isfunction(value) else None


def _transforms(value: Any) -> bool:
    return _is(optax.GradientTransformation)(_annotated(value))


VERBS = ("init", "ascend", "project", "apply")
CALL = ("__call__",)
SCHEDULES = choices(optax.schedules, lambda value: _annotated(value) == optax.Schedule)
THREAT = Part(choices(threats, _returns(_is_threat)), VERBS, "threat")
IN_STEPS = Part(SCHEDULES, CALL, "schedule")

NETWORK = Part(
    choices(models, _returns(_is_network)), (), "network", ("num_classes", "rngs", "key")
)

PARTS: dict[str, Part] = {
    "data": Part(
        choices(data, _returns(_is_dataset)),
        ("held_out", "floats", "image_shape", "num_classes", "max_value"),
        "data set",
    ),
    "generated": Part(
        choices(data, _returns(_is(data.Generated))),
        ("images", "labels", "fraction"),
        "set of generated images",
    ),
    # What else a network must have depends on the library that it is written in.
    "model": NETWORK,
    "teacher": NETWORK,
    "objective": Part(
        choices(objectives, lambda value: is_dataclass(value) and hasattr(value, "outer")),
        ("attack_statistics", "passes", "inner", "outer"),
        "objective",
    ),
    "threat": THREAT,
    "transform": THREAT,
    "optimizer": Part(
        choices(optax.contrib, _transforms) | choices(optax, _transforms),
        ("init", "update"),
        "optimizer",
        ("learning_rate",),
        # Rates inside of a chain count steps, as Optax does.
        dict.fromkeys(("learning_rate", "weight_decay", "step_size_fn"), IN_STEPS),
    ),
    "learning_rate": Part(
        SCHEDULES | choices(schedules, _returns(lambda kind: kind == schedules.Schedule)),
        CALL,
        "schedule",
    ),
    "augment": Part(
        choices(augment, _returns(lambda kind: kind == augment.Augmentation)), CALL, "augmentation"
    ),
    "batch_augment": Part(
        choices(augment, _returns(lambda kind: kind == augment.BatchAugmentation)),
        CALL,
        "augmentation of batches",
    ),
    "evaluators": Part(
        choices(evaluators, is_dataclass),
        ("__call__", "__dataclass_fields__"),
        "evaluator",
        inner={"threat": THREAT},
    ),
}


def per_step(made: Callable, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """A schedule as a function of the step.

    Args:
      made: `(steps_per_epoch, epochs) -> schedule`, as in `jaxrobust.schedules`; or the schedule
        itself, which takes one argument (Optax's, whose lengths are in steps).
      steps_per_epoch: of the training.
      epochs: of the training.

    Returns:
      `step -> value`.
    """
    parameters = inspect.signature(made).parameters.values()
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p for p in parameters if p.default is p.empty and p.kind not in several]
    return made if len(needed) == 1 else made(steps_per_epoch, epochs)
