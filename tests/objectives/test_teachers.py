"""GKL with its class prior, HAT with a helper, LBGAT with a teacher: whole steps of the authors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import objectives, threats
from jaxrobust.networks import LogitsFunction, accompanied, network
from jaxrobust.objectives import Batch, Clock, Sizes
from tests.objectives.recipes import check, evaluated, injected, one_step, training, variables
from tests.tiny import TinyNet

pytestmark = pytest.mark.usefixtures("float64")


def batch_of(data, index):
    return Batch(jnp.asarray(data["x"][index]), jnp.asarray(data["y"][index], jnp.int32))


def gkl_of(data, case, step):
    names = ("alpha", "beta", "gamma", "temperature", "attack_beta")
    options = {name: data[f"{case}.{name}"].item() for name in names}
    at = f"{case}.{step}"
    return objectives.gkl(
        **options, steps=data[f"{at}.steps"].item(), step_size=data[f"{at}.step"].item()
    )


GKL = [("step_v1", "s0"), ("step_v2", "s0"), ("step_v2", "s3"), ("step_v2low", "s0"), ("step_v2c100", "s3")]  # fmt: skip


@pytest.mark.parametrize(("case", "step"), GKL)
def test_gkl_is_the_authors(golden, monkeypatch, case, step):
    data, at = golden("beyond_public_gkl"), f"{case}.{step}"
    objective, threat = gkl_of(data, case, step), threats.linf(data[f"{at}.eps"].item())
    number, batch_size = int(step[1:]), int(data["batch"])
    index = np.arange(number * batch_size, (number + 1) * batch_size) % len(data["y"])
    moving = data[f"{at}.bn_mean_before"], data[f"{at}.bn_var_before"]
    prefix = f"{at}.before." if f"{at}.before.dense_bias" in data else "init."
    before = variables(data, prefix, moving)
    draws = {"start": data[f"{at}.noise"]}
    state = {"class_prior": jnp.asarray(data[f"{at}.class_prior"])}
    views = objective.attack(evaluated(before), batch_of(data, index), threat, draws, state)
    np.testing.assert_allclose(views.images["adv"], data[f"{at}.x_adv"], atol=1e-8)
    injected(monkeypatch, type(objective), draws)
    after, metrics = one_step(
        data, objective, threat, before=before, index=index, state=state, steps=3, step=number
    )
    np.testing.assert_allclose(metrics["loss"], data[f"{at}.loss"], rtol=1e-8)
    check(data, at, before, after)
    counts = data[f"{case}.labels_all"][number]
    np.testing.assert_allclose(after.objective["counts"].sum(1), np.bincount(counts, minlength=10))


@pytest.mark.parametrize("case", ["step_v1", "step_v2"])
def test_the_class_prior_is_renewed_at_an_epochs_end(golden, case):
    data = golden("beyond_public_gkl")
    objective = gkl_of(data, case, "s0")
    state = objective.init_state(Sizes(10, (6, 6, 3), 18))
    np.testing.assert_array_equal(state["class_prior"], 0.1)
    for step in range(6):
        labels = data[f"{case}.labels_all"][step]
        logits = {"clean": jnp.asarray(data[f"{case}.logits_natural_all"][step])}
        halves = [
            objective.observe(
                {"clean": logits["clean"][part]}, Batch(None, labels[part]), {}, state
            )
            for part in (slice(0, 3), slice(3, 6))
        ]
        sums = jax.tree.map(jnp.add, *halves)
        state = objective.end_step(state, sums, Clock(jnp.asarray(step), 3))
        if step % 3 == 2:
            stored = data[f"{case}.class_prior_epoch"][step // 3]
            seen = np.unique(data[f"{case}.labels_all"][step - 2 : step + 1])
            np.testing.assert_allclose(state["class_prior"][seen], stored[seen], rtol=1e-10)
            np.testing.assert_array_equal(state["counts"], 0)
        np.testing.assert_allclose(state["class_prior"].sum(1), 1, rtol=1e-10)


@pytest.mark.parametrize("case", ["hat", "hat_h2", "hat_wa"])
def test_hat_is_the_authors(golden, monkeypatch, case):
    data = golden("beyond_public_teacher")
    names = ("h", "beta", "gamma")
    options = {name: data[f"{case}.{name}"].item() for name in names}
    options |= {"steps": data[f"{case}.steps"].item(), "step_size": data[f"{case}.step"].item()}
    if case == "hat_wa":
        smoothing = data[f"{case}.label_smoothing"].item()
        options |= {"label_smoothing": smoothing, "start": "uniform", "attack_statistics": "batch"}
    objective, threat = objectives.hat(**options), threats.linf(data[f"{case}.eps"].item())
    before, index = variables(data, "init."), np.arange(len(data["y"]))
    helper = LogitsFunction(*variables(data, "teacher."), network(TinyNet()))
    draws, state = {"start": data[f"{case}.noise"]}, {"helper": helper}
    attacked = evaluated(before)
    if case == "hat_wa":
        moving = training(before)
        attacked = lambda images: moving.apply(images, moving.batch_stats)[0]  # noqa: E731
    views = objective.attack(attacked, batch_of(data, index), threat, draws, state)
    np.testing.assert_allclose(views.images["adv"], data[f"{case}.x_adv"], atol=1e-8)
    np.testing.assert_allclose(views.images["helper"], data[f"{case}.x_helper"], atol=1e-8)
    np.testing.assert_array_equal(views.extras["helper_labels"], data[f"{case}.helper_labels"])
    injected(monkeypatch, type(objective), draws)
    net = accompanied(network(TinyNet()), helper=helper)
    after, metrics = one_step(data, objective, threat, before=before, index=index, net=net)
    np.testing.assert_allclose(metrics["loss"], data[f"{case}.loss"], rtol=1e-8)
    check(data, case, before, after)


@pytest.mark.parametrize("case", ["lbgat0", "lbgat6"])
def test_lbgat_is_the_authors(golden, monkeypatch, case):
    data = golden("beyond_public_teacher")
    options = {"steps": data[f"{case}.steps"].item(), "step_size": data[f"{case}.step"].item()}
    objective = objectives.lbgat(beta=data[f"{case}.beta"].item(), **options)
    threat, draws = threats.linf(data[f"{case}.eps"].item()), {"start": data[f"{case}.noise"]}
    both = [variables(data, prefix) for prefix in ("init.", "teacher.")]
    index = np.arange(len(data["y"]))
    views = objective.attack(evaluated(both[0]), batch_of(data, index), threat, draws)
    np.testing.assert_allclose(views.images["adv"], data[f"{case}.x_adv"], atol=1e-8)
    injected(monkeypatch, type(objective), draws)
    net = accompanied(network(TinyNet()), teacher=network(TinyNet()))
    params, statistics = zip(*both, strict=True)
    names = ("network", "teacher")
    before = dict(zip(names, params, strict=True)), dict(zip(names, statistics, strict=True))
    after, metrics = one_step(data, objective, threat, before=before, index=index, net=net)
    np.testing.assert_allclose(metrics["loss"], data[f"{case}.loss"], rtol=1e-8)
    for name, prefix, grad in (("network", case, "grad"), ("teacher", f"{case}.teacher", "")):
        own = after._replace(params=after.params[name], batch_stats=after.batch_stats[name])
        stored = {**data}
        if name == "teacher":
            old = f"{case}.teacher_grad."
            stored |= {k.replace(old, f"{prefix}.grad."): v for k, v in data.items() if old in k}
        check(stored, prefix, (before[0][name], None), own, grad=grad or "grad")


def test_an_objective_that_lacks_its_network_says_so(golden):
    data = golden("beyond_public_teacher")
    before, index = variables(data, "init."), np.arange(6)
    for objective in (objectives.lbgat(steps=1), objectives.hat(steps=1)):
        with pytest.raises(ValueError, match="needs a network that has (teacher|helper)"):
            one_step(data, objective, threats.linf(0.03), before=before, index=index)
