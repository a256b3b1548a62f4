"""One-step recipes against one step of the authors' code: images, loss, gradients, statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import objectives, threats
from jaxrobust.objectives import Batch
from jaxrobust.training import TrainState
from jaxrobust.training._updates import Averaging, updated
from tests.objectives.recipes import check, injected, one_step, training, variables
from tests.tiny import TinyNet

FAST = {
    "n_fgsm": ("n_fgsm", {"noise": "noise_factor", "step_size": "alpha"}),
    "n_fgsm_k1": ("n_fgsm", {"noise": "noise_factor", "step_size": "alpha"}),
    "n_fgsm_ls": ("n_fgsm", {"noise": "noise_factor", "label_smoothing": "label_smoothing"}),
    "fgsm_rs": ("fgsm_rs", {"step_size": "alpha"}),
    "fgsm_rs_ls": ("fgsm_rs", {"label_smoothing": "label_smoothing"}),
    "grad_align_right": ("grad_align", {"lam": "lam", "step_size": "alpha"}),
    "grad_align_ls": (
        "grad_align", {"lam": "lam", "step_size": "eps", "label_smoothing": "label_smoothing"},
    ),
}  # fmt: skip


def recipe(data, case):
    name, fields = FAST[case]
    options = {field: data[f"{case}.{stored}"].item() for field, stored in fields.items()}
    return getattr(objectives, name)(**options)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", FAST)
def test_a_step_is_the_authors(golden, monkeypatch, case):
    data = golden("beyond_public_fast")
    objective, threat = recipe(data, case), threats.linf(data[f"{case}.eps"].item())
    draws = {"point" if "align" in case else "start": data[f"{case}.noise"]}
    batch = Batch(jnp.asarray(data["x"]), jnp.asarray(data["y"], jnp.int32))
    if case == "grad_align_right":  # the authors' code does not cut the point to the box
        draws["point"] = data[f"{case}.x_uniform"] - data["x"]
        monkeypatch.setattr("jaxrobust.objectives._grad_align.cut", lambda delta, images: delta)
        keep = lambda images, delta: images + delta  # noqa: E731
        monkeypatch.setattr("jaxrobust.objectives._grad_align.moved", keep)
    injected(monkeypatch, type(objective), draws)
    network = training(variables(data, "init."))
    views = objective.attack(network, batch, threat, objective.draw())
    np.testing.assert_allclose(views.images["adv"], data[f"{case}.x_adv"], atol=1e-8)
    assert set(views.images) == ({"adv", "point"} if "align" in case else {"adv"})
    before = variables(data, "init.")
    index = np.arange(len(data["y"]))
    after, metrics = one_step(data, objective, threat, before=before, index=index)
    loss = data.get(f"{case}.loss", data.get(f"{case}.loss_per_example", np.zeros(1))).mean()
    if case != "grad_align_ls":  # stored: cross-entropy alone, and the gradient of all
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-8)
    check(data, case, before, after)


@pytest.mark.parametrize("case", ["n_fgsm_ls", "fgsm_rs", "grad_align_ls"])
def test_a_step_in_float32(golden, case):
    data = golden("beyond_public_fast")
    single = {k: np.asarray(v, np.float32) if v.dtype == np.float64 else v for k, v in data.items()}
    objective, threat = recipe(data, case), threats.linf(data[f"{case}.eps"].item())
    draws = {"point" if "align" in case else "start": jnp.asarray(single[f"{case}.noise"])}
    batch = Batch(jnp.asarray(single["x"]), jnp.asarray(data["y"], jnp.int32))
    views = objective.attack(training(variables(single, "init.")), batch, threat, draws)
    np.testing.assert_allclose(views.images["adv"], data[f"{case}.x_adv"], atol=1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", ["grad_align", "grad_align_right"])
def test_gradient_alignment_is_the_authors_readme(golden, case):
    data = golden("beyond_public_fast")
    params, statistics = variables(data, "init.")

    def logits_fn(images):
        return TinyNet().apply(
            {"params": params, "batch_stats": statistics},
            images,
            train=True,
            mutable=["batch_stats"],
        )[0]

    found = objectives.gradient_alignment(
        logits_fn, data["x"], data["grad_align_right.x_uniform"], data["y"]
    )
    np.testing.assert_allclose(1 - found, data["grad_align_right.cos"], atol=1e-8)


def test_a_vanishing_gradient_counts_nothing_and_differentiates():
    images = jnp.full((3, 2, 2, 1), 0.5)
    labels = jnp.array([0, 1, 0])

    def value(weights):
        scale = jnp.array([0.0, 1.0, 1e-30])[:, None]
        return objectives.gradient_alignment(
            lambda x: scale * jnp.tanh(x.reshape(3, 4) @ weights), images, images * 0.5, labels
        )

    weights = jax.random.normal(jax.random.key(0), (4, 2))
    assert value(weights)[0] == 0
    assert value(weights)[1] > 0
    grads = jax.jacobian(value)(weights)
    assert np.isfinite(grads).all()
    assert (grads[0] == 0).all()


def test_pixels_that_a_network_does_not_see_count_nothing():
    weights = jax.random.normal(jax.random.key(0), (4, 2)).at[1].set(0)
    images, labels = jnp.full((3, 2, 2, 1), 0.5), jnp.array([0, 1, 0])

    def value(weights, seen):
        def logits_fn(x):
            return jnp.tanh(x.reshape(3, -1)[:, seen] @ weights)

        return objectives.gradient_alignment(logits_fn, images, images * 0.3, labels)

    every, seen = jnp.arange(4), jnp.array([0, 2, 3])
    assert (value(weights, every) > 0).all()
    np.testing.assert_allclose(value(weights, every), value(weights[seen], seen), rtol=1e-5)


@pytest.mark.parametrize("name", ["n_fgsm", "fgsm_rs", "grad_align"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_images_stay_in_their_set_whatever_the_network_says(name, dtype):
    objective, eps = getattr(objectives, name)(attack_statistics="running"), 8 / 255
    images = jax.random.uniform(jax.random.key(0), (6, 4, 4, 1)).astype(dtype)
    images = images.at[0].set(0).at[1].set(1)
    batch = Batch(images, jnp.arange(6) % 3)
    for logits_fn in (
        lambda x: jnp.full((len(x), 3), jnp.nan) * x.sum(),
        lambda x: jnp.zeros((len(x), 3)),
        lambda x: x.astype(jnp.float32).reshape(len(x), -1)[:, :3],
    ):
        views = objective.inner(logits_fn, jax.random.key(1), batch, threats.linf(eps))
        for found in views.images.values():
            assert found.dtype == dtype
            assert ((found >= 0) & (found <= 1)).all()
            gap = jnp.abs(found.astype(jnp.float32) - images.astype(jnp.float32)).max()
            assert gap <= (3 if name == "n_fgsm" else 1) * eps + 1e-6
        still = objective.inner(logits_fn, jax.random.key(1), batch, threats.linf(0.0))
        assert (still.images["adv"] == images).all()


@pytest.mark.parametrize("name", ["n_fgsm", "fgsm_rs", "grad_align"])
def test_draws_depend_on_the_example_alone(name):
    objective, threat = getattr(objectives, name)(), threats.linf(8 / 255)
    images, labels = jnp.full((4, 3, 3, 1), 0.5), jnp.zeros(4, jnp.int32)
    keys = jax.random.split(jax.random.key(0), 4)
    (whole,) = objective.draw(keys, Batch(images, labels), threat).values()
    (part,) = objective.draw(keys[::-1][:2], Batch(images[:2], labels[:2]), threat).values()
    np.testing.assert_array_equal(whole[::-1][:2], part)
    width = {"n_fgsm": 2}.get(name, 1) * 8 / 255
    assert 0.8 * width < jnp.abs(whole).max() <= width


@pytest.mark.parametrize("name", ["n_fgsm", "fgsm_rs", "grad_align"])
def test_a_radius_per_example_is_that_of_each(name):
    objective = getattr(objectives, name)(attack_statistics="running")
    images = jax.random.uniform(jax.random.key(0), (4, 3, 3, 1))
    labels, keys = jnp.arange(4) % 3, jax.random.split(jax.random.key(1), 4)
    eps = jnp.array([0.0, 0.01, 0.05, 0.1])

    def attacked(at, eps):
        found = objective.inner(
            lambda x: x.reshape(len(x), -1)[:, :3],
            keys[at],
            Batch(images[at], labels[at]),
            threats.linf(eps),
        )
        return found.images["adv"]

    alone = [attacked(slice(n, n + 1), float(eps[n])) for n in range(4)]
    np.testing.assert_allclose(attacked(slice(4), eps), jnp.concatenate(alone), atol=1e-7)


def test_another_threat_is_refused():
    batch = Batch(jnp.zeros((1, 2, 2, 1)), jnp.zeros(1, jnp.int32))
    with pytest.raises(ValueError, match=r"threat must be linf for n_fgsm.*l2 eps"):
        objectives.n_fgsm().inner(None, jax.random.key(0), batch, threats.l2(0.5))


@pytest.mark.usefixtures("float64")
def test_pgd_with_label_smoothing_is_the_fast_at_benchmarks(golden, monkeypatch):
    data, case = golden("beyond_public_fast"), "pgd_at_wa"
    options = {"steps": 10, "step_size": data[f"{case}.step"].item()}
    objective = objectives.pgd_at(**options, label_smoothing=data[f"{case}.label_smoothing"].item())
    start = jnp.clip(data["x"] + data[f"{case}.noise"], 0, 1) - data["x"]
    monkeypatch.setattr("jaxrobust.objectives._attack.initial", lambda *_: start)
    before, index = variables(data, "init."), np.arange(len(data["y"]))
    threat = threats.linf(data[f"{case}.eps"].item())
    after, metrics = one_step(data, objective, threat, before=before, index=index)
    loss = data[f"{case}.loss_per_example"].mean()
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-8)
    check(data, case, before, after)


@pytest.mark.usefixtures("float64")
def test_an_average_that_starts_after_the_first_step_is_the_fast_at_benchmarks(golden):
    data, case = golden("beyond_public_fast"), "pgd_at_wa"
    live = {k: data[f"{case}.live.{k}"] for k in ("dense_bias", "bn_mean", "bn_var", "bn_scale")}
    averaging = Averaging(data[f"{case}.tau"].item(), None, "average", copied_steps=1)
    split = {"params": ("dense_bias", "bn_scale"), "stats": ("bn_mean", "bn_var")}

    def tree(step, kind):
        values = {k: v[step] for k, v in live.items()} if step >= 0 else None
        return {k: jnp.asarray(values[k]) if values else jnp.full(v.shape[1:], 9.0)
                for k, v in live.items() if k in split[kind]}  # fmt: skip

    optimizer = optax.sgd(1.0)
    start = tree(-1, "params"), tree(-1, "stats")
    state = TrainState(jnp.zeros((), jnp.int32), *start, optimizer.init(start[0]), start[0],
                       jnp.zeros(2, jnp.uint32), start[1])  # fmt: skip
    for step in range(5):
        new = tree(step, "params")
        grads = jax.tree.map(lambda old, new: old - new, state.params, new)
        state = updated(optimizer, averaging, state, grads, tree(step, "stats"))
        for name, found in {**state.ema_params, **state.ema_batch_stats}.items():
            np.testing.assert_allclose(found, data[f"{case}.average.{name}"][step], rtol=1e-10)
