"""APGD: laws that hold for any model. Options: `test_apgd_options.py`; recorded runs:
`test_apgd_golden.py`."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import losses
from jaxrobust.attacks._apgd import apgd

NORMS = ["linf", "l2", "l1"]
EPS = {"linf": 0.1, "l2": 0.4, "l1": 1.0}
SHAPE = (5, 4, 2)
WEIGHTS = np.random.default_rng(0).standard_normal((*SHAPE, 4)).astype(np.float32)
KEYS = jax.vmap(jax.random.key)(jnp.arange(6))


def linear(x, weights=WEIGHTS):
    """Summed in an order that no batch size changes."""
    return jnp.sum(x[..., None] * jnp.asarray(weights, x.dtype)[None], (1, 2, 3))


def curved(x, weights=WEIGHTS, bend=1.0):
    return linear(x + bend * jnp.sin(7 * x), weights)


def batch(shape=SHAPE, size=6, walls=False):
    images = jax.random.uniform(jax.random.key(1), (size, *shape))
    if walls:
        images = jnp.where(images < 0.3, 0.0, jnp.where(images > 0.8, 1.0, images))
    else:
        images = 0.35 + 0.3 * images
    return images, jnp.arange(1, size + 1) % 4


def wrong(logits, labels):
    return np.asarray((jnp.argmax(logits, -1) != labels) | jnp.isnan(logits).any(-1))


@functools.cache
def attack_with(norm):
    """An attack with everything traced that can be, compiled once for several tests."""
    chex.clear_trace_counter()  # it counts by name

    @jax.jit
    @chex.assert_max_traces(n=1)
    def attack(keys, images, labels, eps, targets, weights, bend, margin):
        def loss(logits, labels):
            targeted = losses.dlr_targeted(logits, labels, targets)
            return jnp.where(margin, losses.margin(logits, labels), targeted)

        return apgd(
            lambda x: curved(x, weights, bend), keys, images, labels,
            norm=norm, eps=eps, loss=loss, steps=40,
        )  # fmt: skip

    def call(keys, images, labels, eps, targets=None, weights=WEIGHTS, bend=1.0, margin=True):
        targets = (labels + 1) % 4 if targets is None else targets
        eps = jnp.broadcast_to(jnp.asarray(eps, jnp.float32), 6)
        scalars = jnp.float32(bend), jnp.asarray(margin)
        return attack(keys, images, labels, eps, targets, jnp.asarray(weights), *scalars)

    return call


def assert_inside(images, clean, norm, eps):
    """In the box, and in the ball to the rounding that float32 images allow."""
    assert images.min() >= 0
    assert images.max() <= 1
    moved = (np.asarray(images, np.float64) - np.asarray(clean, np.float64)).reshape(len(clean), -1)
    eps = np.asarray(eps, np.float64)
    if norm == "linf":
        assert (np.abs(moved).max(1) <= eps + 1e-7).all()
    elif norm == "l2":
        assert (np.linalg.norm(moved, axis=1) <= eps * (1 + 1e-6)).all()
    else:
        assert (np.abs(moved).sum(1) <= eps * (1 + 1e-5) + 1e-6).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_model_is_attacked_to_its_known_worst_point(norm):
    # The largest are equal: l_1 steps move several values alike and cannot tell which is best.
    w = np.clip(WEIGHTS[..., 0], -1.5, 1.5)
    two_classes = np.stack([w, -w, 0 * w, 0 * w], -1)
    images, eps = batch()[0], {"linf": 0.05, "l2": 0.2, "l1": 0.2}[norm]
    labels = jnp.argmax(linear(images, two_classes), -1)
    attacked = attack_with(norm)(KEYS, images, labels, eps, weights=two_classes, bend=0)
    margin = losses.margin(linear(images, two_classes), labels)
    # The other of the two classes is also the nearest: its margin grows twice as fast.
    size = {"linf": np.abs(w).sum(), "l2": np.linalg.norm(w), "l1": np.abs(w).max()}[norm]
    score = -jnp.abs(linear(images, two_classes)[:, 0])
    worst = jnp.maximum(2 * (score + eps * size), score + eps * size)
    np.testing.assert_allclose(attacked.loss, worst, rtol=1e-4)
    np.testing.assert_array_equal(attacked.success, worst > 0)
    assert (worst > margin).all()


@pytest.mark.parametrize("norm", NORMS)
def test_images_stay_inside_for_any_logits(norm):
    images, labels = batch(walls=True)
    eps = EPS[norm] * jnp.array([0.0, 0.01, 0.1, 0.5, 1.0, 2.0])
    for scale in (1.0, 0.0, 1e6, -1e30, np.inf, np.nan):
        weights = WEIGHTS * np.float32(scale)
        attacked = attack_with(norm)(KEYS, images, labels, eps, weights=weights)
        assert_inside(attacked.images, images, norm, eps)
        np.testing.assert_array_equal(
            attacked.success, wrong(curved(attacked.images, weights), labels)
        )
        kept = np.asarray(attacked.images == images).all((1, 2, 3))
        assert kept[~np.asarray(attacked.success)].all(), "not fooled, yet not the clean image"
        assert kept[0], "a radius of 0 returns the input bit for bit"
        assert np.isnan(scale) or not np.isnan(attacked.loss).any() or scale == np.inf


@pytest.mark.parametrize("norm", NORMS)
def test_results_depend_on_neither_order_nor_company(norm):
    images, labels = batch()
    eps = jnp.linspace(0.5, 1, 6) * EPS[norm]
    whole = attack_with(norm)(KEYS, images, labels, eps)
    for chosen in (jnp.array([4, 1, 1, 1, 4, 4]), jnp.array([5, 3, 0, 1, 4, 2])):
        part = attack_with(norm)(KEYS[chosen], images[chosen], labels[chosen], eps[chosen])
        chex.assert_trees_all_equal(part, jax.tree.map(lambda leaf, c=chosen: leaf[c], whole))
    other = attack_with(norm)(KEYS[::-1], images, labels, eps)
    assert (other.loss != whole.loss).any(), "the key has no effect"


def test_results_depend_on_no_batch_size():
    """On a linear model, whose gradients no order of summation changes."""
    images, labels = batch()
    whole = attack_with("linf")(KEYS, images, labels, 0.07, bend=0)
    chosen = jnp.array([4, 1])
    part = jax.jit(
        lambda i: apgd(
            linear, KEYS[i], images[i], labels[i], norm="linf", eps=0.07, loss="margin", steps=40
        )
    )(chosen)
    np.testing.assert_array_equal(part.success, whole.success[chosen])
    np.testing.assert_allclose(part.loss, whole.loss[chosen], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(part.images, whole.images[chosen], atol=1e-6)


def test_a_sweep_is_traced_once():
    """The wrapper of `attack_with` raises at a second trace."""
    images, labels = batch()
    results = [
        attack_with("l1")(
            KEYS[::-1], images, (labels + i) % 4, 0.1 * i, targets=(labels + j) % 4, margin=False
        )
        for i, j in ((1, 0), (2, 1), (2, 3))
    ]
    assert len({float(result.loss.sum()) for result in results}) == 3


def test_rounding_stays_inside_small_balls_of_large_images(key):
    images, labels = batch((32, 30, 3), 4, walls=True)
    eps = jnp.array([1e-3, 1e-2, 0.1, 1.0])

    def never_right(x):
        return jnp.stack([jnp.zeros(len(x)), x.sum((1, 2, 3))], 1)

    attack = jax.jit(
        lambda eps: apgd(never_right, key, images, 0 * labels, norm="l1", eps=eps, steps=3)
    )
    attacked = attack(eps)
    assert attacked.success.all()
    assert_inside(attacked.images, images, "l1", eps)
    assert (np.abs(attacked.images - images).max((1, 2, 3)) > 0).all()


def test_one_gray_image_and_no_image(key):
    def logits_fn(x):
        return linear(x, WEIGHTS[:, :, :1])

    images, labels = batch((5, 4, 1), 1)
    options = {"norm": "l1", "eps": 0.5, "steps": 10, "eps_schedule": True}
    attacked = jax.jit(lambda x: apgd(logits_fn, key, x, labels, restarts=2, **options))(images)
    assert attacked.images.shape == images.shape
    assert_inside(attacked.images, images, "l1", 0.5)
    nothing = apgd(logits_fn, key, images[:0], labels[:0], restarts=2, **options)
    chex.assert_shape(nothing.images, (0, 5, 4, 1))
    chex.assert_shape([nothing.success, nothing.loss], (0,))


def test_half_precision_images_stay_inside(key):
    images = batch(walls=True)[0].astype(jnp.bfloat16)
    labels = jnp.argmax(linear(images), -1)
    attacked = jax.jit(
        lambda images: apgd(linear, key, images, labels, norm="l2", eps=0.4, steps=20)
    )(images)
    assert attacked.images.dtype == jnp.bfloat16
    assert_inside(attacked.images.astype(jnp.float32), images.astype(jnp.float32), "l2", 0.4)
    np.testing.assert_array_equal(attacked.success, wrong(linear(attacked.images), labels))
    assert attacked.success.any()


def test_each_example_keeps_its_first_success(key):
    images, _ = batch(size=16)
    labels = jnp.argmax(curved(images), -1)
    noise = jax.random.uniform(key, (3, *images.shape), minval=-1)
    options = {"norm": "linf", "eps": 0.1, "steps": 0, "loss": "margin"}
    one = jax.jit(lambda noise: apgd(curved, key, images, labels, noise=noise, **options))
    runs = [one(draw) for draw in noise]
    together = jax.jit(
        lambda noise: apgd(curved, key, images, labels, noise=noise, restarts=3, **options)
    )(noise)
    found = np.stack([run.success for run in runs])
    assert (found.any(0) & ~found[0]).any(), "no example needs a second run"
    assert (~found.any(0)).any(), "no example survives"
    first = found.argmax(0)
    for i in range(16):
        image, loss = images[i], max(run.loss[i] for run in runs)
        if found[:, i].any():
            image, loss = runs[first[i]].images[i], runs[first[i]].loss[i]
        np.testing.assert_allclose(together.images[i], image, atol=1e-6)
        np.testing.assert_allclose(together.loss[i], loss, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(together.success, found.any(0))


def test_a_start_is_brought_into_the_ball(key):
    images, _ = batch()
    labels = (jnp.argmax(linear(images), -1) + 1) % 4
    attack = jax.jit(
        lambda start: apgd(linear, key, images, labels, norm="l2", eps=0.05, steps=0, start=start)
    )
    attacked = attack(jnp.full_like(images, 5.0))
    assert attacked.success.any()
    assert_inside(attacked.images, images, "l2", 0.05)
    assert (attacked.images > images)[attacked.success].all()
