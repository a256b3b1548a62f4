"""What the scaling law of adversarial training says of a budget, and how long that takes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrobust import scaling
from jaxrobust.bench._plan import Plan
from jaxrobust.bench._plan_chips import CHIPS
from jaxrobust.bench._plan_data import DataShape, data_shape
from jaxrobust.bench._plan_programs import steps_per_epoch
from jaxrobust.experiment import Experiment
from jaxrobust.inputs import InputError
from jaxrobust.training import build_model

WIDTHS = (2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32)
PROPORTIONS = (28 / 10, 82 / 8)  # depth over width of the published networks


class Published(NamedTuple):
    """A published result of the law's recipe, CIFAR-10, l_inf 8/255.

    Attributes:
      name: network and paper.
      params: of the network.
      images: seen in training, repetitions included; `None` where the sources do not tell.
      clean: accuracy in percent.
      autoattack: accuracy in percent.
    """

    name: str
    params: float
    images: float | None
    clean: float
    autoattack: float


PUBLISHED = (
    Published("WRN-28-10, 1M images of EDM (Wang 2023)", 36.5e6, 20e6, 91.12, 63.35),
    Published("WRN-28-10, 20M images of EDM (Wang 2023)", 36.5e6, None, 92.44, 67.31),
    Published("WRN-82-8 (Bartoldson 2024)", 79.1e6, 341e6, 93.11, 71.59),
    Published("WRN-70-16, 50M images of EDM (Wang 2023)", 266.8e6, None, 93.25, 70.69),
    Published("WRN-94-16 (Bartoldson 2024)", 365.9e6, 500e6, 93.68, 73.71),
)


class Training(NamedTuple):
    """The experiment as it stands.

    Attributes:
      params: of its network.
      images: that its whole training sees.
      flops: of the whole training, as the law counts.
      loss: that the law expects.
    """

    params: int
    images: int
    flops: float
    loss: float


class Duration(NamedTuple):
    """How long the best training takes at least.

    Attributes:
      topology: a slice, or one chip.
      chips: in it.
      flops_per_second: of all chips: their peak, or what the experiment's compiled step allows.
      hours: of the whole training.
      chip_hours: the same times the chips.
      compiled: whether the experiment's step was compiled for it.
    """

    topology: str
    chips: int
    flops_per_second: float
    hours: float
    chip_hours: float
    compiled: bool


class BudgetPlan(NamedTuple):
    """The best use of a budget by the scaling law.

    Attributes:
      experiment: its name.
      flops: the budget.
      fid: of the generated images.
      params: of the best network.
      images: that the best training sees.
      loss: the expected margin loss under attack.
      accuracy: that belongs to it under the authors' margin attack; AutoAttack is lower.
      networks: wide ResNets of about this size, with their parameters.
      own: the experiment as it stands.
      differences: where budget and experiment are not what the law was fitted to.
      durations: on each topology.
      published: the nearest results in size of network.
    """

    experiment: str
    flops: float
    fid: float
    params: float
    images: float
    loss: float
    accuracy: float
    networks: tuple[tuple[str, int], ...]
    own: Training
    differences: tuple[str, ...]
    durations: tuple[Duration, ...]
    published: tuple[Published, ...]


def plan_budget(
    experiment: Experiment,
    flops: float,
    *,
    fid: float = scaling.BASE_FID,
    plans: Sequence[Plan] = (),
    generated_size: int | None = None,
) -> BudgetPlan:
    """The compute-optimal network and number of images of a budget, and what they cost.

    Args:
      experiment: whose recipe is to be scaled; its network and length are compared with the best.
      flops: the budget in floating-point operations of the whole training, 7822 for each
        parameter and image.
      fid: Frechet inception distance of the generated images.
      plans: the experiment on slices (`plan`); durations are then those of its compiled step,
        otherwise those of one chip of each kind at its peak.
      generated_size: number of generated images; as in `plan`.

    Returns:
      `BudgetPlan`.

    Raises:
      ValueError: if a number is out of range, or the data must be read and cannot be.
    """
    best = scaling.compute_optimal(flops, fid=fid)
    params = float(best.params)
    shape = data_shape(experiment, generated_size=generated_size)
    return BudgetPlan(
        experiment=experiment.name,
        flops=float(flops),
        fid=float(fid),
        params=params,
        images=float(best.images),
        loss=float(best.loss),
        accuracy=float(best.accuracy),
        networks=_networks(params, shape.num_classes),
        own=_own(experiment, shape, fid),
        differences=(*_extrapolation(flops), *_differences(experiment)),
        durations=tuple(_durations(flops, plans)),
        published=_nearest(params),
    )


def budget_flops(chip_hours: float, found: Plan) -> float:
    """The floating-point operations that a slice does in a number of chip-hours, at most.

    Args:
      chip_hours: hours times chips.
      found: a plan of the slice, whose train step fits.

    Returns:
      The operations at the speed that the plan's train step allows.
    """
    return chip_hours * 3600 * _speed(found) / found.chips


def wide_resnet_parameters(depth: int, width: int, num_classes: int = 10) -> int:
    """The number of parameters of `models.wide_resnet` on images of three channels.

    Args:
      depth: 6 n + 4.
      width: factor of the channels 16, 32, 64.
      num_classes: of the last layer.

    Returns:
      Weights, biases, and the scales and offsets of the norms.
    """
    total, last = 9 * 3 * 16, 16
    for features in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            shortcut = last * features if last != features else 0
            total += 9 * (last + features) * features + 2 * (last + features) + shortcut
            last = features
    return total + 2 * last + (last + 1) * num_classes


def _networks(params: float, num_classes: int) -> tuple[tuple[str, int], ...]:
    """For each width the depth that comes nearest, within the published proportions."""
    found = []
    for width in WIDTHS:
        low, high = (round((proportion * width - 4) / 6) for proportion in PROPORTIONS)
        sizes = {
            depth: wide_resnet_parameters(depth, width, num_classes)
            for depth in (6 * blocks + 4 for blocks in range(max(low, 1), high + 1))
        }
        depth = min(sizes, key=lambda depth: abs(math.log(sizes[depth] / params)))
        if abs(math.log(sizes[depth] / params)) < 0.1:
            found.append((f"WRN-{depth}-{width}", sizes[depth]))
    return tuple(found)


def _own(experiment: Experiment, shape: DataShape, fid: float) -> Training:
    network = build_model(experiment, shape.num_classes)
    images = jax.ShapeDtypeStruct((1, *shape.image_shape), jnp.float32)
    leaves = jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0), images)[0])
    params = sum(math.prod(leaf.shape) for leaf in leaves)
    steps = experiment.epochs * steps_per_epoch(experiment, shape)
    seen = steps * experiment.batch_size
    flops = float(scaling.FLOPS_PER_PARAMETER_AND_IMAGE * params * seen)
    return Training(params, seen, flops, float(scaling.predicted_loss(params, seen, fid=fid)))


def _extrapolation(flops: float) -> tuple[str, ...]:
    per_pair = scaling.FLOPS_PER_PARAMETER_AND_IMAGE
    runs = [per_pair * row.params * row.images for row in PUBLISHED if row.images is not None]
    if min(runs) <= flops <= max(runs):
        return ()
    return (f"the published runs took {min(runs):.2g} to {max(runs):.2g} FLOP",)


def _differences(experiment: Experiment) -> tuple[str, ...]:
    objective, threat = experiment.objective, experiment.threat
    eps = threat.kwargs.get("eps")
    fitted = {
        f"its data is {experiment.data.target}, not cifar10": experiment.data.target == "cifar10",
        "it has no generated images": experiment.generated is not None,
        f"its objective is {objective.target}, not trades": objective.target == "trades",
        "its attack has not ten steps": objective.kwargs.get("steps", 10) == 10,
        f"its threat is {threat.target}, not linf": threat.target == "linf",
        "its radius is not 8/255": isinstance(eps, int | float)
        and math.isclose(eps, 8 / 255, rel_tol=0.02),
        f"its network is {experiment.model.target}, not wide_resnet": experiment.model.target
        == "wide_resnet",
    }
    return tuple(sentence for sentence, holds in fitted.items() if not holds)


def _durations(flops: float, plans: Sequence[Plan]) -> list[Duration]:
    if not plans:
        return [
            _duration(f"{name}, one chip", 1, chip.flops, flops, compiled=False)
            for name, chip in CHIPS.items()
        ]
    return [_duration(p.topology, p.chips, _speed(p), flops, compiled=True) for p in plans]


def _duration(topology: str, chips: int, speed: float, flops: float, *, compiled: bool) -> Duration:
    hours = flops / speed / 3600
    return Duration(topology, chips, speed, hours, hours * chips, compiled)


def _speed(found: Plan) -> float:
    """Operations per second of all chips in the train step, at its bound."""
    step = found.programs[0]
    if not step.fits:
        raise InputError(
            f"topology {found.topology}: the train step does not fit ({step.problem}); choose a "
            f"larger slice, or a smaller batch_size than {step.batch_size}"
        )
    return found.chips * step.flops / step.bound_seconds


def _nearest(params: float, count: int = 3) -> tuple[Published, ...]:
    def distance(row: Published) -> float:
        return abs(math.log(row.params / params))

    return tuple(sorted(sorted(PUBLISHED, key=distance)[:count], key=lambda row: row.params))
