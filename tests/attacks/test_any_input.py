"""Laws of every attack for images of half precision, NaN logits, empty batches and debug NaNs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, threats

KEY = jax.random.key(3)
EPS = {"linf": 8 / 255, "l2": 0.25, "l1": 1.0}
WEIGHTS = jax.random.normal(jax.random.key(0), (27, 4))
MAKE = {"linf": threats.linf, "l2": threats.l2, "l1": threats.l1}
SLACK = {"linf": 1e-6, "l2": 1e-6, "l1": 1e-5}  # relative, of float32


def network(x):
    return x.reshape(-1, 27).astype(jnp.float32) @ WEIGHTS


def ball(norm):
    """Every attack on a norm, by name."""
    threat, options = MAKE[norm](EPS[norm]), {"norm": norm, "eps": EPS[norm]}
    step = {"step_size": EPS[norm] / 2}
    return {
        "pgd": lambda *a: attacks.pgd(*a, threat=threat, steps=3, **step),
        "pgd, best of two": lambda *a: attacks.pgd(
            *a, threat=threat, steps=3, restarts=2, keep="best", momentum=0.5, **step
        ),
        "fgsm": lambda *a: attacks.fgsm(*a, threat=threat),
        "worst_of_k": lambda *a: attacks.worst_of_k(*a, threat=threat, k=3),
        "apgd": lambda *a: attacks.apgd(*a, steps=4, **options),
        "apgd, keeping the loss": lambda *a: attacks.apgd(*a, steps=4, keep="loss", **options),
        "apgd, two restarts": lambda *a: attacks.apgd(*a, steps=4, restarts=2, **options),
        "fab": lambda *a: attacks.fab(*a, steps=4, restarts=2, **options),
        "square": lambda *a: attacks.square(*a, queries=6, restarts=2, **options),
        "min_margin": lambda *a: attacks.min_margin(*a, steps=3, targets=1, **options),
        "malt": lambda *a: malt(threat)(*a),
    } | (linf() if norm == "linf" else {})


def linf():
    """The attacks on one norm alone."""
    eps, small = EPS["linf"], {"period": 3, "targets": 2, "restarts": 2}
    return {
        "pma": lambda *a: attacks.pma(*a, eps=eps, steps=4),
        "cr": lambda *a: attacks.cr(*a, eps=eps, steps=6, **small),
    }


def malt(threat):
    inner = attacks.APGD(threat=threat, loss="dlr_targeted", steps=3)
    return attacks.MALT(attack=inner, targets=2)


def minimum_norm(norm):
    """Every attack that looks for the smallest perturbation and takes no radius, by name."""
    found = {
        # The published form stalls on the walls of the box in l1 and l2.
        "fmn": lambda *a: attacks.fmn(*a, norm=norm, steps=12, escape=norm in ("l1", "l2")),
        "pdpgd": lambda *a: attacks.pdpgd(*a, norm=norm, steps=12),
    }
    if norm in ("l2", "linf"):
        found["deepfool"] = lambda *a: attacks.deepfool(*a, norm=norm, steps=8)
    if norm == "l2":
        found["ddn"] = lambda *a: attacks.ddn(*a, steps=12)
        found["superdeepfool"] = lambda *a: attacks.superdeepfool(*a, steps=3, deepfool_steps=4)
    if norm == "l0":
        found["sigma_zero"] = lambda *a: attacks.sigma_zero(*a, steps=12)
    return found


SPATIAL = {
    "spatial_grid": lambda *a: attacks.spatial_grid(
        *a, threat=threats.spatial(20, 1), counts=(3, 3, 3)
    ),
    "worst_of_k": lambda *a: attacks.worst_of_k(*a, threat=threats.spatial(20, 1), k=3),
}
CASES = [
    pytest.param(norm, attack, id=f"{norm}-{name}") for norm in EPS for name, attack in ball(norm).items()
]  # fmt: skip
MINIMUM_NORM = [
    pytest.param(norm, attack, id=f"{norm}-{name}")
    for norm in ("linf", "l2", "l1", "l0")
    for name, attack in minimum_norm(norm).items()
]
EVERY = [
    *CASES,
    *MINIMUM_NORM,
    *(pytest.param("spatial", a, id=f"spatial-{n}") for n, a in SPATIAL.items()),
]


def batch(dtype=jnp.float32, size=6):
    images = jax.random.uniform(jax.random.key(1), (size, 3, 3, 3))
    images = images.at[:, 0].set(0).at[:, 1, :, 0].set(1)  # walls of the box
    return images.astype(dtype), np.arange(size) % 4


HALF = [
    pytest.param(
        *case.values,
        dtype,
        id=f"{case.id}-{dtype.__name__}",
        # Squares are what overflows and underflows in float16.
        marks=[pytest.mark.slow] if dtype == jnp.float16 and case.values[0] != "l2" else [],
    )
    for case in CASES
    for dtype in (jnp.bfloat16, jnp.float16)
]


@pytest.mark.parametrize(("norm", "attack", "dtype"), HALF)
def test_half_precision_stays_in_ball_and_box(norm, attack, dtype):
    images, labels = batch(dtype)
    found = jax.jit(lambda k, x, y: attack(network, k, x, y))(KEY, images, labels)
    assert found.images.dtype == dtype
    moved = np.asarray(found.images, np.float64) - np.asarray(images, np.float64)
    flat = moved.reshape(len(moved), -1)
    sizes = np.linalg.norm(flat, {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)
    assert np.isfinite(sizes).all()
    assert sizes.max() <= EPS[norm] * (1 + SLACK[norm])
    assert sizes.max() > 0
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1
    # The verdict is that of the images which are returned.
    wrong = np.asarray(network(found.images).argmax(-1)) != labels
    if "min_margin" not in str(attack):
        assert not (np.asarray(found.success) & ~wrong).any()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(("norm", "attack"), MINIMUM_NORM)
def test_half_precision_of_the_smallest_perturbations(norm, attack, dtype):
    """The distance is that of the images which are returned, and so is the verdict."""
    images, labels = batch(dtype)
    labels[2:] = np.asarray(network(images).argmax(-1))[2:]
    found = jax.jit(lambda k, x, y: attack(network, k, x, y))(KEY, images, labels)
    assert found.images.dtype == dtype
    moved = np.asarray(found.images, np.float64) - np.asarray(images, np.float64)
    order = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}[norm]
    sizes = np.linalg.norm(moved.reshape(len(moved), -1), order, axis=1)
    success = np.asarray(found.success)
    np.testing.assert_allclose(sizes[success], found.distance[success], rtol=1e-5)
    np.testing.assert_array_equal(sizes[~success], 0)
    assert success[2:].any()
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1
    wrong = np.asarray(network(found.images).argmax(-1)) != labels
    np.testing.assert_array_equal(success, wrong)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("attack", SPATIAL.values(), ids=SPATIAL)
def test_half_precision_of_transforms(attack, dtype):
    found = attack(network, KEY, *batch(dtype))
    assert found.images.dtype == dtype
    assert np.isfinite(np.asarray(found.images, np.float32)).all()
    np.testing.assert_array_equal(
        found.success, np.asarray(network(found.images).argmax(-1)) != batch()[1]
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("norm", EPS)
def test_threats_of_half_precision_neither_overflow_nor_underflow(norm, dtype):
    threat = MAKE[norm](EPS[norm])
    tiny = jnp.full((8, 8, 1), 1e-6, dtype)
    step = np.asarray(threat.ascend(jnp.zeros_like(tiny), tiny, 0.1), np.float64)
    assert np.isfinite(step).all()
    assert step.max() > 0
    wide, grey = jnp.full((64, 64, 3), 10, dtype), jnp.full((64, 64, 3), 0.5, dtype)
    for z in (threat.project(wide, grey), threat.init(KEY, grey)):
        flat = np.asarray(z, np.float64).ravel()
        size = np.linalg.norm(flat, {"linf": np.inf, "l2": 2, "l1": 1}[norm])
        assert 0 < size <= EPS[norm] * (1 + SLACK[norm])


SOUND, MOVED, BROKEN = 0, 1, 2


def with_trouble(x, images, trouble):
    """The network; or NaN in one logit away from `images`; or NaN everywhere."""
    logits, moved = network(x), jnp.abs(x - images).max((1, 2, 3)) > 0
    nan = jnp.where((trouble == MOVED) & moved, jnp.nan, logits[:, 2])
    return jnp.where(trouble == BROKEN, jnp.nan, logits.at[:, 2].set(nan))


@functools.cache
def program(attack):
    """One program for all three."""

    @jax.jit
    def run(key, images, labels, trouble):
        return attack(lambda x: with_trouble(x, images, trouble), key, images, labels)

    return run


@pytest.mark.parametrize(("norm", "attack"), EVERY)
def test_nan_logits_are_never_right(norm, attack):
    """NaN away from the clean image, in one of the logits, for labels of every class."""
    images, _ = batch()
    labels = np.asarray(network(images).argmax(-1))
    found = program(attack)(KEY, images, labels, MOVED)
    assert np.isfinite(np.asarray(found.images)).all()
    moved = np.abs(np.asarray(found.images - images)).max((1, 2, 3)) > 0
    assert np.asarray(found.success)[moved].all()
    if norm != "spatial":
        assert np.asarray(found.success).any()


@pytest.mark.parametrize(("norm", "attack"), EVERY)
def test_networks_that_are_nan_everywhere_are_wrong_everywhere(norm, attack):
    found = program(attack)(KEY, *batch(), BROKEN)
    assert np.asarray(found.success).all()
    assert np.isfinite(np.asarray(found.images)).all()


@pytest.mark.parametrize("name", ["pgd", "apgd", "fab", "square"])
def test_networks_that_are_nan_outside_of_jit(name):
    images, labels = batch()
    found = ball("linf")[name](lambda x: network(x) * jnp.nan, KEY, images, labels)
    assert np.asarray(found.success).all()
    assert np.isfinite(np.asarray(found.images)).all()


def test_the_average_case_counts_nan_as_wrong():
    images, labels = batch()
    options = {"threat": threats.spatial(20, 1), "draws": 2}
    nothing = attacks.average_case(lambda x: network(x) * jnp.nan, KEY, images, labels, **options)
    assert nothing.accuracy.tolist() == [0.0] * len(labels)


@pytest.mark.parametrize(("norm", "attack"), EVERY)
def test_debug_nans_stays_usable(norm, attack):
    with jax.debug_nans(True):
        found = attack(network, KEY, *batch())
        program(attack)(KEY, *batch(), SOUND)
    assert found.success.shape == (6,)


@pytest.mark.parametrize(("norm", "attack"), EVERY)
def test_an_empty_batch_has_an_empty_result(norm, attack):
    """Also of a network that takes no empty one: it has no rows to flatten."""
    images, labels = batch()

    def flattening(x):
        return network(x.reshape(len(x), -1).reshape(-1, 3, 3, 3))

    found = attack(flattening, KEY, images[:0], labels[:0])
    assert found.images.shape == (0, 3, 3, 3)
    assert found.success.shape == (0,)
    assert found.success.dtype == bool
