"""A mixed classifier as a network to train: frozen bases and a mixing network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
from jax import Array

from jaxrobust import mixing
from jaxrobust.models._layers import Dtype
from jaxrobust.models._logits import LogitsFunction, logits_fn
from jaxrobust.models._mixing_network import Features, MixingNetwork, gamma_fn, mixing_network

BASES = ("std", "rob")
# Scale and bias of the mixing network's output while it is trained, and its whole range of alpha.
TRAINING = {"gamma_scale": 2.0, "gamma_bias": 0.4, "alpha_scale": 1.0, "alpha_bias": 0.0}
_CONSTANTS = (
    "std_scale",
    "rob_scale",
    "gamma_scale",
    "gamma_bias",
    "alpha_scale",
    "alpha_bias",
)


class Frozen:
    """Two bases with their weights; equal to any other pair of the same networks.

    The weights play no part in the comparison because they play none in the computation: they
    reach the network in its variables, and what is here only starts these.
    """

    def __init__(self, std: LogitsFunction, rob: LogitsFunction) -> None:
        self.models = {"std": std.model, "rob": rob.model}
        self.variables = {"std": std.variables, "rob": rob.variables}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and self.models == other.models

    def __hash__(self) -> int:
        return hash(tuple(self.models.values()))


@dataclass(frozen=True)
class Fitting:
    """A mixing network for the channels of whatever features it is shown."""

    planes: tuple[int, ...] | None
    names: tuple[str, ...]
    dtype: Dtype | None

    def network(self, std: Features, rob: Features) -> MixingNetwork:
        """The network for some features; what is not there is its own mistake to tell."""
        shown = [tuple(m[n].shape[-1] if n in m else 0 for n in self.names) for m in (std, rob)]
        return mixing_network(
            std_channels=shown[0],
            rob_channels=shown[1],
            planes=self.planes,
            names=self.names,
            dtype=self.dtype,
        )

    def apply(self, variables: Any, std: Features, rob: Features, *, train: bool = False) -> Array:
        """As a Flax module's."""
        return self.network(std, rob).apply(variables, std, rob, train=train)  # type: ignore


class MixedClassifier(nn.Module):
    """See `mixed_classifier`."""

    bases: Frozen
    fitting: Fitting
    std_scale: float = 1.0
    rob_scale: float = 1.0
    gamma_scale: float = 2.0
    gamma_bias: float = 0.4
    alpha_scale: float = 1.0
    alpha_bias: float = 0.0
    axis_name: str | None = None

    @property
    def frozen(self) -> dict[str, Any]:
        """The variables that no training changes, the collection "frozen"."""
        return self.bases.variables

    def __call__(self, images: Array, *, train: bool = False) -> Array:
        """Images -> log-probabilities `[b, k]`, with the constants of evaluation."""
        return self._outputs(images, train, **{n: getattr(self, n) for n in TRAINING}).log_probs

    def outputs(self, images: Array, *, train: bool = False) -> mixing.MixedOutputs:
        """Log-probabilities and what they were made of, with the constants of training."""
        return self._outputs(images, train, **TRAINING)

    @nn.compact
    def _outputs(
        self,
        images: Array,
        train: bool,
        gamma_scale: float,
        gamma_bias: float,
        alpha_scale: float,
        alpha_bias: float,
    ) -> mixing.MixedOutputs:
        bases = []
        for name in BASES:
            start = self.bases.variables[name]
            weights = self.variable("frozen", name, lambda start=start: start)
            bases.append(logits_fn(self.bases.models[name], weights.value))

        def gamma(std: Features, rob: Features) -> Array:
            network = self.fitting.network(std, rob).clone(
                parent=self, name="mixing", axis_name=self.axis_name
            )
            return gamma_scale * network(std, rob, train=train) + gamma_bias

        return mixing.mixed(
            *bases,
            gamma=gamma,
            std_scale=self.std_scale,
            rob_scale=self.rob_scale,
            alpha_scale=alpha_scale,
            alpha_bias=alpha_bias,
        ).outputs(images)

    def deployed(self, variables: Any, **options: Any) -> mixing.Mixed:
        """The trained classifier by its parts, to deploy with other constants.

        Args:
          variables: of this network.
          **options: `gamma_scale`, `gamma_bias`, `std_scale`, `rob_scale`, `alpha_scale`,
            `alpha_bias`; default: this network's own.

        Returns:
          What `mixing.mixed` returns.
        """
        constants = {name: getattr(self, name) for name in _CONSTANTS} | options
        network = {name: variables[name]["mixing"] for name in ("params", "batch_stats")}
        scale, bias = (constants.pop(name) for name in ("gamma_scale", "gamma_bias"))
        gamma = gamma_fn(self.fitting, network, scale=scale, bias=bias)  # type: ignore[arg-type]
        bases = (logits_fn(self.bases.models[b], variables["frozen"][b]) for b in BASES)
        return mixing.mixed(*bases, gamma=gamma, **constants)


def mixed_classifier(
    *,
    std: Any,
    rob: Any,
    num_classes: int = 10,
    planes: Sequence[int] | None = None,
    names: Sequence[str] = ("stage1", "stage2"),
    std_scale: float = 1.0,
    rob_scale: float = 1.0,
    gamma_scale: float = 2.0,
    gamma_bias: float = 0.4,
    alpha_scale: float = 1.0,
    alpha_bias: float = 0.0,
    dtype: Dtype | None = None,
) -> MixedClassifier:
    """Two trained networks and a mixing network between them, whose parameters are all there are.

    The bases' variables are a collection of their own, "frozen", which training carries along and
    never changes; the bases run in evaluation mode throughout. `objectives.adaptive_smoothing`
    trains the mixing network with gamma of scale 2 and bias 0.4 and alpha anywhere in (0, 1), as
    published; those set here are for evaluations.

    Args:
      std: the accurate base with its weights, as `models.logits_fn` makes it. In an experiment
        file: a run's folder, or `{"weights": FILE, "network": NAME}` and the network's arguments.
      rob: the robust base, likewise.
      num_classes: of both bases.
      planes: channels of the mixing network's stages, see `mixing_network`.
      names: feature maps of the bases that it reads.
      std_scale: factor on the accurate base's logits.
      rob_scale: factor on the robust base's logits.
      gamma_scale: factor on the mixing network's output in evaluation.
      gamma_bias: added to it.
      alpha_scale: width of the range of the robust base's weight in evaluation.
      alpha_bias: its lower end.
      dtype: "bfloat16" or "float32" for the mixing network, None for the features' type.

    Returns:
      A Flax module; images `[b, h, w, c]` in [0, 1] -> log-probabilities `[b, num_classes]`. Its
      method `outputs` returns `mixing.MixedOutputs`, `deployed(variables, **constants)` the same
      classifier as `mixing.mixed` makes it.

    Raises:
      ValueError: if a base is no network with weights.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> base, images = models.digits_cnn(width=4), jnp.zeros((2, 8, 8, 1))
      >>> std = rob = models.logits_fn(base, base.init(jax.random.key(0), images))
      >>> model = models.mixed_classifier(std=std, rob=rob, planes=(4, 4, 4))
      >>> variables = model.init(jax.random.key(0), images)
      >>> list(variables["params"]), model.apply(variables, images).shape
      (['mixing'], (2, 10))

    References:
      Bai et al., 2023 (arXiv:2301.12554), Section 5.
    """
    for name, base in (("std", std), ("rob", rob)):
        if not isinstance(base, LogitsFunction):
            raise ValueError(
                f"{name} must be a network with its weights, models.logits_fn(model, variables), "
                f"got {base!r}; names of runs and files are for experiment files"
            )
    fitting = Fitting(None if planes is None else tuple(planes), tuple(names), dtype)
    return MixedClassifier(
        Frozen(std, rob),
        fitting,
        std_scale=std_scale,
        rob_scale=rob_scale,
        gamma_scale=gamma_scale,
        gamma_bias=gamma_bias,
        alpha_scale=alpha_scale,
        alpha_bias=alpha_bias,
    )
