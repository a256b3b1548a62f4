"""A mixed classifier as a network to train: two bases, which stay, and a mixing network."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
from jax import Array

from jaxrobust import mixing
from jaxrobust.models._layers import Dtype
from jaxrobust.models._mixing_network import Features, gamma_fn, mixing_network
from jaxrobust.networks import LogitsFunction, named_method

# Scale and bias of the mixing network's output while it is trained, and its whole range of alpha.
TRAINING = {"gamma_scale": 2.0, "gamma_bias": 0.4, "alpha_scale": 1.0, "alpha_bias": 0.0}
_CONSTANTS = ("std_scale", "rob_scale", *TRAINING)


class Fitting(nn.Module):
    """A mixing network for the channels of whatever features it is shown, named "mixing"."""

    planes: tuple[int, ...] | None
    names: tuple[str, ...]
    dtype: Dtype | None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, std: Features, rob: Features, *, train: bool = False) -> Array:
        """Features of both bases -> the normalised output `[b]`."""
        # Missing features raise in the mixing network.
        shown = [tuple(m[n].shape[-1] if n in m else 0 for n in self.names) for m in (std, rob)]
        network = mixing_network(
            std_channels=shown[0],
            rob_channels=shown[1],
            planes=self.planes,
            names=self.names,
            dtype=self.dtype,
        )
        network = network.clone(parent=self, name="mixing", axis_name=self.axis_name)
        return network(std, rob, train=train)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MixedClassifier:
    """A network of any library's bases, whose weights are its constants. See `mixed_classifier`."""

    std: LogitsFunction
    rob: LogitsFunction
    fitting: Fitting = field(metadata={"static": True})
    std_scale: float = field(default=1.0, metadata={"static": True})
    rob_scale: float = field(default=1.0, metadata={"static": True})
    gamma_scale: float = field(default=2.0, metadata={"static": True})
    gamma_bias: float = field(default=0.4, metadata={"static": True})
    alpha_scale: float = field(default=1.0, metadata={"static": True})
    alpha_bias: float = field(default=0.0, metadata={"static": True})

    def init(self, key: Array, images: Array) -> tuple[Any, Any]:
        """First parameters and statistics of the mixing network."""
        features = [base.with_features(images)[1] for base in (self.std, self.rob)]
        variables = self.fitting.init(key, *features)
        return variables["params"], variables["batch_stats"]

    def apply(
        self,
        params: Any,
        state: Any,
        images: Array,
        *,
        train: bool,
        key: Array | None = None,
        axis_name: str | None = None,
        method: str | None = None,
    ) -> tuple[Any, Any]:
        """Log-probabilities `[b, k]`, with the constants of evaluation.

        The method "outputs" returns `mixing.MixedOutputs`, with the constants of training.
        """
        if method not in (None, "outputs"):
            named_method(self, method)
        constants = self._constants() | ({} if method is None else TRAINING)
        scale, bias = constants.pop("gamma_scale"), constants.pop("gamma_bias")
        fitting = self.fitting.clone(axis_name=axis_name if train else None)
        after = {"batch_stats": state}

        def gamma(std: Features, rob: Features) -> Array:
            variables = {"params": params, "batch_stats": state}
            mutable = ["batch_stats"] if train else []
            raw, changed = fitting.apply(variables, std, rob, train=train, mutable=mutable)
            after.update(changed)
            return scale * raw + bias

        outputs = mixing.mixed(self.std, self.rob, gamma=gamma, **constants).outputs(images)
        return (outputs.log_probs if method is None else outputs), after["batch_stats"]

    def deployed(self, params: Any, state: Any, **options: Any) -> mixing.Mixed:
        """The trained classifier by its parts, to deploy with other constants.

        Args:
          params: of this network.
          state: of this network.
          **options: `gamma_scale`, `gamma_bias`, `std_scale`, `rob_scale`, `alpha_scale`,
            `alpha_bias`; default: this network's own.

        Returns:
          What `mixing.mixed` returns.
        """
        constants = self._constants() | options
        scale, bias = constants.pop("gamma_scale"), constants.pop("gamma_bias")
        variables = {"params": params, "batch_stats": state}
        gamma = gamma_fn(self.fitting, variables, scale=scale, bias=bias)
        return mixing.mixed(self.std, self.rob, gamma=gamma, **constants)

    def _constants(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _CONSTANTS}


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

    The bases may be networks of any library. Their weights are constants of the network, which
    training never changes and checkpoints do not hold; they run in evaluation mode throughout.
    `objectives.adaptive_smoothing` trains the mixing network with gamma of scale 2 and bias 0.4 and
    alpha anywhere in (0, 1), as published; those set here are for evaluations.

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
      A `networks.Network`: images `[b, h, w, c]` in [0, 1] -> log-probabilities
      `[b, num_classes]`. Its method "outputs" returns `mixing.MixedOutputs`,
      `deployed(params, state, **constants)` the same classifier as `mixing.mixed` makes it.

    Raises:
      ValueError: if a base is no network with weights.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> base, images = models.digits_cnn(width=4), jnp.zeros((2, 8, 8, 1))
      >>> std = rob = models.logits_fn(base, base.init(jax.random.key(0), images))
      >>> model = models.mixed_classifier(std=std, rob=rob, planes=(4, 4, 4))
      >>> params, state = model.init(jax.random.key(0), images)
      >>> list(params), model.apply(params, state, images, train=False)[0].shape
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
        std,
        rob,
        fitting,
        std_scale=std_scale,
        rob_scale=rob_scale,
        gamma_scale=gamma_scale,
        gamma_bias=gamma_bias,
        alpha_scale=alpha_scale,
        alpha_bias=alpha_bias,
    )
