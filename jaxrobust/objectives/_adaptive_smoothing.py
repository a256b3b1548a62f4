"""Training of Adaptive Smoothing's mixing network."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks import apgd, pgd
from jaxrobust.inputs import InputError, as_batch
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.losses import loss_of_run
from jaxrobust.mixing import Evading, MixedOutputs, mixing_loss
from jaxrobust.objectives._objective import Batch, Pass, Views, correct
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.threats import Threat, described, norm_of
from jaxrobust.typing import NORMS, LogitsFn

Attack = Literal["apgd", "pgd"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AdaptiveSmoothing:
    r"""The mixing network learns to detect attacked images, where that decides the class most.

    .. math:: s (c_1 \mathrm{BCE} + c_2 \mathrm{CE} + c_3 \mathrm{BCE} \cdot \mathrm{CE})

    Of a batch of `b` images the first `b / copies` are attacked `copies` times each: once on
    cross-entropy, then on the targeted DLR, the likeliest wrong classes first. All `b` clean and
    all `b` attacked images go through the network together, so that its output is normalised over
    both. (The authors shuffle them, cut them in 20 parts and step after every four; a step here is
    one batch, `microbatches` cuts it before the attack.)

    The attackers know the network: each maximises `(1 - w)` times its loss plus `w` times
    `BCE(gamma, 1)`, in the whole range of alpha. What an example suffers is drawn: w from
    U(0, `weight`), the radius from U(0.4, 1.1) eps, and for each run the number of iterations,
    from a chi-squared distribution. PGD also draws its momentum's decay from U(0, 0.9) and steps
    5 eps / iterations far.

    Needs the network `mixed_classifier`, and a threat in l_inf, l_2 or l_1.

    Cost: `2 * (steps + round(4 * (2 * steps) ** 0.5)) + 8 + 1 / copies` forward
    units per image with APGD, whose loop has the length of the longest draw; of a mixed
    classifier whose parts are all trained, fewer with frozen bases. PGD's loops end with the draw:
    about `2 * steps + 6`.

    Args:
      bce: weight of the detector's cross-entropy. May be traced, as the next four.
      ce: weight of the classification's cross-entropy.
      product: weight of their product.
      clean_scale: weight of a clean example against an attacked one.
      weight: largest w.
      copies: attacks of an attacked image; divides the batch of a device. Static.
      steps: mean number of iterations. Static.
      attack: "apgd" or "pgd". Static.

    Raises:
      ValueError: for an unknown attack.

    Example:
      >>> from jaxrobust import mixing, objectives
      >>> weights = mixing.ADAPTIVE_SMOOTHING["cifar10-edm"].loss._asdict()
      >>> objectives.adaptive_smoothing(**weights).passes
      (Pass(name='both', view='both'),)

    References:
      Bai et al., 2023 (arXiv:2301.12554), Section 5; the authors' training script.
    """

    bce: ArrayLike = 1.5
    ce: ArrayLike = 0.0
    product: ArrayLike = 0.3
    clean_scale: ArrayLike = 1.0
    weight: ArrayLike = 0.4
    copies: int = field(default=10, metadata={"static": True})
    steps: int = field(default=75, metadata={"static": True})
    attack: Attack = field(default="apgd", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self, attack=get_args(Attack))

    @property
    def method(self) -> str:
        """Of the network: not the log-probabilities alone, but gamma with them."""
        return "outputs"

    @property
    def attack_statistics(self) -> Literal["running"]:
        return "running"

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("both", "both"),)

    def inner(self, outputs_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """The attacked copies, beside the clean images."""
        batch = Batch(*as_batch(*batch))
        size, rest = divmod(len(batch.images), self.copies)
        if rest or batch.labels.ndim != 1:
            raise ValueError(
                "the images of a device must be a multiple of copies, with hard labels; got "
                f"{len(batch.images)} images, {self.copies} copies, labels {batch.labels.shape}"
            )
        keys = per_example_keys(key, len(batch.images))[:size]
        images, labels = batch.images[:size], batch.labels[:size]
        clean: Any = outputs_fn(images)
        loss = loss_of_run(clean.log_probs, labels)

        def run(number: Array) -> Array:
            return self._attacked(
                outputs_fn, fold_keys(keys, number), images, labels, threat, loss(number)
            )

        attacked = jax.lax.map(run, jnp.arange(self.copies)).reshape(batch.images.shape)
        both = jnp.concatenate([batch.images, attacked])
        flags = jnp.repeat(jnp.arange(2), len(attacked))
        again = jnp.concatenate([batch.labels, jnp.tile(labels, self.copies)])
        return Views({"both": both}, {"attacked": flags, "labels": again})

    def _attacked(
        self,
        outputs_fn: Any,
        keys: Array,
        images: Array,
        labels: Array,
        threat: Any,
        loss: Any,
    ) -> Array:
        """One attack run with sampled settings."""
        norm: Any = norm_of(threat)
        if norm not in NORMS:
            raise InputError(f"threat must be linf, l2 or l1, got {described(threat)}")
        weight_keys, eps_keys, momentum_keys, attack_keys = (fold_keys(keys, n) for n in range(4))
        draw = jax.vmap(jax.random.uniform)
        weight = draw(weight_keys) * jnp.asarray(self.weight, images.dtype)
        eps = (0.4 + 0.7 * draw(eps_keys)) * jnp.asarray(threat.eps, images.dtype)
        # Of the first example: one number for the run, as its loop is one.
        drawn = jax.random.chisquare(fold_keys(keys, 4)[0], float(self.steps))
        most = self.steps + round(4 * (2 * self.steps) ** 0.5)
        iterations = jnp.clip(jnp.round(drawn).astype(jnp.int32), 1, most)
        target = Evading(outputs_fn, weight)
        if self.attack == "apgd":
            return apgd(
                target,
                attack_keys,
                images,
                labels,
                norm=norm,
                eps=eps,
                loss=loss,
                steps=most,
                iterations=iterations,
                keep="loss",
            ).images
        # Per example: as many radii as images.
        per_example = jax.tree.map(lambda _: eps, threat)
        return pgd(
            target,
            attack_keys,
            images,
            labels,
            threat=per_example,
            loss=loss,
            steps=iterations,
            step_size=5 * eps / iterations.astype(eps.dtype),
            momentum=0.9 * draw(momentum_keys),
        ).images

    def outer(
        self, logits: dict[str, Any], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """`mixing_loss`; the share of images told apart is the metric "detected"."""
        outputs: MixedOutputs = logits["both"]
        attacked, labels = extras["attacked"], extras["labels"]
        assert outputs.gamma is not None
        scale = jnp.where(attacked == 1, jnp.ones(()), jnp.asarray(self.clean_scale, jnp.float32))
        loss = mixing_loss(
            outputs.log_probs,
            outputs.gamma,
            labels,
            attacked,
            bce=self.bce,
            ce=self.ce,
            product=self.product,
            scale=scale,
        )
        right = correct(outputs.log_probs, labels)
        half = len(right) // 2
        detected = ((outputs.gamma > 0) == (attacked == 1)).astype(jnp.float32)
        metrics = {
            "accuracy": right[:half],
            "robust_accuracy": right[half:],
            "detected": detected,
        }
        return loss, metrics
