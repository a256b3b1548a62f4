"""A multilayer perceptron with the outputs of a mixed classifier, to count its passes."""

import flax.linen as nn
import jax
from jax import Array

from jaxrobust import models
from jaxrobust.mixing import MixedOutputs


class MixedPerceptron(nn.Module):
    """All of it is trained, as if there were no frozen bases."""

    num_classes: int = 10
    hidden: tuple[int, ...] = (512,) * 3

    def setup(self) -> None:
        self.body = models.mlp(num_classes=self.num_classes + 1, hidden=self.hidden)

    def outputs(self, images: Array, *, train: bool = False) -> MixedOutputs:
        """The last logit is gamma."""
        logits = self.body(images, train=train)
        log_probs, gamma = jax.nn.log_softmax(logits[:, :-1]), logits[:, -1]
        return MixedOutputs(log_probs, log_probs, log_probs, jax.nn.sigmoid(gamma), gamma)

    def __call__(self, images: Array, *, train: bool = False) -> Array:
        return self.outputs(images, train=train).log_probs
