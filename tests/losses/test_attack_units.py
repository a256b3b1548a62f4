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


@pytest.mark.parametrize("classes", [2, 3, 4, 6])
def test_each_run_goes_for_the_next_likeliest_class(classes):
    """The margin of two classes stands in where there are too few for the DLR."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=(8, classes)), jnp.float32)
    labels = jnp.arange(8) % classes
    run = losses.loss_of_run(z, labels)
    np.testing.assert_allclose(run(0)(z, labels), losses.cross_entropy(z, labels))
    order = np.argsort(-np.asarray(z), 1)
    others = np.stack([row[row != label] for row, label in zip(order, labels, strict=True)])
    each = np.arange(8)
    for number in range(1, 2 * classes):  # after the last class, the first again
        target = others[:, (number - 1) % (classes - 1)]
        if classes >= 4:
            wanted = losses.dlr_targeted(z, labels, target)
        else:
            wanted = z[each, target] - z[each, labels]
        np.testing.assert_allclose(run(number)(z, labels), wanted, rtol=1e-6)
