"""Half precision: what every attack returns is of the images' dtype, in box and ball as it stands."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, losses, threats

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
# Dark, middle and bright, black and white ones among them: the box is near, values are coarse.
IMAGES = np.clip(
    RNG.uniform(-0.2, 1.2, (6, 4, 4, 1)) * np.array([0.02, 0.1, 0.5, 1, 1, 1])[:, None, None, None],
    0,
    1,
)
IMAGES[4], IMAGES[5] = 0, 1
WEIGHTS = RNG.normal(size=(16, 3)).astype(np.float32)
LABELS = (IMAGES.reshape(6, -1) @ WEIGHTS).argmax(-1)
EPS = {"linf": 8 / 255, "l2": 0.37, "l1": 1.3, "l0": 3}


def network(x):
    return x.reshape(len(x), -1).astype(jnp.float32) @ WEIGHTS


def targeted(norm, eps):
    bound = attacks.APGD(threat=getattr(threats, norm)(eps), loss="margin_targeted", steps=3)
    return attacks.MALT(attack=bound, targets=2)


def of_threat(kind, **settings):
    return lambda norm, eps: kind(threat=getattr(threats, norm)(eps), **settings)


NORMS = ("linf", "l2", "l1")
IN_A_BALL = {
    "PGD": (of_threat(attacks.PGD, steps=3, restarts=2), (*NORMS, "l0")),
    "PGD, margin": (of_threat(attacks.PGD, steps=3, loss=losses.margin), NORMS),
    "FGSM": (of_threat(attacks.FGSM), (*NORMS, "l0")),
    "APGD": (of_threat(attacks.APGD, steps=6, restarts=2), NORMS),
    "APGD, three radii": (of_threat(attacks.APGD, steps=6, eps_schedule=True), ("l1",)),
    "FAB": (of_threat(attacks.FAB, steps=4, restarts=2), NORMS),
    "Square": (of_threat(attacks.Square, queries=12), NORMS),
    "MinMargin": (of_threat(attacks.MinMargin, steps=3, targets=2), NORMS),
    "PMA": (of_threat(attacks.PMA, steps=6), ("linf",)),
    "CR": (of_threat(attacks.CR, steps=6, period=3, targets=2, restarts=2), ("linf",)),
    "MALT": (targeted, NORMS),
    "WorstOfK": (of_threat(attacks.WorstOfK, k=3), (*NORMS, "l0")),
    "RandomTransform": (of_threat(attacks.RandomTransform), (*NORMS, "l0")),
}
NEAREST = {
    "FAB": (of_threat(attacks.FAB, steps=6), NORMS),
    "FMN": (of_threat(attacks.FMN, steps=30), (*NORMS, "l0")),
    "DDN": (of_threat(attacks.DDN, steps=30), ("l2",)),
    "DDN, 256 levels": (of_threat(attacks.DDN, steps=30, levels=256), ("l2",)),
    "PDPGD": (of_threat(attacks.PDPGD, steps=30), (*NORMS, "l0")),
    "SigmaZero": (of_threat(attacks.SigmaZero, steps=30), ("l0",)),
    "DeepFool": (of_threat(attacks.DeepFool, steps=10), ("l2", "linf")),
    "SuperDeepFool": (
        of_threat(attacks.SuperDeepFool, steps=3, deepfool_steps=4, search_steps=3),
        ("l2",),
    ),
}  # fmt: skip


def norms(difference, norm):
    """In float64, of the values as they are."""
    sizes = np.abs(difference.reshape(len(difference), -1))
    if norm == "l0":
        return (sizes != 0).sum(-1)
    return np.linalg.norm(sizes, {"linf": np.inf, "l2": 2, "l1": 1}[norm], -1)


def wide(images):
    return np.asarray(images).astype(np.float64)


def in_box(images):
    return bool(np.all((images >= 0) & (images <= 1)))


def run(bound, images):
    return jax.jit(lambda bound, x: bound(network, KEY, x, LABELS))(bound, images)


def rows(table):
    return [(name, norm) for name, (_, of) in table.items() for norm in of]


SLOW = pytest.param(jnp.float16, marks=pytest.mark.slow)  # the same programs once more
DTYPES = pytest.mark.parametrize("dtype", [jnp.bfloat16, SLOW])


@DTYPES
@pytest.mark.parametrize(("name", "norm"), rows(IN_A_BALL))
def test_images_stay_in_box_and_ball(name, norm, dtype):
    images = jnp.asarray(IMAGES, dtype)
    make = IN_A_BALL[name][0]
    found = run(make(norm, EPS[norm]), images)
    assert found.images.dtype == dtype
    moved = wide(found.images)
    assert in_box(moved)
    sizes = norms(moved - wide(images), norm)
    if name != "FAB":  # whose images are the nearest, in the ball or not
        assert (sizes <= np.float32(EPS[norm]) * (1 + 1e-6)).all(), sizes
    wrong = np.asarray(network(found.images).argmax(-1)) != LABELS
    np.testing.assert_array_equal(
        np.asarray(found.success), wrong & (sizes <= EPS[norm] * 1.000001)
    )
    still = run(make(norm, 0 * EPS[norm]), images)
    assert still.images.dtype == dtype
    right = np.asarray(network(images).argmax(-1)) == LABELS
    if name == "FAB":
        assert not still.success[right].any()
    else:
        np.testing.assert_array_equal(wide(still.images), wide(images))


@DTYPES
@pytest.mark.parametrize(("name", "norm"), rows(NEAREST))
def test_distances_are_those_of_the_returned_images(name, norm, dtype):
    images = jnp.asarray(IMAGES, dtype)
    make = NEAREST[name][0]
    eps = 4 * EPS[norm]  # few steps find nothing nearer
    found = run(make(norm, eps), images)
    assert found.images.dtype == dtype
    moved = wide(found.images)
    assert in_box(moved)
    wrong = np.asarray(network(found.images).argmax(-1)) != LABELS
    distance, sizes = np.asarray(found.distance), norms(moved - wide(images), norm)
    inside = distance <= np.float32(eps)  # a bound attack leaves the others as they were
    assert inside.any(), distance
    np.testing.assert_array_equal(np.asarray(found.success), inside)
    np.testing.assert_allclose(distance[inside], sizes[inside], rtol=1e-5)
    assert wrong[inside].all(), (distance, wrong)
    np.testing.assert_array_equal(moved[~inside], wide(images)[~inside])
    none = run(make(norm, 0 * EPS[norm]), images)
    right = np.asarray(network(images).argmax(-1)) == LABELS
    np.testing.assert_array_equal(np.asarray(none.success), ~right)


@DTYPES
@pytest.mark.parametrize("eps", [0.0, 8 / 255])
def test_spatial_attacks_stay_in_the_box(dtype, eps):
    images = jnp.asarray(IMAGES, dtype)
    spatial = threats.spatial(10.0 if eps else 0.0, 1.0 if eps else 0.0)
    both = threats.compose(spatial, threats.linf(eps))
    for bound in (
        attacks.SpatialGrid(threat=spatial, counts=(2, 1, 2)),
        attacks.SpatialGrid(
            threat=both, counts=(2, 1, 2), inner=partial(attacks.pgd, steps=1, step_size=2 / 255)
        ),
        attacks.WorstOfK(threat=spatial, k=2),
        attacks.RandomTransform(threat=both),
        attacks.PGD(threat=both, steps=2),
        attacks.PGD(threat=threats.union(linf=eps, l2=10 * eps), steps=2),
    ):
        found = run(bound, images)
        assert found.images.dtype == dtype, bound
        assert in_box(wide(found.images)), bound
        wrong = np.asarray(network(found.images).argmax(-1)) != LABELS
        np.testing.assert_array_equal(np.asarray(found.success), wrong)
        if not eps:
            np.testing.assert_array_equal(wide(found.images), wide(images))
