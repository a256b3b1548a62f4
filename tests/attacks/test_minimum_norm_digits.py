"""Minimum-norm attacks on 100 images of digits, at published budgets, beside the authors' distances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks
from tests.attacks.minimum_norm import KEY, read, size

NETWORKS = ("digits_robust", "digits_standard")
QUICK = (
    "ddn_100",
    "fmn_linf_100",
    "fmn_l0_100",
    "sigma_zero_100",
    "deepfool_l2_100",
    "deepfool_linf_100",
)
STORED = read("minnorm_public_digits")
NAMES = sorted({k.split(".")[1] for k in STORED if k.endswith(".distance")})


def network_of(name):
    stored = read(name)
    params = {k: jnp.asarray(v) for k, v in stored.items() if k.endswith(("kernel", "bias"))}

    def logits_fn(x):
        for layer, stride in (("conv1", 1), ("conv2", 2)):
            x = jax.lax.conv_general_dilated(
                x, params[f"{layer}_kernel"], (stride, stride), "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip
            x = jax.nn.relu(x + params[f"{layer}_bias"][None, None, None])
        return x.reshape(len(x), -1) @ params["dense_kernel"] + params["dense_bias"][None]

    rows = STORED[f"{name}.index"]
    return logits_fn, jnp.asarray(stored["x"][rows]), jnp.asarray(stored["y"][rows])


def attack_of(name):
    """The function, its options and its norm, as the file's names say."""
    words = name.split("_")
    kind, norms = words[0], {"l0", "l1", "l2", "linf"}
    if kind == "superdeepfool":
        return attacks.superdeepfool, {}, "l2"
    if kind == "deepfool":
        return attacks.deepfool, {"norm": words[1], "steps": int(words[2])}, words[1]
    if kind == "sigma":
        return attacks.sigma_zero, {"steps": int(words[2])}, "l0"
    options = {"steps": int(next(w for w in words if w.isdigit()))}
    if kind == "ddn":
        return attacks.ddn, options | ({"levels": 256} if "q256" in words else {}), "l2"
    norm = next(w for w in words if w in norms)
    options |= {"norm": norm}
    options |= {"escape": True} if "escape" in words else {}
    options |= {"step_size": 10.0} if "step10" in words else {}
    return getattr(attacks, kind), options, norm


def slow_unless_quick(network, name):
    quick = name == "fmn_linf_100" or (name in QUICK and network == "digits_robust")
    return pytest.param(network, name, marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize(
    ("network", "name"),
    [slow_unless_quick(network, name) for network in NETWORKS for name in NAMES],
)
def test_distances_are_within_the_bands_of_the_authors(network, name):
    logits_fn, x, y = network_of(network)
    function, options, norm = attack_of(name)
    found = jax.jit(lambda x, y: function(logits_fn, KEY, x, y, **options))(x, y)
    prefix = f"{network}.{name}."
    reference = STORED[f"{prefix}distance"]
    bands = {k: STORED[f"{prefix}band_{k}"].item() for k in ("found", "mean", "share")}
    distance = np.asarray(found.distance, np.float64)
    assert abs(np.isfinite(distance).sum() - np.isfinite(reference).sum()) <= bands["found"]
    both = np.isfinite(distance) & np.isfinite(reference)
    ours, theirs = distance[both], reference[both]
    assert abs(ours.mean() / theirs.mean() - 1) <= bands["mean"]
    assert np.mean(np.abs(ours - theirs) <= 0.01 * theirs) >= bands["share"]
    # Nothing that is returned is taken on trust.
    success = np.asarray(found.success)
    np.testing.assert_array_equal(success, np.isfinite(distance))
    moved = np.asarray(found.images, np.float64) - np.asarray(x, np.float64)
    slack = {"atol": 2e-6} if norm != "l0" else {}
    np.testing.assert_allclose(size(moved, norm)[success], distance[success], rtol=1e-5, **slack)
    wrong = np.asarray(logits_fn(found.images).argmax(-1)) != np.asarray(y)
    assert wrong[success].all()
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1
    np.testing.assert_array_equal(
        distance == 0, np.asarray(logits_fn(x).argmax(-1)) != np.asarray(y)
    )
