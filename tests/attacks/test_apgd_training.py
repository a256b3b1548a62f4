"""APGD as E-AT, MAX and RAMP train with it: from the clean image, the visited point of highest loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks
from jaxrobust.inputs import InputError
from tests.tiny import tiny_logits, tiny_params


def setting(golden):
    data = golden("beyond_public_union")
    params = tiny_params(data, "init")
    x, y = jnp.asarray(data["x"][:6]), jnp.asarray(data["y"][:6], jnp.int32)
    return data, lambda images: tiny_logits(params, images)[0], x, y


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["Linf", "L2", "L1"])
def test_the_training_attack_is_the_authors(golden, name):
    data, logits_fn, x, y = setting(golden)
    options = {"sparsity": float(data["apgd_L1.init_topk"])} if name == "L1" else {}
    found = attacks.apgd(
        logits_fn, jax.random.key(0), x, y,
        norm=name.lower(), eps=float(data[f"eps.{name}"]), steps=int(data["apgd_steps"]),
        keep="loss", start=jnp.zeros_like(x), **options,
    )  # fmt: skip
    np.testing.assert_allclose(found.images, data[f"apgd_{name}.x_best"], atol=1e-8)
    np.testing.assert_allclose(found.loss, data[f"apgd_{name}.loss_best"], rtol=1e-8)
    np.testing.assert_array_equal(~found.success, data[f"apgd_{name}.robust"].astype(bool))


def test_sparsity_is_of_the_first_step(golden):
    _, logits_fn, x, y = setting(golden)
    x = x.astype(jnp.float32)
    options = {"norm": "l1", "eps": 0.8, "steps": 1, "keep": "loss", "start": jnp.zeros_like(x)}
    for share in (0.05, 0.5):
        attack = jax.jit(
            lambda share: (
                attacks.apgd(logits_fn, jax.random.key(0), x, y, sparsity=share, **options).images
            )
        )
        moved = (np.abs(attack(share) - x) > 1e-4).sum((1, 2, 3))
        assert (moved <= 0.05 * 108 + 1).all() if share == 0.05 else (moved > 20).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sparsity": 0.0}, r"sparsity must be in \(0, 1\], got 0"),
        ({"sparsity": 1.5}, r"sparsity must be in \(0, 1\], got 1.5"),
        ({"sparsity": 0.1, "norm": "l2"}, "sparsity applies to the first steps in norm='l1'.*'l2'"),
        ({"sparsity": 0.1, "eps_schedule": True}, "sparsity .*eps_schedule=True"),
    ],
)
def test_a_sparsity_without_effect_is_refused(golden, options, said):
    _, logits_fn, x, y = setting(golden)
    with pytest.raises(InputError, match=said):
        attacks.apgd(logits_fn, jax.random.key(0), x, y, **{"norm": "l1", "eps": 1.0} | options)
