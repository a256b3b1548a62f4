"""Experiments are data: one frozen dataclass that round-trips through JSON."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_args, get_type_hints

import flax.linen as nn
import jax
import optax
import pydantic

from jaxrobust import augment, data, evaluators, models, objectives, schedules, threats
from jaxrobust.inputs import InputError, as_count, as_number, as_seed
from jaxrobust.spec import Number, Spec, checked, choices, not_nan, use

FORBID_EXTRA = pydantic.ConfigDict(extra="forbid")


def as_folder_name(value: Any, *, name: str) -> str:
    """A name that can also be that of a folder.

    Args:
      value: the name.
      name: of the argument, for the message.

    Returns:
      `value`.

    Raises:
      InputError: for no text, or one that is no name of a folder.
    """
    fits = isinstance(value, str) and value.strip() == value and value not in ("", ".", "..")
    if not fits or len(value.encode()) > 200 or not value.isprintable() or set(value) & set("/\\"):
        raise InputError(
            f"{name} must be a text that can name a folder (1 to 200 bytes, no slash, no spaces "
            f"at its ends), got {value!r}"
        )
    return value


def _returns(accept: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether an export is a function whose annotated return type is accepted."""
    return lambda value: inspect.isfunction(value) and accept(get_type_hints(value).get("return"))


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda returned: isinstance(returned, type) and issubclass(returned, kind)


def _is_dataset(returned: Any) -> bool:
    """In memory, or either in memory or streamed."""
    return data.Dataset in (get_args(returned) or (returned,))


def _is_threat(returned: Any) -> bool:
    return is_dataclass(returned) and hasattr(returned, "ascend")


# Which exports may stand in which field.
PARTS: dict[str, dict[str, Callable]] = {
    "data": choices(data, _returns(_is_dataset)),
    "generated": choices(data, _returns(_is(data.Generated))),
    "model": choices(models, _returns(_is(nn.Module))),
    "objective": choices(objectives, lambda value: is_dataclass(value) and hasattr(value, "outer")),
    "threat": choices(threats, _returns(_is_threat)),
    "transform": choices(threats, _returns(_is_threat)),
    "optimizer": {name: getattr(optax, name) for name in ("adam", "adamw", "lion", "sgd")},
    "learning_rate": choices(schedules, _returns(lambda kind: kind == schedules.Schedule)),
    "augment": choices(augment, _returns(lambda kind: kind == augment.Augmentation)),
    "batch_augment": choices(augment, _returns(lambda kind: kind == augment.BatchAugmentation)),
    "evaluators": choices(evaluators, is_dataclass),
}


def checked_parts(part: str, specs: Sequence[Spec]) -> tuple[Spec, ...]:
    """The parts of one field, checked; also those that stand in an argument of another one."""

    def inner(value: Any, path: str) -> Any:
        if isinstance(value, dict) and value.keys() <= {"name", "kwargs"} and "name" in value:
            value = Spec(**value)  # from a file
        if not isinstance(value, Spec):
            return value
        kwargs = {name: inner(held, f"{path}.{name}") for name, held in value.kwargs.items()}
        return checked(Spec(value.name, kwargs), PARTS[part], path)

    return tuple(inner(spec, f"{part}[{i}]") for i, spec in enumerate(specs))


def built(part: str, spec: Spec) -> Any:
    """The object that a part of a field stands for, with those in its arguments."""
    kwargs = {k: built(part, v) if isinstance(v, Spec) else v for k, v in spec.kwargs.items()}
    return PARTS[part][spec.name](**kwargs)


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Choosing the best checkpoint: by a margin attack on held-out training examples.

    Attributes:
      size: training examples held out; 0 for none (the last checkpoint is then the best).
      every: epochs between validations.
      steps: steps of margin PGD, of size 2.5 eps / steps.
    """

    __pydantic_config__ = FORBID_EXTRA

    size: int = 0
    every: int = 1
    steps: int = 20

    def __post_init__(self) -> None:
        as_count(self.size, name="size", least=0)
        as_count(self.every, name="every")
        as_count(self.steps, name="steps")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The attacks of `jaxrobust evaluate` (AutoAttack has its own command-line options).

    Attributes:
      steps: steps of PGD on cross-entropy and on the margin.
      step_size: in the threat's units; default 2.5 eps / steps.
      restarts: random starts of each attack.
      batch_size: examples per forward pass.
      spatial_degrees: largest rotation of a separate evaluation under rotations and shifts.
      spatial_shift_px: largest shift of it; where both are 0 there is none.
      spatial_grid: points of its grid to the right, down, and of the angle.
    """

    __pydantic_config__ = FORBID_EXTRA

    steps: int = 20
    step_size: Number | None = None
    restarts: int = 1
    batch_size: int = 256
    spatial_degrees: Number = 0.0
    spatial_shift_px: Number = 0.0
    spatial_grid: tuple[int, int, int] = (5, 5, 31)

    def __post_init__(self) -> None:
        for name in ("steps", "restarts", "batch_size"):
            as_count(getattr(self, name), name=name)
        if self.step_size is not None:
            as_number(self.step_size, name="step_size", low=0)
        as_number(self.spatial_degrees, name="spatial_degrees", low=0, high=180)
        as_number(self.spatial_shift_px, name="spatial_shift_px", low=0)
        if len(self.spatial_grid) != 3:
            raise InputError(
                f"spatial_grid must be three numbers of points, got {self.spatial_grid}"
            )
        for points in self.spatial_grid:
            as_count(points, name="spatial_grid")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that determines a training run, and what the paper reports for it.

    Attributes:
      name: names the run's folder and its results.
      data: a data set of `jaxrobust.data`.
      generated: generated images mixed into every batch, or `None`.
      model: a network of `jaxrobust.models`; `num_classes` comes from the data.
      objective: a recipe of `jaxrobust.objectives`.
      threat: the set of `jaxrobust.threats` that training and evaluation attack in.
      optimizer: of Optax, without its learning rate.
      learning_rate: a schedule of `jaxrobust.schedules`.
      transform: a set of `jaxrobust.threats` of which every training image suffers a random
        member before it is attacked (rotations: augmentation of a strength that a schedule may
        change), or `None`.
      schedules: values that change during training, each a schedule of `jaxrobust.schedules` by
        path: "objective.NAME", "threat.NAME", "transform.NAME", "optimizer.momentum" or "awp".
      weight_decay: added to the gradient as `weight_decay * parameter` (PyTorch's SGD).
      clip_norm: largest l_2 norm of the whole gradient, which is shortened to it; 0 for no limit.
      decayed: parameters with weight decay: "all", "no_norm" (all but norm layers'), or "kernels"
        (also no biases).
      epochs: passes over the training data.
      batch_size: examples per step over all devices.
      microbatches: parts of a device's batch that are computed one after the other (gradient
        accumulation, for small memories); BatchNorm sees a part at a time.
      augment: augmentations of `jaxrobust.augment`, in order.
      batch_augment: augmentations of whole batches (CutMix), after `augment`.
      ema_decay: decay of the parameter average that is evaluated; 0 for none.
      ema_warmup: part of the training, in [0, 1), during which the average is a copy of the
        parameters; then its decay rises to `ema_decay` (Gowal et al.). `None`: constant decay.
      ema_batch_stats: running statistics that the average is evaluated with: the "live" ones of
        the trained network (the papers), or their own "average".
      awp: size of the adversarial weight perturbation, relative to each kernel's norm (0.005 in
        its paper; a further forward and backward pass); 0 for none.
      batch_norm: "global" statistics over all devices (the numbers of one device), or
        "per_device" (no communication).
      validation: how the best checkpoint is chosen.
      evaluation: the attacks of `jaxrobust evaluate` and the batch size of evaluations.
      evaluators: further evaluations, of `jaxrobust.evaluators`.
      seed: of initialisation, data order, augmentation and attacks.
      published: figures of the paper, for comparison.
    """

    __pydantic_config__ = FORBID_EXTRA

    name: str
    data: Spec
    generated: Spec | None = None
    model: Spec
    objective: Spec
    threat: Spec
    transform: Spec | None = None
    optimizer: Spec = field(default_factory=lambda: use("sgd", momentum=0.9))
    learning_rate: Spec = field(default_factory=lambda: use("cosine", peak=0.1))
    schedules: dict[str, Spec] = field(default_factory=dict)
    weight_decay: Number = 0.0
    clip_norm: Number = 0.0
    decayed: Literal["all", "no_norm", "kernels"] = "all"
    epochs: int = 10
    batch_size: int = 128
    microbatches: int = 1
    augment: tuple[Spec, ...] = ()
    batch_augment: tuple[Spec, ...] = ()
    ema_decay: Number = 0.0
    ema_warmup: Number | None = None
    ema_batch_stats: Literal["live", "average"] = "live"
    awp: Number = 0.0
    batch_norm: Literal["global", "per_device"] = "global"
    validation: Validation = field(default_factory=Validation)
    evaluation: Evaluation = field(default_factory=Evaluation)
    evaluators: tuple[Spec, ...] = ()
    seed: int = 0
    published: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        as_folder_name(self.name, name="name")
        for name in PARTS:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, tuple):
                specs: Any = checked_parts(name, value)
            else:
                specs = checked(value, PARTS[name], name)
            object.__setattr__(self, name, specs)
        object.__setattr__(self, "schedules", self._checked_schedules())
        for name in ("learning_rate", "augment", "batch_augment", "evaluators"):
            self._check_built(name)
        for name, value in self.learning_rate.kwargs.items():
            for rate in jax.tree.leaves(value):
                if isinstance(rate, int | float):
                    as_number(rate, name=f"learning_rate.{name}", low=0)
        self._check_numbers()
        self._check_effects()

    def _check_built(self, part: str) -> None:
        """Makes a part that needs nothing else: its function checks its own arguments."""
        try:
            self.build(part)
        except ValueError as error:
            raise ValueError(f"{part}: {error}") from None

    def _check_numbers(self) -> None:
        as_count(self.epochs, name="epochs", least=0)
        as_seed(self.seed)
        for name in ("batch_size", "microbatches"):
            as_count(getattr(self, name), name=name)
        if self.batch_size % self.microbatches:
            raise InputError(
                f"batch_size must be a multiple of the {self.microbatches} microbatches, "
                f"got {self.batch_size}"
            )
        for name in ("weight_decay", "clip_norm", "awp"):
            as_number(getattr(self, name), name=name, low=0)
        for name in ("ema_decay", "ema_warmup"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise InputError(f"{name} must be in [0, 1), got {value}")
        for name in ("momentum", "b1", "b2"):
            if self.optimizer.kwargs.get(name) is not None:
                as_number(self.optimizer.kwargs[name], name=f"optimizer.{name}", low=0, high=1)
        try:
            not_nan(self.published)
        except ValueError as error:
            raise InputError(f"published: {error}") from None

    def _check_effects(self) -> None:
        """Refuses settings that would change nothing."""
        for name, default in (("ema_warmup", None), ("ema_batch_stats", "live")):
            if getattr(self, name) != default and not self.ema_decay:
                raise InputError(
                    f"{name} needs an average of the parameters: set ema_decay, or leave {name} at "
                    f"{default}, got {getattr(self, name)!r}"
                )
        if self.awp and "awp" in self.schedules:
            raise InputError(
                f"awp must be 0 where schedules has 'awp', which replaces it; got {self.awp}"
            )

    def _checked_schedules(self) -> dict[str, Spec]:
        paths = self.changing()
        for path in self.schedules:
            if path not in paths:
                raise ValueError(
                    f"schedules: {path!r} is no value that may change; "
                    f"choose from {', '.join(paths)}"
                )
        found = {}
        for path, spec in self.schedules.items():
            where = f"schedules[{path!r}]"
            found[path] = checked(spec, PARTS["learning_rate"], where)
            try:
                PARTS["learning_rate"][spec.name](**found[path].kwargs)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        return found

    def changing(self) -> list[str]:
        """The paths of the values that `schedules` may change."""
        paths = ["awp"]
        if "momentum" in inspect.signature(self.part("optimizer")).parameters:
            paths.append("optimizer.momentum")
        for head in ("objective", "threat", "transform"):
            part = self.build(head)
            free = [f.name for f in fields(part) if not f.metadata.get("static")] if part else []
            paths += [f"{head}.{name}" for name in free]
        return paths

    def part(self, name: str) -> Callable:
        """The exported callable that a part's `Spec` names."""
        return PARTS[name][getattr(self, name).name]

    def schedule(self, path: str, steps_per_epoch: int) -> optax.Schedule:
        """The scheduled value at `path` as a function of the step."""
        spec = self.schedules[path]
        make = PARTS["learning_rate"][spec.name](**spec.kwargs)
        return make(steps_per_epoch, self.epochs)

    def build(self, part: str, **extra: Any) -> Any:
        """The object that a part's `Spec` stands for.

        Args:
          part: a field that holds a `Spec` or a tuple of them.
          **extra: further keyword arguments, such as the optimizer's learning rate.

        Returns:
          What the part's function returns; a tuple for a tuple, `None` for a part left out.
        """
        value = getattr(self, part)
        if value is None:
            return None
        if isinstance(value, tuple):
            return tuple(built(part, spec) for spec in value)
        return PARTS[part][value.name](**{**extra, **value.kwargs})
