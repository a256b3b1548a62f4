"""The losses of AutoAttack against recorded values and gradients, ties at the top included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import losses

TIES = slice(40, 46)


@pytest.mark.parametrize("classes", [4, 10])
def test_values_and_gradients(golden, classes):
    data = golden("attack_units")
    recorded = {
        name.removeprefix(f"dlr/{classes}/"): value
        for name, value in data.items()
        if name.startswith(f"dlr/{classes}/")
    }
    logits, labels, targets = (jnp.asarray(recorded[k]) for k in ("logits", "y", "y_target"))
    ours = {
        "ce": lambda z: losses.cross_entropy(z, labels),
        "dlr": lambda z: losses.dlr(z, labels),
        "dlr_targeted": lambda z: losses.dlr_targeted(z, labels, targets),
        "square_margin": lambda z: -losses.margin(z, labels),
    }
    for name, loss in ours.items():
        # Where the three top logits are equal, dlr is of the order 1e12.
        np.testing.assert_allclose(loss(logits), recorded[name], rtol=1e-5, atol=1e-6, err_msg=name)
    for name in ("dlr", "dlr_targeted"):
        grads = jax.grad(lambda z, name=name: ours[name](z).sum())(logits)
        expected = recorded[f"{name}_grad"]
        untied = np.delete(np.arange(len(logits)), TIES)
        np.testing.assert_allclose(grads[untied], expected[untied], rtol=1e-4, atol=1e-6)
        assert not np.isnan(grads).any()
