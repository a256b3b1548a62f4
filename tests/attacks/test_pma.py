"""PMA against its authors' code in float64: loss, schedule, every visited point; its own laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, losses
from jaxrobust.attacks import _pma
from tests.tiny import tiny_logits, tiny_params

TIES = 2  # the first rows of the golden losses


def test_the_probability_margin_is_the_authors(float64, golden):
    data = golden("pma_public")
    logits, labels = data["loss.logits"], jnp.asarray(data["loss.labels"])
    found = losses.probability_margin(jnp.asarray(logits), labels)
    np.testing.assert_allclose(found, data["loss.value"], atol=1e-12)
    total = jax.grad(lambda z: losses.probability_margin(z, labels).sum())
    grads = np.asarray(total(jnp.asarray(logits)))
    np.testing.assert_allclose(grads[TIES:], data["loss.grad"][TIES:], atol=1e-12)
    assert np.isfinite(grads).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_probability_margin_is_finite_at_extremes(dtype):
    logits = jnp.asarray([[300.0, -300.0, 0.0], [-300.0, 300.0, 0.0], [0.0, 0.0, 0.0]], dtype)
    labels = jnp.zeros(3, int)
    value, grad = jax.value_and_grad(lambda z: losses.probability_margin(z, labels).sum())(logits)
    np.testing.assert_allclose(losses.probability_margin(logits, labels), [-1, 1, 0], atol=1e-6)
    assert np.isfinite(np.asarray(grad, np.float32)).all()
    assert value.dtype == jnp.float32
    sure = losses.probability_margin(jnp.log(jnp.asarray([[0.5, 0.2, 0.3]] * 2)), labels[:2])
    np.testing.assert_allclose(sure, -0.2, atol=1e-6)
    with pytest.raises(ValueError, match=r"k >= 2"):
        losses.probability_margin(jnp.zeros((3, 1)), labels)


@pytest.mark.parametrize("steps", [100, 10, 7])
def test_the_schedule_is_the_authors(float64, golden, steps):
    expected = golden("pma_public")[f"schedule.{steps}.step_size_over_eps"]
    found = [_pma.step_size(index, steps, jnp.float64) for index in range(steps)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.fixture
def recorded(golden):
    """The recorded run in float64: the network, images, labels, starts and what was visited."""
    data = golden("pma_public")
    params = tiny_params(golden("at_public_core"))
    params = {k: v.astype(jnp.float64) for k, v in params.items()}
    images = data["x_u8"].astype(np.float64) / 255
    starts = data["run.noise"] * data["run.eps"]
    return lambda x: tiny_logits(params, x)[0], images, data["labels"], starts, data


def test_every_visited_point_is_the_authors(float64, recorded):
    network, images, labels, starts, data = recorded
    steps, eps = int(data["run.steps"]), float(data["run.eps"])
    problem = _pma.problem_of(network, jnp.asarray(images), jnp.asarray(labels), eps=eps, steps=steps)  # fmt: skip
    state, seen = jax.jit(lambda: _pma.pma_begin(problem))(), 0
    step = jax.jit(lambda x, state, index, run: _pma.pma_step(problem, x, state, index, run))
    last = jax.jit(
        lambda x, state: _pma.pma_run(problem._replace(steps=0), state, None, 0, start=x)
    )
    for run in range(2):
        x = jnp.asarray(images + starts[run])
        for index in range(steps):
            known = ~np.isnan(data["run.visited"][run, index]).any((1, 2, 3))
            np.testing.assert_array_equal(np.asarray(state.success) & known, False)
            np.testing.assert_allclose(x[known], data["run.visited"][run, index][known], atol=1e-9)
            seen += known.sum()
            x, state = step(x, state, index, run)
        state = last(x - images, state)
    assert seen > 50
    np.testing.assert_array_equal(~np.asarray(state.success), data["run.still_correct"])


def test_the_whole_run_is_the_authors(float64, recorded):
    network, images, labels, starts, data = recorded
    options = {"eps": float(data["run.eps"]), "steps": int(data["run.steps"])}
    found = jax.jit(
        lambda start: attacks.pma(
            network, jax.random.key(0), images, labels, start=start, **options
        )
    )(starts)
    np.testing.assert_array_equal(~np.asarray(found.success), data["run.still_correct"])
    np.testing.assert_allclose(found.images, data["run.images"], atol=1e-7)


def test_a_start_outside_of_the_box_does_not_count():
    """The network errs outside of [0, 1] alone."""

    def network(x):
        return jnp.stack([0.5 - jnp.maximum(jnp.abs(x - 0.5).max((1, 2, 3)), 0.5), -x[:, 0, 0, 0] * 1e-9], -1)  # fmt: skip

    images = jnp.full((2, 3, 3, 1), 0.95)
    start = jnp.full((2, 2, 3, 3, 1), 0.1)
    found = attacks.pma(network, jax.random.key(0), images, jnp.zeros(2, int), eps=0.1, steps=4, start=start)  # fmt: skip
    assert np.asarray(found.images).max() <= 1
    wrong = np.asarray(network(found.images).argmax(-1)) != 0
    np.testing.assert_array_equal(found.success, wrong)


def test_a_linear_network_falls_at_its_radius_and_at_no_smaller_one(key):
    weights = jax.random.normal(jax.random.key(1), (16,))
    images = jax.random.uniform(jax.random.key(2), (8, 4, 4, 1), minval=0.3, maxval=0.7)

    def network(x):
        score = x.reshape(len(x), -1) @ weights
        return jnp.stack([score, -score], -1)

    labels = np.asarray(network(images).argmax(-1))
    lead = np.abs(np.asarray(images.reshape(8, -1) @ weights)) / np.abs(weights).sum()
    for factor, expected in ((1.02, True), (0.98, False)):
        found = attacks.pma(network, key, images, labels, eps=jnp.asarray(factor * lead), steps=20)
        assert (np.asarray(found.success) == expected).all(), factor
    moved = np.abs(np.asarray(found.images - images)).max((1, 2, 3))
    assert (moved <= 0.98 * lead + 1e-6).all()


def test_clean_errors_are_successes_and_passes_are_counted(key):
    images = jnp.full((3, 4, 4, 1), 0.5)

    def network(x):
        return (x.mean((1, 2)) - 0.5) @ jnp.array([[1.0, -1.0]]) + jnp.array([[0.01, 0.0]])

    found = attacks.pma(network, key, images, jnp.array([1, 0, 0]), eps=jnp.array([0.1, 0.0, 0.1]), steps=6)  # fmt: skip
    assert found.success.tolist() == [True, False, True]
    assert (found.images[:2] == images[:2]).all()
    assert found.queries.tolist()[:2] == [1, 15]
    assert found.backwards.tolist()[:2] == [0, 12]
    assert found.queries[2] < 10
