"""APGD: what its single options do, and bad ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import losses
from jaxrobust.attacks import _apgd, _apgd_run
from jaxrobust.attacks._apgd import apgd
from jaxrobust.attacks._apgd_l1 import ascending_at, radius_stages
from tests.attacks.test_apgd import KEYS, WEIGHTS, batch, curved, linear, wrong


def run_recorded(logits_fn, images, labels, *, start=None, **options):
    defaults = {"stochastic": False, "eps_schedule": False, "eot": 1, "unroll": 1}
    problem = _apgd._problem(logits_fn, images, labels, **(defaults | options))
    return jax.jit(lambda keys: _apgd_run.run(problem, keys, start=start, record=True))(KEYS)


def test_restarts_draw_new_noise_for_each_example():
    images, labels = batch()
    problem = _apgd._problem(
        linear, images, labels, norm="linf", eps=0.1, loss=losses.margin, steps=0,
        stochastic=False, eps_schedule=False, eot=1, unroll=1,
    )  # fmt: skip
    run = jax.jit(lambda number: _apgd_run.run(problem, KEYS, number=number)[0].x - images)
    first, second = run(0), run(1)
    assert (jnp.abs(first).max((1, 2, 3)) > 0.0999).all(), "the start touches the wall"
    assert (jnp.abs(first - second).max((1, 2, 3)) > 0.05).all()
    assert (jnp.abs(first[1:] - first[:-1]).max((1, 2, 3)) > 0.05).all()


def test_success_is_never_lost_and_the_latest_wrong_image_is_kept():
    """From a misclassified start the loss drives the search back to correct images."""
    images, _ = batch()
    labels = jnp.argmax(linear(images), -1)
    grads = jax.grad(lambda x: losses.margin(linear(x), labels).sum())(images)
    enough = -losses.margin(linear(images), labels) / jnp.sum(jnp.abs(grads), (1, 2, 3))
    eps = 1.5 * jnp.max(enough)
    state, record = run_recorded(
        linear, images, labels, norm="linf", eps=eps, steps=10, start=eps * jnp.sign(grads),
        loss=lambda logits, labels: -losses.margin(logits, labels),
    )  # fmt: skip
    visited = wrong(jax.vmap(linear)(record.x), labels[None])
    assert visited[0].all()
    assert not visited[-1].any()
    assert state.success.all()
    assert not record.correct.any()
    latest = 10 - visited[::-1].argmax(0)
    np.testing.assert_array_equal(state.adversarial, record.x[latest, jnp.arange(6)])


def test_radius_schedule():
    assert radius_stages(100) == [(3, 30), (2, 30), (1, 40)]
    assert radius_stages(30) == [(3, 9), (2, 9), (1, 12)]
    assert [n for _, n in radius_stages(11)] == [4, 4, 3]
    assert [[n for _, n in radius_stages(t)] for t in range(3)] == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    images, _ = batch()
    labels = jnp.argmax(linear(images), -1)
    w = jnp.asarray(WEIGHTS).reshape(-1, 4)
    gap = jnp.max(jnp.abs(w[:, :, None] - w[:, None, :]), 0)[labels]
    # The last radius can fool nobody, the first can.
    eps = 0.9 * jnp.min(-losses.margin(linear(images), labels) / gap.max(-1))
    state, record = run_recorded(
        linear, images, labels, norm="l1", eps=eps, steps=20, loss=losses.margin, eps_schedule=True
    )
    size = jnp.abs(record.x - images[None]).sum((2, 3, 4)) / eps
    assert len(size) == 20 + 3
    for stage, factor in ((slice(0, 7), 3), (slice(7, 14), 2), (slice(14, 23), 1)):
        assert size[stage].max() == pytest.approx(factor, rel=1e-4)
    assert not record.correct[6].all()
    assert not state.success.any(), "successes outside of the radius count"
    # A stage starts from the best point of the one before, shrunk.
    best = record.x[record.loss[:7].argmax(0), jnp.arange(6)] - images
    assert (jnp.abs(record.x[7] - images) <= jnp.abs(best) + 1e-6).all()


def test_averaged_gradients_and_the_verdict_of_the_last_pass():
    images, labels = batch()

    def noisy(x, keys):
        return curved(x) * jax.vmap(lambda key: jax.random.normal(key, (4,)))(keys)

    problem = _apgd._problem(
        noisy, images, labels, norm="linf", eps=0.1, loss=losses.cross_entropy, steps=5,
        stochastic=True, eps_schedule=False, eot=3, unroll=1,
    )  # fmt: skip
    seen = jax.jit(lambda x: _apgd_run._look(problem, KEYS, x))(images)

    def single(x, number):
        folded = jax.vmap(jax.random.fold_in, in_axes=(0, None))(KEYS, number)
        values = losses.cross_entropy(noisy(x, folded), labels)
        return values.sum(), values

    passes = jax.jit(jax.vmap(jax.grad(single, has_aux=True), in_axes=(None, 0)))
    grads, values = passes(images, jnp.arange(3))
    np.testing.assert_allclose(seen.grads, grads.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen.loss, values[2], rtol=1e-6)
    assert (np.abs(grads[0] - grads[1]) > 1e-2).any()
    attack = jax.jit(
        lambda i: apgd(
            noisy, KEYS[i], images[i], labels[i], norm="linf", eps=0.1, steps=5, eot=3,
            stochastic=True,
        )
    )  # fmt: skip
    order = jnp.array([3, 5, 0, 1, 4, 2])
    np.testing.assert_array_equal(attack(order).loss, attack(jnp.arange(6)).loss[order])


def test_no_gradient_flows_out_of_an_attack(key):
    images, labels = batch()

    @jax.jit
    def loss(scale):
        attacked = apgd(
            lambda x: curved(x) * scale, key, images, labels, norm="l2", eps=0.3, steps=3,
            restarts=2,
        )  # fmt: skip
        return (attacked.images**2).sum() + attacked.loss.sum() + scale

    assert jax.grad(loss)(2.0) == 1


def test_the_kth_of_nonnegative_values_is_found_exactly(float64):
    random = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        values = random.exponential(size=(7, 33)).astype(dtype) ** 3
        values[:2, ::3] = 0
        values[2] = 1.5
        values[3, 4] = np.finfo(dtype).max
        index = jnp.array([0, 11, 5, 32, 1, 20, 31])
        expected = np.sort(values)[np.arange(7), index]
        np.testing.assert_array_equal(ascending_at(jnp.asarray(values), index), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l3"}, "norm must be"),
        ({"eps": -0.1}, "eps must be"),
        ({"eps": 8.0}, "eps must be"),
        ({"eps": [0.1, 0.2]}, "eps must be"),
        ({"loss": "cw"}, "loss must be"),
        ({"loss": "dlr_targeted"}, "targets"),
        ({"targets": [0, 0, 0, 0, 0, 0]}, "targets"),
        ({"steps": -1}, "steps must be"),
        ({"restarts": 0}, "restarts must be"),
        ({"eot": 0}, "eot must be"),
        ({"eps_schedule": True}, "eps_schedule"),
        ({"start": 1.0, "noise": 1.0}, "start and noise"),
    ],
)
def test_bad_options_are_named(options, message, key):
    with pytest.raises(ValueError, match=message):
        apgd(linear, key, *batch(), **({"norm": "linf", "eps": 0.1} | options))


@pytest.mark.parametrize(("loss", "classes"), [("dlr", 2), ("dlr_targeted", 3)])
def test_too_few_classes_for_the_dlr_losses(loss, classes, key):
    def attack(images, labels):
        targets = labels + 1 if loss == "dlr_targeted" else None
        return apgd(
            lambda x: linear(x)[:, :classes], key, images, labels, norm="linf", eps=0.1, loss=loss,
            targets=targets,
        )  # fmt: skip

    with pytest.raises(ValueError, match=r"k >= \d classes"):
        jax.eval_shape(attack, *batch())
