"""What an objective is: an inner attack and an outer loss, and the passes between them."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.inputs import InputError, as_batch
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn
from jaxrobust.verdicts import misclassified

AttackStatistics = Literal["running", "batch", "update"]
Statistics = Literal["running", "batch"]  # of objectives whose attack leaves them alone


class Batch(NamedTuple):
    """A training batch.

    Attributes:
      images: `[b, h, w, c]` floating point in [0, 1].
      labels: class indices `[b]`, or probabilities `[b, k]`.
    """

    images: Array
    labels: Array


class Views(NamedTuple):
    """What the inner attack found.

    Attributes:
      images: adversarial images `[b, h, w, c]` by view name; constants.
      extras: per-example arrays `[b, ...]` that the outer loss wants (GAIRAT's kappa).
      log_weights: `[b]`, logarithms of the examples' weights in the outer loss, or `None` for
        equal ones. The train step normalises them to mean 1 over the batch of all devices.
      batch_stats: running statistics after the attack, where the attack updates them.
    """

    images: dict[str, Array]
    extras: dict[str, Array]
    log_weights: Array | None = None
    batch_stats: Any = None


class Pass(NamedTuple):
    """One forward pass of the outer loss, in training mode.

    Attributes:
      name: under which the outer loss finds the logits.
      view: which images: "clean", or a view of the inner attack.
    """

    name: str
    view: str


class Bound(NamedTuple):
    """Certified margins for the outer loss, over boxes that the inner attack names.

    The network is bounded in evaluation mode, with the running statistics as the outer passes left
    them; they are constants to it.

    Attributes:
      name: under which the outer loss finds the margins `[b, k]`, beside the logits.
      method: of `bounds.margins`.
      lower: the view with the least pixel values.
      upper: the view with the largest.
    """

    name: str = "margins"
    method: Literal["ibp", "crown-ibp", "crown"] = "ibp"
    lower: str = "lower"
    upper: str = "upper"


class Stateful(NamedTuple):
    """A network whose running statistics move with every forward pass of the attack.

    Attributes:
      apply: `(images, batch_stats) -> (logits, batch_stats)`.
      batch_stats: before the attack.
    """

    apply: Callable[[Array, Any], tuple[Array, Any]]
    batch_stats: Any


class Objective(Protocol):
    """A min-max recipe.

    An objective is a small pytree: its array leaves (beta, step size) are traced, so sweeping
    them never recompiles; its static fields (number of steps) are structure. The train step,
    and only it, knows BatchNorm modes, devices and precision.

    Attributes:
      attack_statistics: what BatchNorm uses inside the attack: "running" statistics, or the
        statistics of the attacked "batch" itself: the running ones are then left alone, or, with
        "update", moved by every attack step. With "update" the logits function that `inner` gets
        is a `Stateful`.
      passes: the outer forward passes in order. Each updates the running statistics once.

    An objective may also have an attribute `bound`, a `Bound`: the outer loss then gets certified
    margins beside the logits.
    """

    @property
    def attack_statistics(self) -> AttackStatistics: ...

    @property
    def passes(self) -> tuple[Pass, ...]: ...

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """Finds the adversarial views of a batch; `key` is one key or one per example."""

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """The loss `[b]` to minimise and per-example metrics `[b]`, from logits by pass."""


class Sizes(NamedTuple):
    """What is known before the first step of a run.

    Attributes:
      num_classes: `k`.
      image_shape: `(h, w, c)`.
      examples: number of training examples, generated ones included.
      threat: of the run; its structure is what matters.
    """

    num_classes: int
    image_shape: tuple[int, ...]
    examples: int
    threat: Any = None


class Clock(NamedTuple):
    """Where in the run a step is.

    Attributes:
      step: `[]` int32, steps taken before this one.
      steps_per_epoch: static.
    """

    step: Array
    steps_per_epoch: int

    @property
    def epoch(self) -> Array:
        """`[]` int32, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def in_epoch(self) -> Array:
        """`[]` int32, the number of the step in its epoch, from 0."""
        return self.step % self.steps_per_epoch

    @property
    def ends_epoch(self) -> Array:
        """`[]` bool, whether this is the last step of its epoch."""
        return self.in_epoch == self.steps_per_epoch - 1


class Devices(NamedTuple):
    """The devices that share a batch, for quantities of the whole batch.

    Attributes:
      axis: the mapped axis, or `None` for one device.
    """

    axis: str | None = None

    def mean(self, value: Array) -> Array:
        """The mean over the devices of a mean over each one's examples."""
        return value if self.axis is None else jax.lax.pmean(value, self.axis)

    def sum(self, value: Array) -> Array:
        """The sum over the devices."""
        return value if self.axis is None else jax.lax.psum(value, self.axis)

    def gather(self, values: Array) -> Array:
        """`[b, ...]` of every device, one after the other; differentiable."""
        if self.axis is None:
            return values
        return jax.lax.all_gather(values, self.axis, tiled=True)


ObjectiveState = dict[str, Any]


class WithState(Objective, Protocol):
    """An objective that carries something from step to step, or looks at the whole batch.

    An objective with a method `init_state` is one. Its `inner(logits_fn, key, batch, threat,
    state)` and `outer(logits, batch, extras, state)` get its state as a last argument: a dict that
    holds what `init_state` named, and besides "key", a key that is the same on all devices,
    "devices", a `Devices`, and for each name in `networks` that network in evaluation mode. The
    state is a part of checkpoints and the same on every device. With microbatches "the whole
    batch" is one part of every device's, as for BatchNorm.

    All members but `init_state` are optional.

    Attributes:
      remembered: the names in the state that hold one row per training example, `[n, ...]`. `inner`
        gets the rows of its batch, and returns the new ones under the same names in
        `Views.extras`; `begin_step` gets and returns all rows, `outer` gets none.
      networks: further networks that it needs, of the experiment's "teacher" (trained with the
        network) and "helper" (frozen). A pass named "teacher" runs the teacher.
    """

    remembered: tuple[str, ...]
    networks: tuple[str, ...]

    def init_state(self, sizes: Sizes) -> ObjectiveState:
        """The state before the first step, arrays by name."""

    def begin_step(
        self, state: ObjectiveState, logits_fn: LogitsFn, key: Array, threat: Threat, clock: Clock
    ) -> ObjectiveState:
        """The state as the step uses it; `logits_fn` is the network in evaluation mode."""

    def penalty(
        self, network: Stateful, batch: Batch, views: Views, state: ObjectiveState
    ) -> tuple[Array, dict[str, Array], Any]:
        """A term `[b]` that needs the network itself, such as its input gradients.

        Added to the loss. Returns the term, metrics `[b]`, and the running statistics after it:
        it comes after the passes. `network` is in training mode, and the term is differentiated
        with respect to its parameters.
        """

    def observe(
        self,
        logits: dict[str, Array],
        batch: Batch,
        extras: dict[str, Array],
        state: ObjectiveState,
    ) -> ObjectiveState:
        """Sums over the batch's examples, which the step adds over devices and microbatches."""

    def end_step(self, state: ObjectiveState, sums: ObjectiveState, clock: Clock) -> ObjectiveState:
        """The state after the step."""


def devices_of(state: ObjectiveState | None) -> Devices:
    """The devices of a state; one where there is no state."""
    return Devices() if state is None else state.get("devices", Devices())


def batch_key(key: Array, state: ObjectiveState | None) -> Array:
    """One key for the whole batch: the state's, else the one of the first example."""
    if state is not None and "key" in state:
        return state["key"]
    return key if key.ndim == 0 else key[0]


def needed(state: ObjectiveState | None, *names: str) -> ObjectiveState:
    """The state, if it has the arrays that an objective needs.

    Raises:
      InputError: if it lacks one.
    """
    held = {} if state is None else state
    missing = [name for name in names if name not in held]
    if missing:
        raise InputError(
            f"state must hold {' and '.join(names)} for this objective, got "
            f"{', '.join(sorted(held)) or 'none'}"
        )
    return held


def correct(logits: Array, labels: Array) -> Array:
    """`[b]` float32: 1 where the top class is the label (the top label, if soft)."""
    return 1 - misclassified(logits, labels).astype(jnp.float32)


def hard_batch(name: str, batch: Batch, *, unlabelled: bool = False) -> Batch:
    """The batch, checked; probabilities for labels, as CutMix makes them, are refused.

    With `unlabelled` a label may be -1.

    Raises:
      InputError: if they are, or for images and labels that cannot be meant.
    """
    images, labels = as_batch(*batch, unlabelled=unlabelled)
    if labels.ndim != 1:
        raise InputError(
            f"labels must be integer class indices [b] for {name}, got soft labels of shape "
            f"{labels.shape}; leave out batch_augment (CutMix)"
        )
    return Batch(images, labels)
