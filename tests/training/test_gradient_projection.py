"""RAMP's gradient projection against the authors' code."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.training import gradient_projection


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("beta", [0.5, 0.3])
def test_gradient_projection_is_the_authors(golden, beta):
    data = golden("beyond_public_union")

    def weights(prefix):
        found = {k[len(prefix) :]: v for k, v in data.items() if k.startswith(prefix)}
        return {k: v for k, v in found.items() if not k.startswith("grad")}

    old, adversarial, natural = (weights(p) for p in ("init.", "gp.adversarial.", "gp.natural."))
    found = gradient_projection(old, adversarial, natural, beta=beta)
    for name, stored in weights(f"gp.result_{beta}.").items():
        np.testing.assert_allclose(found[name], stored, rtol=1e-10, err_msg=name)
    assert set(found) == set(weights(f"gp.result_{beta}."))


def test_no_change_stays_and_bad_trees_are_refused():
    tree = {"kernel": jnp.ones(3), "count": jnp.array(2), "none": None}
    after = tree | {"count": jnp.array(5)}
    found = gradient_projection(tree, after, tree)
    np.testing.assert_array_equal(found["kernel"], 1)
    assert found["count"] == 5
    with pytest.raises(ValueError, match="natural must have the structure"):
        gradient_projection(tree, tree, {"kernel": jnp.ones(3)})
    with pytest.raises(ValueError, match="beta must be in"):
        gradient_projection(tree, tree, tree, beta=2.0)
