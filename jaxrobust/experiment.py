"""Experiments are data: one frozen dataclass that round-trips through JSON."""

import importlib.util
import inspect
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_type_hints

import flax.linen as nn
import optax
import pydantic

from jaxrobust import augment, data, models, objectives, schedules, threats
from jaxrobust.spec import Number, Spec, checked, choices, first_problem, use

FORBID_EXTRA = pydantic.ConfigDict(extra="forbid")


def _returns(accept: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether an export is a function whose annotated return type is accepted."""
    return lambda value: inspect.isfunction(value) and accept(get_type_hints(value).get("return"))


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda returned: isinstance(returned, type) and issubclass(returned, kind)


def _is_threat(returned: Any) -> bool:
    return is_dataclass(returned) and hasattr(returned, "ascend")


# Which exports may stand in which field.
PARTS: dict[str, dict[str, Callable]] = {
    "data": choices(data, _returns(_is(data.Dataset))),
    "model": choices(models, _returns(_is(nn.Module))),
    "objective": choices(objectives, lambda value: is_dataclass(value) and hasattr(value, "outer")),
    "threat": choices(threats, _returns(_is_threat)),
    "optimizer": {name: getattr(optax, name) for name in ("adam", "adamw", "lion", "sgd")},
    "learning_rate": choices(schedules, _returns(lambda kind: kind == schedules.Schedule)),
    "augment": choices(augment, _returns(lambda kind: kind == augment.Augmentation)),
}


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


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The attacks of `jaxrobust evaluate` (AutoAttack has its own command-line options).

    Attributes:
      steps: steps of PGD on cross-entropy and on the margin.
      step_size: in the threat's units; default 2.5 eps / steps.
      restarts: random starts of each attack.
      batch_size: examples per forward pass.
    """

    __pydantic_config__ = FORBID_EXTRA

    steps: int = 20
    step_size: Number | None = None
    restarts: int = 1
    batch_size: int = 256


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that determines a training run, and what the paper reports for it.

    Attributes:
      name: names the run's folder and its results.
      data: a data set of `jaxrobust.data`.
      model: a network of `jaxrobust.models`; `num_classes` comes from the data.
      objective: a recipe of `jaxrobust.objectives`.
      threat: the set of `jaxrobust.threats` that training and evaluation attack in.
      optimizer: of Optax, without its learning rate.
      learning_rate: a schedule of `jaxrobust.schedules`.
      weight_decay: added to the gradient as `weight_decay * parameter` (PyTorch's SGD).
      epochs: passes over the training data.
      batch_size: examples per step over all devices.
      augment: augmentations of `jaxrobust.augment`, in order.
      ema_decay: decay of the parameter average that is evaluated; 0 for none.
      batch_norm: "global" statistics over all devices (the numbers of one device), or
        "per_device" (no communication).
      validation: how the best checkpoint is chosen.
      evaluation: the attacks that judge the run.
      seed: of initialisation, data order, augmentation and attacks.
      published: figures of the paper, for comparison.
    """

    __pydantic_config__ = FORBID_EXTRA

    name: str
    data: Spec
    model: Spec
    objective: Spec
    threat: Spec
    optimizer: Spec = field(default_factory=lambda: use("sgd", momentum=0.9))
    learning_rate: Spec = field(default_factory=lambda: use("cosine", peak=0.1))
    weight_decay: Number = 0.0
    epochs: int = 10
    batch_size: int = 128
    augment: tuple[Spec, ...] = ()
    ema_decay: Number = 0.0
    batch_norm: Literal["global", "per_device"] = "global"
    validation: Validation = field(default_factory=Validation)
    evaluation: Evaluation = field(default_factory=Evaluation)
    seed: int = 0
    published: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in PARTS:
            value = getattr(self, name)
            if isinstance(value, tuple):
                specs: Any = tuple(
                    checked(spec, PARTS[name], f"{name}[{i}]") for i, spec in enumerate(value)
                )
            else:
                specs = checked(value, PARTS[name], name)
            object.__setattr__(self, name, specs)
        for name, least in (("epochs", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")

    def build(self, part: str, **extra: Any) -> Any:
        """The object that a part's `Spec` stands for.

        Args:
          part: a field that holds a `Spec` or a tuple of them.
          **extra: further keyword arguments, such as the optimizer's learning rate.
        """
        value = getattr(self, part)
        if isinstance(value, tuple):
            return tuple(PARTS[part][spec.name](**spec.kwargs) for spec in value)
        return PARTS[part][value.name](**{**extra, **value.kwargs})


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """Several experiments on one data set, network and budget, drawn in one figure.

    Attributes:
      name: names the folder and the figure.
      members: the experiments; their names label the points and must differ.
    """

    __pydantic_config__ = FORBID_EXTRA

    name: str
    members: tuple[Experiment, ...]

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            raise ValueError(
                f"members of {self.name} must have different names, at least one; got {names}"
            )


def to_dict(config: Any) -> dict[str, Any]:
    """The experiment as plain JSON types."""
    return pydantic.TypeAdapter(type(config)).dump_python(config, mode="json")


def from_dict(values: Mapping[str, Any], kind: type = Experiment) -> Any:
    """The experiment that `to_dict` wrote.

    Raises:
      ValueError: in one line, naming the field and the valid choices.
    """
    try:
        return pydantic.TypeAdapter(kind).validate_python(dict(values))
    except pydantic.ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        prefix = f"{where}: " if where else ""
        raise ValueError(prefix + first_problem(error)) from None


def override(experiment: Experiment, assignments: Sequence[str]) -> Experiment:
    """The experiment with `path=value` assignments applied.

    `epochs=3`, `validation.size=100`, `objective.beta=3` (an argument of the part),
    `objective=pgd_at` (another part, with its defaults). Values are read as the field's type;
    fractions such as `8/255` and JSON are understood.

    Args:
      experiment: the experiment to start from.
      assignments: `path=value` strings, applied in order.

    Returns:
      A new, validated experiment.

    Raises:
      ValueError: in one line, for a path that does not exist or a value that does not fit; the
        valid choices are named.

    Example:
      >>> from jaxrobust.experiment import Experiment, override
      >>> from jaxrobust.spec import use
      >>> experiment = Experiment(name="x", data=use("digits"), model=use("mlp"),
      ...     objective=use("trades"), threat=use("linf", eps=0.1))
      >>> override(experiment, ["threat.eps=8/255", "epochs=3"]).threat.kwargs
      {'eps': 0.03137254901960784}
    """
    for assignment in assignments:
        path, sign, text = assignment.partition("=")
        if not sign or not path:
            raise ValueError(f"--set {assignment!r}: write path=value, such as epochs=3")
        values = to_dict(experiment)
        _assign(values, experiment, path.strip().split("."), _parsed(text), path.strip())
        experiment = from_dict(values)
    return experiment


def _assign(values: dict, owner: Any, path: list[str], value: Any, whole: str) -> None:
    head, *rest = path
    names = [f.name for f in fields(owner)]
    if isinstance(owner, Spec):
        if rest:
            raise ValueError(f"--set {whole}: {head!r} of {owner.name} has no parts")
        values["kwargs"][head] = value
        return
    if head not in names:
        raise ValueError(f"--set {whole}: {head!r} is unknown; choose from {', '.join(names)}")
    current = getattr(owner, head)
    if not rest:
        is_part = isinstance(current, Spec) and isinstance(value, str)
        values[head] = {"name": value} if is_part else value
    elif is_dataclass(current):
        _assign(values[head], current, rest, value, whole)
    else:
        raise ValueError(f"--set {whole}: {head!r} has no parts to set")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text.strip()


def load(path: str | pathlib.Path) -> Experiment | Tradeoff:
    """The `config` of an experiment file.

    Args:
      path: a Python file that defines `config`, an `Experiment` or a `Tradeoff`.

    Raises:
      ValueError: if the file does not exist or defines no `config`.
    """
    path = pathlib.Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"{path} is not an experiment file: it must be an existing .py file")
    module_spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    config = getattr(module, "config", None)
    if not isinstance(config, Experiment | Tradeoff):
        raise ValueError(f"{path} must define `config`, an Experiment or a Tradeoff")
    return config


__all__ = [
    "PARTS",
    "Evaluation",
    "Experiment",
    "Tradeoff",
    "Validation",
    "from_dict",
    "load",
    "override",
    "replace",
    "to_dict",
    "use",
]
