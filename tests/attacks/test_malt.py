"""MALT's targets against its authors' ranking."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks
from tests.evaluation.test_autoattack import conv_net


@pytest.mark.parametrize("model", ["digits_robust", "digits_standard"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_ranking_is_the_authors(golden, model, norm):
    data, malt = golden(model), golden("malt_public")
    params = {k: jnp.asarray(v) for k, v in data.items() if k.endswith(("kernel", "bias"))}
    network = jax.tree_util.Partial(conv_net, params)
    right = malt[f"{model}.clean_correct"]  # they take the predicted class, where it is another one

    def find(**options):
        def call(x, y):
            return attacks.malt_targets(network, x, y, norm=norm, **options)

        return np.asarray(jax.jit(call)(data["x"], data["y"]))

    found = find()
    assert found.shape == (360, 9)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found[right], malt[f"{model}.{norm}.targets"][right])
    assert (np.sort(np.c_[found, data["y"]], -1) == np.arange(10)).all()
    if norm != "l1":
        few = find(candidates=4, targets=3)
        expected = malt[f"{model}.{norm}.candidates4.targets"]
        np.testing.assert_array_equal(few[right], expected[right])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_scale_of_the_logits_changes_no_target(norm, key):
    weights, offsets = jax.random.normal(key, (12, 6)), jnp.linspace(0, 1, 6)[None]
    images, labels = jax.random.uniform(key, (5, 2, 3, 2)), jnp.arange(5)

    def targets(scale):
        network = lambda x: scale * (x.reshape(len(x), -1) @ weights + offsets)  # noqa: E731
        return attacks.malt_targets(network, images, labels, norm=norm)

    np.testing.assert_array_equal(targets(1e-3), targets(100.0))


def test_a_class_without_a_gradient_comes_last_and_the_label_never(key):
    slopes = jnp.array([[0.0, 0.0, 1.0, 2.0, 0.0]])
    offsets = jnp.array([[0.0, -0.1, -1.0, -1.0, -0.2]])

    def network(x):
        return offsets + x.mean((1, 2)) * slopes

    images, labels = jnp.full((2, 3, 3, 1), 0.1), jnp.array([0, 2])
    found = attacks.malt_targets(network, images, labels)
    assert found.tolist()[0] == [3, 2, 1, 4]
    assert 2 not in found.tolist()[1]
    assert attacks.malt_targets(network, images, labels, candidates=2).shape == (2, 2)
    assert attacks.malt_targets(network, images, labels, targets=1).shape == (2, 1)
    assert attacks.malt_targets(network, images[:0], labels[:0]).shape == (0, 4)

    def flattening(x):
        return network(x.reshape(len(x), -1).reshape(x.shape))

    assert attacks.malt_targets(flattening, images[:0], labels[:0], targets=2).shape == (0, 2)
    with pytest.raises(ValueError, match="candidates must be an integer of at least 1, got 0"):
        attacks.malt_targets(network, images, labels, candidates=0)
