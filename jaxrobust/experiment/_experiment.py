"""Experiments are data: one frozen dataclass that round-trips through JSON."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from typing import Any, Literal

import jax
import optax
import pydantic

from jaxrobust.experiment._parts import PARTS, per_step
from jaxrobust.experiment._sweep import check_sweep
from jaxrobust.experiment._traced import check_tree, traced
from jaxrobust.inputs import InputError, as_count, as_number, as_seed
from jaxrobust.spec import (
    Number,
    Spec,
    built,
    called,
    checked,
    not_nan,
    packages_of,
    receives,
    resolved,
    signature_of,
    use,
)

OPTIONAL = ("generated", "transform", "teacher")  # parts that may be None
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
      teacher: a second network, trained with the first, or `None`: for objectives that need one.
      helper: a frozen network with its weights, or `None`: for objectives that need one. A run's
        folder, or a mapping with "weights" and "network" as in `init_from`.
      init_from: the weights to start from, of the same network, or `None`: a run's folder (its best
        checkpoint), a file of weights in PyTorch's format, or a mapping with "weights", such a
        file, "network", a network or published entry, and its arguments. The optimizer starts anew.
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
      ema_copied_steps: number of first steps during which the average is a copy of the parameters,
        without a warm-up (1 in the FastAT benchmark).
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
      published: the paper's numbers, for comparison.
      sweep: a knob and its values, such as `{"objective.beta": (1, 3, 6)}`: the experiment then
        stands for a line of runs, one for each value, in a trade-off. The path is a number of
        "objective.NAME" or of training's "threat.NAME" or "transform.NAME", an argument of a
        schedule ("schedules.threat.eps.end"), or, with `epochs=0`, a number of "model.NAME".
    """

    __pydantic_config__ = FORBID_EXTRA

    name: str
    data: Spec
    generated: Spec | None = None
    model: Spec
    teacher: Spec | None = None
    helper: str | dict[str, Any] | None = None
    init_from: str | dict[str, Any] | None = None
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
    ema_copied_steps: int = 0
    ema_batch_stats: Literal["live", "average"] = "live"
    awp: Number = 0.0
    batch_norm: Literal["global", "per_device"] = "global"
    validation: Validation = field(default_factory=Validation)
    evaluation: Evaluation = field(default_factory=Evaluation)
    evaluators: tuple[Spec, ...] = ()
    seed: int = 0
    published: dict[str, Any] = field(default_factory=dict)
    sweep: dict[str, tuple[Number, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        as_folder_name(self.name, name="name")
        for name in PARTS:
            value = getattr(self, name)
            if isinstance(value, tuple | list):
                specs: Any = tuple(
                    checked(spec, PARTS[name], f"{name}[{i}]") for i, spec in enumerate(value)
                )
            elif value is not None or name not in OPTIONAL:
                specs = checked(value, PARTS[name], name)
            else:
                continue
            object.__setattr__(self, name, specs)
        for name in ("learning_rate", "augment", "batch_augment", "evaluators"):
            self._made(name)
        traced(lambda: self.build("optimizer", learning_rate=lambda step: 0.1), "optimizer")
        object.__setattr__(self, "schedules", self._checked_schedules())
        self._check_numbers()
        self._check_weights("init_from", "a run's folder, a file of weights")
        self._check_weights("helper", "a run's folder")
        self._check_networks()
        self._check_effects()
        check_sweep(self)

    def _made(self, part: str) -> Any:
        """A part that needs nothing else, made without any array: for checks only."""
        return traced(lambda: self.build(part), part)

    def _check_numbers(self) -> None:
        as_count(self.epochs, name="epochs", least=0)
        as_count(self.ema_copied_steps, name="ema_copied_steps", least=0)
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
        for name in ("ema_decay",) if self.ema_warmup is None else ("ema_decay", "ema_warmup"):
            if not 0 <= as_number(getattr(self, name), name=name) < 1:
                raise InputError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name, value in self.learning_rate.kwargs.items():
            for rate in jax.tree.leaves(value):
                if isinstance(rate, int | float) and ":" not in self.learning_rate.target:
                    as_number(rate, name=f"learning_rate.{name}", low=0)
        for name in ("momentum", "b1", "b2") if ":" not in self.optimizer.target else ():
            if self.optimizer.kwargs.get(name) is not None:
                as_number(self.optimizer.kwargs[name], name=f"optimizer.{name}", low=0, high=1)
        try:
            not_nan(self.published)
        except ValueError as error:
            raise InputError(f"published: {error}") from None

    def _check_weights(self, name: str, kinds: str) -> None:
        """Refuses what names no weights."""
        source = getattr(self, name)
        is_mapping = isinstance(source, dict) and {"weights", "network"} <= source.keys()
        if not (source is None or is_mapping or (isinstance(source, str) and source)):
            raise InputError(
                f"{name} must be {kinds}, or a mapping with 'weights' and 'network', got {source!r}"
            )

    def _check_networks(self) -> None:
        """Refuses networks that the objective has no use for, and one that it lacks."""
        wanted = getattr(self._made("objective"), "networks", ())
        for name in ("teacher", "helper"):
            given = getattr(self, name)
            if (given is None) == (name in wanted):
                why = "needs one" if name in wanted else "has no use for it"
                raise InputError(
                    f"{name} must be {'given' if name in wanted else 'None'}: the objective "
                    f"{self.objective.target} {why}; got {given!r}"
                )

    def _check_effects(self) -> None:
        """Refuses settings that would change nothing."""
        if not receives(self.optimizer, PARTS["optimizer"], "learning_rate"):
            raise InputError(
                f"optimizer: {self.optimizer.target} takes no learning_rate from the experiment, "
                "whose schedule would have no effect; leave learning_rate to it, or add "
                'use("scale_by_learning_rate") to a chain'
            )
        defaults = {"ema_warmup": None, "ema_copied_steps": 0, "ema_batch_stats": "live"}
        for name, default in defaults.items():
            if getattr(self, name) != default and not self.ema_decay:
                raise InputError(
                    f"{name} needs an average of the parameters: set ema_decay, or leave {name} at "
                    f"{default}, got {getattr(self, name)!r}"
                )
        if self.ema_copied_steps and self.ema_warmup is not None:
            raise InputError(
                "ema_copied_steps must be 0 with ema_warmup, which says how long the average is a "
                f"copy; got {self.ema_copied_steps}"
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
            traced(partial(self._value, found[path], where), where)
        traced(partial(self._value, self.learning_rate, "learning_rate"), "learning_rate")
        return found

    def changing(self) -> list[str]:
        """The paths of the values that `schedules` may change."""
        paths = ["awp"]
        if "momentum" in signature_of(self.part("optimizer")).parameters:
            paths.append("optimizer.momentum")
        for head in ("objective", "threat", "transform"):
            part = self._made(head)
            check_tree(part, head)
            for each in fields(part) if is_dataclass(part) else ():
                value = getattr(part, each.name)
                number = value is None or jax.tree_util.all_leaves([value])
                if number and not each.metadata.get("static"):
                    paths.append(f"{head}.{each.name}")
        return paths

    def packages(self) -> tuple[str, ...]:
        """The packages that parts come from by their import paths, sorted."""
        return packages_of([*(getattr(self, name) for name in PARTS), self.schedules])

    def part(self, name: str) -> Callable:
        """The callable that a part's `Spec` names."""
        return resolved(getattr(self, name).target, PARTS[name].names, name)

    def call(self, name: str, **supplied: Any) -> tuple[Callable, tuple[Any, ...], dict[str, Any]]:
        """What a part calls: for parts that are not made by calling it alone.

        Args:
          name: a field that holds a `Spec`.
          **supplied: arguments for every call that has them and does not set them.

        Returns:
          The callable, its arguments and its keyword arguments.
        """
        return called(getattr(self, name), PARTS[name], name, **supplied)

    def schedule(self, path: str, steps_per_epoch: int) -> optax.Schedule:
        """The scheduled value at `path` ("learning_rate", or one of `schedules`), by the step."""
        spec = self.learning_rate if path == "learning_rate" else self.schedules[path]
        made = built(spec, PARTS["learning_rate"], path)
        return per_step(made, steps_per_epoch, self.epochs)

    def _value(self, spec: Spec, where: str) -> Any:
        """A schedule's first value, which must be one number."""
        made = built(spec, PARTS["learning_rate"], where)
        value = per_step(made, 1, self.epochs)(0)
        if jax.numpy.shape(value) != ():
            raise ValueError(f"{spec.target} must give one number, got {value!r}")
        return value

    def build(self, part: str, **supplied: Any) -> Any:
        """The object that a part's `Spec` stands for.

        Args:
          part: a field that holds a `Spec` or a tuple of them.
          **supplied: arguments for every call that has them and does not set them, such as the
            optimizer's learning rate.

        Returns:
          What the part's function returns; a tuple for a tuple, `None` for a part left out.
        """
        value = getattr(self, part)
        if value is None:
            return None
        if isinstance(value, tuple):
            return tuple(
                built(spec, PARTS[part], f"{part}[{i}]", **supplied) for i, spec in enumerate(value)
            )
        return built(value, PARTS[part], part, **supplied)
