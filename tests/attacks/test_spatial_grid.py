"""Attacks on rotations and translations: the grid, random draws, gradients, with l_inf inside."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, losses, threats
from jaxrobust.attacks._spatial_grid import grid
from tests.models.quick import quick

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(7 * 6 * 2, 3)).astype(np.float32)
SPATIAL = threats.spatial(30.0, 2.0)
COUNTS = (3, 2, 5)


def linear(x):
    return 2 * x.reshape(len(x), -1) @ jnp.asarray(WEIGHTS)


def batch(key, size=6):
    images = jax.random.uniform(key, (size, 7, 6, 2))
    return images, jnp.arange(size) % 3


def run(attack, key, size=6, logits_fn=linear, **options):
    images, labels = batch(key, size)

    def attacked(key, images, labels, threat):
        return attack(logits_fn, key, images, labels, threat=threat, **options)

    threat = options.pop("threat", SPATIAL)
    return quick(attacked)(key, images, labels, threat)


spatial_grid = functools.partial(run, attacks.spatial_grid, counts=COUNTS)
worst_of_k = functools.partial(run, attacks.worst_of_k, k=7)


def test_the_default_grid_is_the_papers():
    points = grid((5, 5, 31))
    assert points.shape == (775, 3)
    assert (np.abs(points).max(0) == 1).all()
    assert (points == 0).all(1).any()
    np.testing.assert_allclose(points[1] - points[0], [0, 0, 2 / 30], atol=1e-12)
    assert (grid((1, 1, 2)) == [[0, 0, -1], [0, 0, 1]]).all()


@functools.cache
def every_point():
    """Loss and error of each example at each point, one by one; the untouched image first."""
    images, labels = batch(jax.random.key(0))
    points = [(0.0, 0.0, 0.0)]
    for right, down, angle in itertools.product((-2, 0, 2), (-2, 2), (-30, -15, 0, 15, 30)):
        points.append((right, down, angle))

    @quick
    @jax.vmap
    def move(point):
        def one(image):
            return threats.rotate_translate(image, point[2], point[:2], padding="zeros")

        logits = linear(jax.vmap(one)(images))
        return losses.cross_entropy(logits, labels), logits.argmax(1) != labels

    return np.array(points), *map(np.asarray, move(jnp.array(points)))


@pytest.mark.parametrize("chunk", [1, 7])
def test_the_grid_finds_what_trying_every_point_finds(chunk, key):
    points, values, wrong = every_point()
    rank = np.where(wrong, 1e6, 0) + values
    best = rank.argmax(0)
    attacked = spatial_grid(key, chunk=chunk)
    np.testing.assert_allclose(attacked.loss, values[best, range(6)], rtol=1e-4)
    np.testing.assert_array_equal(attacked.success, wrong.any(0))
    np.testing.assert_allclose(attacked.perturbation.degrees, points[best, 2], atol=1e-4)
    np.testing.assert_allclose(attacked.perturbation.shift_px, points[best, :2], atol=1e-6)
    assert len(set(best)) > 2, "examples have different worst points"
    assert not wrong[0].all()


def test_a_wrong_answer_beats_a_higher_loss(key):
    """The loss prefers one side, the error is on the other."""
    images = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1].set(1)

    def logits_fn(x):
        return jnp.stack([jnp.ones(len(x)), 1.5 * x[:, 1, 0, 0]], -1)

    def right_is_worse(logits, labels):
        return -logits[:, 1]

    attacked = attacks.spatial_grid(
        logits_fn, key, images, jnp.array([0]),
        threat=threats.spatial(0, 1), loss=right_is_worse, counts=(3, 1, 1),
    )  # fmt: skip
    assert attacked.success.all()
    assert attacked.perturbation.shift_px.tolist() == [[-1, 0]]


@pytest.mark.parametrize("attack", [spatial_grid, worst_of_k])
def test_zero_limits_return_the_input_bit_for_bit(attack, key):
    attacked = attack(key, threat=threats.spatial(0.0, 0.0))
    images, labels = batch(key)
    assert (attacked.images == images).all()
    assert (attacked.success == (linear(images).argmax(1) != labels)).all()
    mixed = attack(key, threat=threats.spatial(jnp.array([0, 30.0] * 3), jnp.array([0, 2.0] * 3)))
    assert (mixed.images[::2] == images[::2]).all()
    assert (mixed.images[1::2] != images[1::2]).any((1, 2, 3)).all()
    full = attack(key)
    np.testing.assert_allclose(mixed.images[1::2], full.images[1::2], atol=1e-6)


@pytest.mark.parametrize("kind", ["nan", "constant", "saturated"])
@pytest.mark.parametrize("attack", [spatial_grid, worst_of_k])
def test_images_stay_inside_for_any_logits(attack, kind, key):
    def logits_fn(x):
        z = linear(x)
        return {"nan": z * jnp.nan, "constant": 0 * z, "saturated": z * 1e6}[kind]

    attacked = attack(key, logits_fn=logits_fn)
    assert np.isfinite(attacked.images).all()
    assert attacked.images.min() >= 0
    assert attacked.images.max() <= 1
    assert (jnp.abs(attacked.perturbation.degrees) <= 30).all()
    assert (jnp.abs(attacked.perturbation.shift_px) <= 2).all()
    if kind != "saturated":
        images, labels = batch(key)
        assert (attacked.images == images).all()
        assert (attacked.success == ((labels != 0) | (kind == "nan"))).all()


def test_the_result_describes_the_returned_images(key):
    for attack in (spatial_grid, worst_of_k):
        attacked = attack(key)
        images, labels = batch(key)
        moved = quick(threats.batched(SPATIAL, 6).apply)(attacked.perturbation, images)
        np.testing.assert_allclose(attacked.images, moved, atol=1e-6)
        logits = linear(attacked.images)
        np.testing.assert_array_equal(attacked.success, logits.argmax(1) != labels)
        np.testing.assert_allclose(attacked.loss, losses.cross_entropy(logits, labels), rtol=1e-4)
        clean = linear(images).argmax(1) != labels
        assert (attacked.success >= clean).all()


def test_more_draws_never_lose_and_the_first_are_the_same(key):
    few, many = (worst_of_k(key, size=24, k=k, clean=False) for k in (2, 9))
    assert (many.success >= few.success).all()
    same = many.success == few.success
    assert (many.loss >= few.loss)[same].all()
    kept = (many.perturbation.degrees == few.perturbation.degrees).mean()
    assert 0 < kept < 1
    chunked = worst_of_k(key, size=24, k=9, clean=False, chunk=4)
    chex.assert_trees_all_close(chunked, many, rtol=1e-4, atol=1e-5)


def test_without_the_clean_image_only_draws_count(key):
    """An unstable point: wrong as it is, right wherever it moves."""
    images = jnp.zeros((4, 5, 5, 1)).at[:, 2, 2].set(1)

    def logits_fn(x):
        return jnp.stack([jnp.full(len(x), 0.999), x[:, 2, 2, 0]], -1)

    threat, labels = threats.spatial(0, 2), jnp.zeros(4, int)
    worst, drawn = quick(
        lambda key: [
            attacks.worst_of_k(logits_fn, key, images, labels, threat=threat, clean=clean)
            for clean in (True, False)
        ]
    )(key)
    assert worst.success.all()
    assert not drawn.success.any()
    assert (drawn.images != images).any((1, 2, 3)).all()


def test_draws_do_not_depend_on_the_batch(key):
    images, labels = batch(key, 8)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(8))

    @quick
    def attack(keys, images, labels):
        worst = attacks.worst_of_k(linear, keys, images, labels, threat=SPATIAL, k=3)
        average = attacks.average_case(linear, keys, images, labels, threat=SPATIAL, draws=3)
        return worst, average

    whole = attack(keys, images, labels)
    some = jnp.array([6, 1, 3])
    part = attack(keys[some], images[some], labels[some])
    chex.assert_trees_all_close(part, jax.tree.map(lambda leaf: leaf[some], whole), rtol=1e-4)


def test_the_average_case_is_an_average(key):
    images, labels = batch(key, 8)
    average = run(attacks.average_case, key, size=8, draws=300)
    assert ((average.accuracy >= 0) & (average.accuracy <= 1)).all()
    assert 0 < average.accuracy.mean() < 1
    np.testing.assert_allclose(average.accuracy * 300, (average.accuracy * 300).round(), atol=1e-3)
    # The same by drawing with NumPy: equal to the noise of 300 + 300 draws.
    rng = np.random.default_rng(1)
    z = threats.Transform(
        jnp.asarray(rng.uniform(-30, 30, (300, 8)), jnp.float32),
        jnp.asarray(rng.uniform(-2, 2, (300, 8, 2)), jnp.float32),
    )
    verbs = threats.batched(SPATIAL, 8)
    logits = quick(jax.vmap(lambda z: linear(verbs.apply(z, images))))(z)
    right = np.asarray(logits.argmax(-1)) == np.asarray(labels)
    np.testing.assert_allclose(average.accuracy, right.mean(0), atol=0.13)
    changed = np.asarray(logits.argmax(-1)) != np.asarray(linear(images).argmax(-1))
    np.testing.assert_allclose(average.changed, changed.mean(0), atol=0.13)
    loss = losses.cross_entropy(logits, jnp.broadcast_to(labels, (300, 8)))
    np.testing.assert_allclose(average.loss.mean(), loss.mean(), rtol=0.1)
    still = run(attacks.average_case, key, size=8, draws=2, threat=threats.spatial(0, 0))
    np.testing.assert_array_equal(still.accuracy, linear(images).argmax(-1) == labels)
    assert (still.changed == 0).all()


# ----- with l_inf

EPS = 0.03
INNER = functools.partial(attacks.pgd, steps=4, step_size=0.02)


@pytest.mark.parametrize("order", ["spatial first", "linf first"])
@pytest.mark.parametrize("attack", [spatial_grid, worst_of_k])
def test_pixels_are_attacked_at_every_transform(attack, order, key):
    parts = (SPATIAL, threats.linf(EPS))
    threat = threats.compose(*(parts if order == "spatial first" else parts[::-1]))
    images, labels = batch(key)
    attacked = attack(key, threat=threat, inner=INNER, chunk=2)
    alone = attack(key)
    place = int(order == "linf first")
    transform, delta = attacked.perturbation[place], attacked.perturbation[1 - place]
    assert isinstance(transform, threats.Transform)
    assert (jnp.abs(transform.degrees) <= 30).all()
    assert jnp.abs(delta).max() <= EPS + 1e-7
    verbs = threats.batched(threat, 6)
    rebuilt = quick(verbs.apply)(attacked.perturbation, images)
    np.testing.assert_allclose(attacked.images, jnp.clip(rebuilt, 0, 1), atol=1e-5)
    logits = linear(attacked.images)
    np.testing.assert_array_equal(attacked.success, logits.argmax(1) != labels)
    assert (attacked.success >= alone.success).all()
    both = attacked.success == alone.success
    assert (attacked.loss - alone.loss > 0.1)[both].all(), "pixels add to the transform"


def test_per_example_limits_with_pixels(key):
    limits = jnp.array([0, 0, 0, 2.0, 2.0, 2.0])
    threat = threats.compose(threats.spatial(15 * limits, limits), threats.linf(limits / 100))
    attacked = spatial_grid(key, threat=threat, inner=INNER, chunk=3)
    assert (attacked.images[:3] == batch(key)[0][:3]).all()
    assert (attacked.images[3:] != batch(key)[0][3:]).any()


@pytest.mark.slow
def test_gradients_find_a_rotation(key):
    """First order: a bar turns towards the template of the other class, as far as it may."""
    bar = jnp.zeros((9, 9, 1)).at[4, 1:8].set(1)
    other = threats.rotate_translate(bar, 40.0, (0.0, 0.0))

    def logits_fn(x):
        return jnp.stack([jnp.asarray(3.0), jnp.vdot(other, x[0])])[None]

    @quick
    def turn(step_size):
        return attacks.pgd(
            logits_fn, key, bar[None], jnp.array([0]),
            threat=threats.spatial(20.0, 0.0), steps=12, step_size=step_size, keep="best",
        ).perturbation  # fmt: skip

    for step_size in (threats.Transform(4.0, 0.0), 0.2):
        z = turn(step_size)
        np.testing.assert_allclose(z.degrees, [20], atol=1e-4)
        assert (z.shift_px == 0).all()


def test_pgd_on_transforms_and_pixels_together(key):
    images, labels = batch(key)
    threat = threats.compose(SPATIAL, threats.linf(EPS))
    attack = functools.partial(run, attacks.pgd, keep="best", restarts=2, steps=6)
    both = attack(key, threat=threat, step_size=(threats.Transform(5.0, 0.4), 0.01))
    clean = losses.cross_entropy(linear(images), labels)
    assert both.loss.mean() > clean.mean() + 0.5
    assert (jnp.abs(both.perturbation[0].degrees) <= 30).all()
    assert jnp.abs(both.perturbation[1]).max() <= EPS
    zero = threats.compose(threats.spatial(0.0, 0.0), threats.linf(0.0))
    assert (attack(key, threat=zero, step_size=0.1).images == images).all()


def test_limits_may_be_swept_without_a_new_trace(key):
    images, labels = batch(key)

    @quick
    @chex.assert_max_traces(n=1)
    def attack(threat):
        return attacks.spatial_grid(linear, key, images, labels, threat=threat, counts=(1, 1, 3))

    worst = [attack(threats.spatial(d, 0.0)).loss.sum() for d in (0, 10, 180)]
    assert worst[0] < worst[1]
    assert worst[0] < worst[2]


def test_no_gradient_flows_through_an_attack(key):
    images, labels = batch(key)

    @quick
    @jax.grad
    def gradient(scale):
        found = attacks.spatial_grid(
            lambda x: scale * linear(x), key, images, labels, threat=SPATIAL, counts=(1, 1, 2)
        )
        return found.loss.sum() + found.images.sum() + found.perturbation.degrees.sum()

    assert gradient(1.0) == 0


def test_errors_name_the_argument(key):
    images, labels = batch(key)
    with pytest.raises(
        ValueError, match="threat must be threats.spatial.* got linf eps 0.1 with 0"
    ):
        attacks.spatial_grid(linear, key, images, labels, threat=threats.linf(0.1))
    both = threats.compose(SPATIAL, threats.linf(0.1))
    with pytest.raises(ValueError, match="inner must be given for a composed threat"):
        attacks.spatial_grid(linear, key, images, labels, threat=both)
    with pytest.raises(ValueError, match="2 spatial parts"):
        attacks.spatial_grid(linear, key, images, labels, threat=threats.compose(SPATIAL, SPATIAL))
    with pytest.raises(ValueError, match="inner needs a threat composed"):
        attacks.spatial_grid(linear, key, images, labels, threat=SPATIAL, inner=INNER)
    with pytest.raises(ValueError, match="angle must be an integer of at least 1, got 0"):
        attacks.spatial_grid(linear, key, images, labels, threat=SPATIAL, counts=(1, 1, 0))
    with pytest.raises(ValueError, match="counts must be .right, down, angle."):
        attacks.spatial_grid(linear, key, images, labels, threat=SPATIAL, counts=(5, 31))
    with pytest.raises(ValueError, match="chunk must be"):
        attacks.worst_of_k(linear, key, images, labels, threat=SPATIAL, chunk=0)
    with pytest.raises(ValueError, match="k must be an integer of at least 1, got 2.5"):
        attacks.worst_of_k(linear, key, images, labels, threat=SPATIAL, k=2.5)
    with pytest.raises(ValueError, match="draws must be"):
        attacks.average_case(linear, key, images, labels, threat=SPATIAL, draws=0)
