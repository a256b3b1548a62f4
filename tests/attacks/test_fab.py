"""FAB: exact projections, the reference's runs, closed-form distances, bad models."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.attacks import _fab
from jaxrobust.attacks._box_hyperplane import to_hyperplane
from jaxrobust.attacks._fab import fab
from tests.conftest import GOLDEN

to_hyperplane = jax.jit(to_hyperplane, static_argnames="norm")
NORMS = ("linf", "l2", "l1")
STORED = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def size(values, norm):
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    return np.linalg.norm(values, {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)


def tiny_model(data, dtype=jnp.float32):
    p = {k: jnp.asarray(data[f"model/{k}"], dtype) for k in ("w1", "b1", "w2", "b2")}

    def logits_fn(x):
        return jnp.tanh(x.reshape(len(x), -1) @ p["w1"] + p["b1"][None]) @ p["w2"] + p["b2"][None]

    return logits_fn


@pytest.fixture(scope="module")
def data():
    with np.load(GOLDEN / "fab_square_vectors.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def batch(data):
    """The model of the golden runs, its images, labels and runner-up classes, in float32."""
    logits_fn, x = tiny_model(data), jnp.asarray(data["x"])
    targets = jnp.argsort(logits_fn(x), axis=1)[:, -2]
    return logits_fn, x, jnp.asarray(data["y"], jnp.int32), targets


@pytest.fixture(scope="module")
def attack(batch):
    """The targeted attack of each norm: compiled once, whatever the tests sweep."""
    logits_fn, x, _, _ = batch

    @partial(jax.jit, static_argnames="norm")
    @chex.assert_max_traces(n=len(NORMS))
    def run(key, y, eps, targets, eta, norm):
        return fab(logits_fn, key, x, y, norm=norm, eps=eps, targets=targets, steps=30, eta=eta)

    def attack(norm, y, eps, targets, seed=0, eta=1.05):
        eps = jnp.broadcast_to(jnp.float32(eps), (len(x),))
        return run(jax.random.key(seed), y, eps, targets, eta, norm)

    return attack


# The projection


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_projection_against_the_reference(golden, norm, dtype):
    units = golden("attack_units")

    def both(name):  # those of 7 coordinates filled up with what no projection moves
        parts = [units[f"fab/{d}/{name}"].astype(dtype) for d in (7, 48)]
        return np.concatenate([np.pad(parts[0], ((0, 0), (0, 41))), parts[1]])

    points, w = both("points"), both("w")
    b = np.concatenate([units[f"fab/{d}/b"] for d in (7, 48)]).astype(dtype)
    excess = (points * w).sum(1, keepdims=True) - b[:, None]
    with jax.enable_x64(dtype == "float64"):
        moved = to_hyperplane(jnp.asarray(points), jnp.asarray(w), jnp.asarray(excess), norm=norm)
        assert moved.dtype == dtype
    atol = 1e-10 if dtype == "float64" else 2e-5 if norm == "l2" else 1e-5
    np.testing.assert_allclose(moved, both(f"{norm}_f64"), atol=atol, rtol=0)
    if dtype == "float32":
        np.testing.assert_allclose(moved, both(norm), atol=atol, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_stays_exact_over_many_magnitudes(norm):
    # Normals and rooms over several powers of ten: many pieces, slow for a careless root search.
    rng = np.random.default_rng(0)
    points = 1 - 10 ** rng.uniform(-6, 0, (120, 48))
    w = -(10 ** rng.uniform(-4, 3, (120, 48)))
    share = rng.uniform(0, 1.2, (120, 1)) ** 4
    excess = share * (-w * (1 - points)).sum(1, keepdims=True)
    args = [np.asarray(a, np.float32) for a in (points, w, excess)]
    low = to_hyperplane(*map(jnp.asarray, args), norm=norm)
    points, w, excess = (a.astype(np.float64) for a in args)
    with jax.enable_x64(True):
        exact = np.asarray(to_hyperplane(*map(jnp.asarray, (points, w, excess)), norm=norm))
    assert exact.min() >= 0
    assert (points + exact).max() <= 1 + 1e-15
    reached = np.minimum(excess, (-w * (1 - points)).sum(1, keepdims=True))
    np.testing.assert_allclose((-w * exact).sum(1, keepdims=True), reached, rtol=1e-12)
    np.testing.assert_allclose(size(low, norm), size(exact, norm), rtol=2e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_of_extreme_normals_is_finite(norm):
    rng = np.random.default_rng(0)
    values = [0.0, 1e-38, 3e38, -3e38, 1e-9, 1.0, 2.0, -5.0]
    w = jnp.asarray(rng.choice(values, (120, 48)), jnp.float32)
    w = jnp.where(jnp.arange(120)[:, None] % 3 == 0, w, jnp.clip(w, -5, 5))
    points = jnp.asarray(rng.choice([0, 1e-8, 0.3, 1], (120, 48)), jnp.float32)
    excess = jnp.asarray(np.resize([0.0, 3e38, -3e38, 1e-30, 1.0, -2.0], (120, 1)), jnp.float32)
    moved = points + to_hyperplane(points, w, excess, norm=norm)
    assert bool(jnp.all((moved >= 0) & (moved <= 1)))  # NaN would fail


@pytest.mark.parametrize("norm", NORMS)
def test_a_plane_without_a_normal_moves_nothing(norm):
    points, excess = jnp.full((2, 5), 0.5), jnp.ones((2, 1))
    normals = jnp.stack([jnp.zeros(5), jnp.arange(5.0)])
    found = to_hyperplane(points, normals, excess, norm=norm)
    assert (found[0] == 0).all()
    np.testing.assert_allclose(jnp.sum(found[1] * normals[1]), -1, rtol=1e-5)


# Runs


@pytest.mark.parametrize("norm", NORMS)
def test_runs_of_the_reference(data, batch, attack, norm):
    _, x, y, targets = batch
    attacked = jax.tree.map(np.asarray, attack(norm, y, np.inf, targets))
    points = data[f"fab/{STORED[norm]}/attacked"]
    distance = np.where(np.isinf(attacked.distance), 1e10, attacked.distance)[points]
    reference = data[f"fab/{STORED[norm]}/norm_of_best"]
    # An iterate on the boundary to the last bit puts a run a step behind; float64 has none.
    forked = np.abs(distance - reference) > 1e-5
    assert forked.sum() <= (norm == "l1")
    np.testing.assert_allclose(distance, reference, rtol=1e-3)
    images = data[f"fab/{STORED[norm]}/adv"][points]
    np.testing.assert_allclose(attacked.images[points][~forked], images[~forked], atol=1e-5)
    assert attacked.distance[11] == 0  # misclassified from the start
    np.testing.assert_array_equal(attacked.images[11], x[11])


def test_last_iterates_and_float64(data, float64):
    logits_fn, x = tiny_model(data, dtype=jnp.float64), jnp.asarray(data["x"], jnp.float64)
    y, targets = jnp.asarray(data["y"]), jnp.argsort(logits_fn(x), axis=1)[:, -2]
    settings = _fab._Settings("l1", 30, 1, *(jnp.float64(v) for v in (0.1, 1.05, 0.9)))
    linearise = _fab.boundary_to(logits_fn, y, targets)

    @jax.jit
    def run(x):
        best = _fab._clean(logits_fn, x, y)
        return _fab._run(logits_fn, linearise, settings, x, y, x, best)

    last, best = run(x)
    assert best.distance.dtype == jnp.float64
    points = data["fab/L1/attacked"]
    np.testing.assert_allclose(last[points], data["fab/L1/x1_last"], atol=1e-5)
    np.testing.assert_allclose(best.distance[points], data["fab/L1/norm_of_best"], atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_distance_to_the_nearest_boundary_of_a_linear_model(key, norm):
    shape, classes = (4, 5, 2), 5
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(np.prod(shape), classes)).astype(np.float32)
    weights[4:, :3] = 0  # boundaries near in one norm, far in another
    weights[:, :3] *= 3
    x = jnp.asarray(0.5 + 0.02 * rng.normal(size=(8, *shape)), jnp.float32)

    def logits_fn(x):
        return (x - 0.5).reshape(len(x), -1) @ jnp.asarray(weights)

    logits = np.asarray(logits_fn(x), np.float64)
    y = logits.argmax(1)
    differences = weights.T[None] - weights.T[y][:, None]
    dual = np.linalg.norm(differences, {"linf": 1, "l2": 2, "l1": np.inf}[norm], axis=2)
    dual[np.arange(8), y] = 1e-9
    gaps = logits.max(1, keepdims=True) - logits
    gaps[np.arange(8), y] = np.inf
    nearest = (gaps / dual).min(1)
    by_another_norm = gaps / np.linalg.norm(differences, {"linf": np.inf}.get(norm, 1), axis=2)
    assert (by_another_norm.argmin(1) != (gaps / dual).argmin(1)).any()
    attacked = jax.jit(lambda y: fab(logits_fn, key, x, y, norm=norm, eps=jnp.inf, steps=30))(
        jnp.asarray(y)
    )
    assert attacked.success.all()
    # The overshoot costs under a percent.
    assert (np.asarray(attacked.distance) >= nearest * (1 - 1e-5)).all()
    np.testing.assert_array_less(attacked.distance, nearest * 1.01)
    np.testing.assert_allclose(size(attacked.images - x, norm), attacked.distance, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_success_is_misclassification_within_eps(batch, attack, norm):
    logits_fn, x, y, targets = batch
    free = attack(norm, y, np.inf, targets)
    eps = np.median(free.distance)
    attacked = attack(norm, y, eps, targets)
    np.testing.assert_array_equal(attacked.distance, free.distance)
    np.testing.assert_array_equal(attacked.success, free.distance <= eps)
    assert 0 < int(attacked.success.sum()) < len(x)
    np.testing.assert_array_equal(jnp.argmax(logits_fn(attacked.images), -1) != y, attacked.success)
    assert size(attacked.images - x, norm).max() <= eps * (1 + 1e-6)
    np.testing.assert_array_equal(attacked.images[~attacked.success], x[~attacked.success])
    # The smallest perturbation is there also where it is larger than eps.
    np.testing.assert_array_equal(attacked.perturbation, free.images - x)
    # One radius per example; at 0 nothing moves, to the bit.
    each = attack(norm, y, np.where(np.arange(len(x)) % 2 == 0, eps, 0), targets)
    np.testing.assert_array_equal(each.images[::2], attacked.images[::2])
    np.testing.assert_array_equal(each.images[1::2], x[1::2])
    np.testing.assert_array_equal(each.success[1::2], free.distance[1::2] == 0)


def test_sweeps_reach_the_attack(batch, attack):
    _, _, y, targets = batch
    plain = attack("l2", y, np.inf, targets)
    np.testing.assert_array_equal(attack("l2", y, np.inf, targets, seed=1).images, plain.images)
    for other in (
        attack("l2", (y + 1) % 7, np.inf, targets),
        attack("l2", y, np.inf, (targets + 1) % 7),
        attack("l2", y, np.inf, targets, eta=1.2),
    ):
        assert bool(jnp.any(other.distance != plain.distance))


def test_restarts_only_come_nearer_and_batches_do_not_matter(data, batch):
    p = {k: jnp.asarray(data[f"model/{k}"], jnp.float32) for k in ("w1", "b1", "w2", "b2")}

    def logits_fn(x):  # a rugged boundary
        hidden = jnp.tanh(6 * ((x - 0.5).reshape(len(x), -1) @ p["w1"]) + p["b1"][None])
        return hidden @ p["w2"] + p["b2"][None]

    x = batch[1]
    y = jnp.argmax(logits_fn(x), -1)

    targets = jnp.argsort(logits_fn(x), axis=1)[:, -2]

    @jax.jit
    def attack(keys, x, y, targets, eps):
        return fab(
            logits_fn, keys, x, y, norm="linf", eps=eps, targets=targets, steps=10, restarts=4
        )

    keys = jax.random.split(jax.random.key(0), len(x))
    once = attack(keys, x, y, targets, 0.0)  # noise has half of eps at most: four equal runs
    more = attack(keys, x, y, targets, jnp.inf)
    assert bool(jnp.all(more.distance <= once.distance * (1 + 1e-6)))
    assert bool(jnp.any(more.distance < once.distance * 0.9))
    np.testing.assert_allclose(size(more.images - x, "linf"), more.distance, rtol=1e-5)
    assert bool(jnp.all(jnp.argmax(logits_fn(more.images), -1) != y))
    for order in (np.random.default_rng(0).permutation(len(x)), np.arange(len(x)) // 4):
        other = attack(*(a[order] for a in (keys, x, y, targets)), jnp.inf)
        np.testing.assert_array_equal(other.images, more.images[order])


@pytest.mark.parametrize("norm", NORMS)
def test_noise_has_norm_one(key, norm):
    noise = _fab._direction(key, jnp.zeros((3, 4, 2)), norm)
    np.testing.assert_allclose(size(noise[None], norm), 1, rtol=1e-5)


def broken(x, model):
    x = x.astype(jnp.bfloat16)  # half precision is one more way to be broken
    flat = x.reshape(len(x), -1)[:, :3]
    return jax.lax.switch(
        model,
        [
            lambda: flat * jnp.nan,
            lambda: jnp.sqrt(flat * 0) + x[:, 0, 0, :1],  # only the gradient is NaN
            lambda: jnp.zeros_like(flat),
            lambda: 1e30 * flat,
            lambda: 3e38 * (flat * 10),
        ],
    )


@pytest.mark.parametrize(("norm", "targets"), [("linf", None), ("l2", [2]), ("l1", None)])
def test_bad_models_cannot_break_the_ball_or_the_box(key, norm, targets):
    x = jnp.asarray(np.random.default_rng(0).random((1, 3, 5, 1)), jnp.float32).at[0, 0].set(0)
    y = jnp.array([1])

    @jax.jit
    def attack(key, x, model):
        return fab(
            lambda x: broken(x, model), key, x, y, norm=norm, eps=0.3, targets=targets, steps=3
        )

    for model in range(5):
        attacked = attack(key, x, model)
        assert attacked.images.dtype == attacked.loss.dtype == jnp.float32
        assert bool(jnp.all((attacked.images >= 0) & (attacked.images <= 1)))
        assert size(attacked.images - x, norm).max() <= 0.3 * (1 + 1e-6)
        assert bool(jnp.all(jnp.isfinite(attacked.perturbation)))
        assert bool(jnp.all(attacked.distance >= 0))


def test_a_pixel_without_a_gradient_does_not_stop_the_attack(key):
    def logits_fn(x):
        first, second = x[:, 0, 0], x[:, 0, 1]
        return jnp.concatenate([first - 0.5 + jnp.sqrt(0 * second), 0 * first, -first], 1)

    @jax.jit
    def attack(x):
        arguments = (logits_fn, key, x, jnp.array([0]))
        settings = {"norm": "l2", "eps": 0.2, "steps": 3}
        targeted = fab(*arguments, **settings, targets=jnp.array([1]))
        return targeted.distance, fab(*arguments, **settings).distance

    for distance in attack(jnp.full((1, 2, 2, 1), 0.6)):
        np.testing.assert_allclose(distance, 0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm": "l3"}, "norm must be"),
        ({"eps": -0.1}, "eps must be at least 0"),
        ({"eps": np.nan}, "eps must be at least 0"),
        ({"eps": np.ones(3)}, "eps must be one number or one per example"),
        ({"steps": 0}, "steps must be"),
        ({"restarts": 0}, "restarts must be"),
    ],
)
def test_bad_arguments(batch, key, wrong, message):
    logits_fn, x, y, _ = batch
    with pytest.raises(ValueError, match=message):
        fab(logits_fn, key, x, y, **({"norm": "linf", "eps": 0.1} | wrong))
