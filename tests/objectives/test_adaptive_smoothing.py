"""The attack in the training of a mixing network, on a network whose worst image is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import objectives, threats
from jaxrobust.mixing import MixedOutputs
from jaxrobust.objectives import Batch

EPS = 0.1


@pytest.mark.parametrize("attack", ["pgd", "apgd"])
def test_steps_are_a_share_of_the_radius(attack):
    """The worst image lies in the middle of the ball, and short steps come near it."""
    images, labels = jnp.full((16, 2, 2, 1), 0.5), jnp.zeros(16, jnp.int32)

    def outputs_fn(x):
        away = 500 * jnp.sum((x - 0.5) ** 2, (1, 2, 3))
        logits = jnp.stack([away, *(jnp.zeros_like(away),) * 3], -1)
        log_probs = jax.nn.log_softmax(logits)
        return MixedOutputs(log_probs, log_probs, log_probs, 0 * away, 0 * away)

    objective = objectives.adaptive_smoothing(copies=1, steps=60, weight=0.0, attack=attack)
    batch = Batch(images, labels)
    views = objective.inner(outputs_fn, jax.random.key(0), batch, threats.linf(EPS))
    away = np.abs(views.images["both"][16:] - images).max((1, 2, 3))
    assert np.median(away) < EPS / 4
