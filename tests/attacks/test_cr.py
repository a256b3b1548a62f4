"""CR against its authors' code in float64, with the recorded noise: every point, every decision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks
from jaxrobust.attacks import _cr
from tests.evaluation.test_autoattack import conv_net


@pytest.fixture
def recorded(golden):
    """The recorded run: the network in float64, the problem, and what was recorded."""
    data, model = golden("cr_public"), golden("digits_robust")
    params = {k: jnp.asarray(v, jnp.float64) for k, v in model.items() if k.endswith(("kernel", "bias"))}  # fmt: skip
    images = model["x"][data["index"]].astype(np.float64)
    names = {"steps": "max_iter", "period": "decay_steps", "targets": "target_numbers", "restarts": "restart"}  # fmt: skip
    plan = _cr.plan_of(**{ours: int(data[theirs]) for ours, theirs in names.items()})
    problem = _cr.problem_of(
        lambda x: conv_net(params, x), jnp.asarray(images), jnp.asarray(data["labels"]),
        eps=float(data["eps"]), plan=plan,
    )  # fmt: skip
    return problem, plan, data


def noise(data, name, *places):
    """The recorded noise of every example, each at a place of its own."""
    array = data[name].astype(np.float64)
    each = [array[(*(p[b] for p in places), b)] for b in range(array.shape[len(places)])]
    return jnp.asarray(np.stack(each))


def test_every_point_and_decision_is_the_authors(float64, recorded):
    problem, plan, data = recorded
    start = jnp.asarray(data["noise_pgd"], jnp.float64)
    # The walk, step by step, beside the whole of it.
    state = jax.jit(lambda: _cr.cr_begin(problem, start))()
    walk = jax.jit(lambda state, index: _cr.cr_walk(problem, state, index))
    walked = state._replace(
        x=_cr._noisy(problem, problem.images, start, problem.eps),
        success=jnp.zeros(6, bool), left=jnp.zeros(6, bool), queries=jnp.zeros(6, jnp.int32),
    )  # fmt: skip
    for index, points in enumerate(data["pgd_visited"]):
        known = ~np.isnan(points).any((1, 2, 3))
        np.testing.assert_array_equal(~np.asarray(walked.success) | ~known, True)
        np.testing.assert_allclose(np.asarray(walked.x)[known], points[known], atol=1e-14)
        walked = walk(walked, index)
    left = ~np.asarray(state.success)
    np.testing.assert_allclose(np.asarray(state.x)[left], data["pgd_images"][left], atol=1e-14)
    np.testing.assert_array_equal(np.asarray(state.order)[left], data["target_order"][left])

    point = jax.jit(lambda *args: _cr.cr_point(problem, *args))
    step = jax.jit(lambda *args: _cr.cr_step(problem, *args))
    period = jax.jit(lambda *args: _cr.cr_period(problem, *args))
    seen = np.full_like(data["visited"], np.nan)
    potential = np.zeros_like(data["potential"])
    while not np.asarray(_cr.cr_done(plan, state)).all():
        done = np.asarray(_cr.cr_done(plan, state))
        call, target, number = (
            np.asarray(leaf) for leaf in (state.call, state.target, state.period)
        )
        call = np.minimum(call, plan.restarts - 1)
        starts = noise(data, "noise_start", call, target)
        middles = noise(data, "noise_middle", call, target, number)
        first = _cr._noisy(problem, problem.images, starts, problem.eps)
        one = state._replace(x=jnp.where((number == 0)[:, None, None, None] & ~done[:, None, None, None], first, state.x))  # fmt: skip
        for place in range(plan.period):
            going = np.flatnonzero(np.asarray(_cr.going(plan, one, place)))
            one = point(one, place, middles)
            steps = number * plan.period + place
            for b in going:
                seen[call[b], target[b], steps[b], b] = one.x[b]
                np.testing.assert_array_equal(_cr.scale(one.period, jnp.float64)[b], data["scale"][steps[b]])  # fmt: skip
            one = step(one, place)
        for b in np.flatnonzero(~done):
            potential[call[b], target[b], b] = np.asarray(one.near)[b, target[b]]
        state = period(state, starts, middles)
        np.testing.assert_array_equal(state.success, one.success)
    np.testing.assert_array_equal(np.isnan(seen), np.isnan(data["visited"]))
    np.testing.assert_allclose(seen, data["visited"], rtol=0, atol=1e-14)
    np.testing.assert_array_equal(potential, data["potential"])
    found = _cr.cr_end(problem.clean, state)
    np.testing.assert_array_equal(found.success, data["success"])
    clean_errors = np.asarray(found.queries) == 1  # theirs are looked at with noise alone
    assert clean_errors.sum() == 1
    fooled = np.asarray(found.success) & ~clean_errors
    np.testing.assert_allclose(np.asarray(found.images)[fooled], data["images"][fooled], atol=1e-14)
    assert (np.asarray(found.queries) <= data["forwards"] + 1).all()
    assert (np.asarray(found.backwards) <= data["backwards"] + 1).all()
    assert np.asarray(found.backwards)[left].tolist() == data["backwards"][left].tolist()


def test_the_published_schedule(float64, golden):
    data = golden("cr_public")
    plan = _cr.plan_of(steps=150, period=30, targets=3, restarts=5)
    sizes = np.asarray(_cr.scale(jnp.arange(plan.periods), jnp.float64))
    np.testing.assert_array_equal(np.repeat(sizes, 30), data["published.scale"])
    relaxed = np.tile(np.arange(30) < plan.relaxed, 5)
    np.testing.assert_allclose(
        1 + np.repeat(sizes, 30) * relaxed, data["published.radius_over_eps"]
    )


def test_an_example_does_not_depend_on_its_batch(key):
    weights = jax.random.normal(jax.random.key(1), (16, 5))
    images = jax.random.uniform(jax.random.key(2), (12, 4, 4, 1))

    def network(x):
        return 3 * jnp.tanh(x.reshape(len(x), -1) @ weights)

    labels, keys = np.asarray(network(images).argmax(-1)), jax.random.split(key, 12)
    options = {"eps": 0.06, "steps": 12, "period": 6, "restarts": 2}
    call = jax.jit(
        lambda keys, images, labels: attacks.cr(network, keys, images, labels, **options)
    )
    whole, rows = call(keys, images, labels), np.array([7, 2, 9])
    few = call(keys[rows], images[rows], labels[rows])
    for name in ("images", "success", "queries", "backwards"):
        np.testing.assert_array_equal(getattr(few, name), np.asarray(getattr(whole, name))[rows])
    assert 0 < np.asarray(whole.success).sum() < 12
    moved = np.abs(np.asarray(whole.images - images))
    assert moved.max() <= 0.06 + 1e-7
    wrong = np.asarray(network(whole.images).argmax(-1)) != labels
    np.testing.assert_array_equal(whole.success, wrong)


def test_clean_errors_cost_one_pass_and_no_radius_moves_nothing(key):
    def network(x):
        return (x.mean((1, 2)) - 0.5) @ jnp.array([[1.0, -1.0]]) + jnp.array([[0.01, 0.0]])

    images, labels = jnp.full((3, 4, 4, 1), 0.5), jnp.array([1, 0, 0])
    found = attacks.cr(network, key, images, labels, eps=jnp.array([0.1, 0.0, 0.1]), steps=6, period=3)  # fmt: skip
    assert found.success.tolist() == [True, False, True]
    assert (found.images[:2] == images[:2]).all()
    assert (found.queries[0], found.backwards[0]) == (1, 0)
    with pytest.raises(ValueError, match="period must be an integer of at least 3, got 2"):
        attacks.cr(network, key, images, labels, eps=0.1, period=2)
