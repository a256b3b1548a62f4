"""LIET, FGSM-PGI and NuAT: objectives with state, step by step against the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import objectives, threats
from jaxrobust.objectives import Batch, Clock, Sizes
from tests.objectives.recipes import check, evaluated, injected, one_step, training, variables

pytestmark = pytest.mark.usefixtures("float64")


def liet_of(data, case, step):
    lam = data[f"{case}.lam_at_step"][step].item()
    options = {"label_smoothing": "label_smoothing", "every": "li_update"}
    options |= {"min_mask": "min_mask_ratio", "max_mask": "max_mask_ratio"}
    return objectives.liet(lam=lam, **{k: data[f"{case}.{v}"].item() for k, v in options.items()})


@pytest.mark.parametrize(
    ("case", "step"), [("liet", 0), ("liet", 1), ("liet", 4), ("liet_large", 1)]
)
def test_liet_is_the_authors(golden, monkeypatch, case, step):
    data, at = golden("beyond_public_liet"), f"{case}.s{step}"
    objective, threat = liet_of(data, case, step), threats.linf(data[f"{case}.eps"].item())
    stored = {"mask": "mask_draw", "noise": "noise", "ratio": "ratio_draw", "coin": "coin_draw"}
    stored |= {"targets_start": "label_draw_start", "targets_adv": "label_draw_adv"}
    draws = {name: jnp.asarray(data[f"{at}.{key}"]) for name, key in stored.items()}
    before, index = variables(data, f"{at}.before."), data[f"{at}.x_index"]
    batch = Batch(jnp.asarray(data["x"][index]), jnp.asarray(data[f"{at}.y"], jnp.int32))
    state = {"label_information": jnp.asarray(data[f"{at}.li"])}
    views = objective.attack(training(before), batch, threat, draws, state)
    np.testing.assert_allclose(views.images["start"], data[f"{at}.x_start"], atol=1e-8)
    np.testing.assert_allclose(views.images["adv"], data[f"{at}.x_adv"], atol=1e-8)
    if f"{at}.li_label_draw" in data:
        found = objective.label_information(
            evaluated(before), threat, 10, data["x"].shape[1:], data[f"{at}.li_label_draw"]
        )
        np.testing.assert_allclose(found, data[f"{at}.li"], atol=1e-12)
    injected(monkeypatch, type(objective), draws)
    monkeypatch.setattr(type(objective), "begin_step", lambda self, state, *_: state)
    after, metrics = one_step(
        data, objective, threat, before=before, index=index, state=state, step=step
    )
    np.testing.assert_allclose(metrics["loss"], data[f"{at}.loss"], rtol=1e-8)
    np.testing.assert_allclose(
        metrics["divergence"] * objective.lam, data[f"{at}.loss_js"], rtol=1e-7
    )
    check(data, at, before, after)


def test_label_information_is_renewed_every_few_steps_and_at_an_epochs_start(golden):
    data = golden("beyond_public_liet")
    objective, threat = liet_of(data, "liet", 0), threats.linf(0.03)
    network = evaluated(variables(data, "init."))
    steps = len(data["liet.refreshed"]) // 4
    old = {"label_information": jnp.zeros((10, 6, 6, 3))}
    for step, renewed in enumerate(data["liet.refreshed"]):
        clock = Clock(jnp.asarray(step), steps)
        found = objective.begin_step(old, network, jax.random.key(step), threat, clock)
        assert bool((found["label_information"] != 0).any()) == bool(renewed), step


def pgi_of(data):
    names = {"lam": "lam", "momentum": "momentum_decay", "label_smoothing": "label_smoothing"}
    options = {name: data[f"pgi.{key}"].item() for name, key in names.items()}
    return objectives.pgi(**options, reset=data["pgi.epochs_reset"].item())


def memory_before(data, step):
    """The memory before a step, replayed from the stored rows of the steps before."""
    eps = data["pgi.eps"].item()
    first = 0 if step < 4 else 4
    draw = data["pgi.init_draw" if first == 0 else "pgi.reset_draw"]
    delta, momentum = eps * np.sign(draw), np.zeros_like(draw)
    for earlier in range(first, step):
        rows = data[f"pgi.s{earlier}.index"]
        delta[rows] = data[f"pgi.s{earlier}.next_delta"]
        momentum[rows] = data[f"pgi.s{earlier}.momentum"]
    return {"delta": delta, "momentum": momentum}


@pytest.mark.parametrize("step", [0, 2, 4])
def test_pgi_is_the_authors(golden, monkeypatch, step):
    data, at = golden("beyond_public_memory"), f"pgi.s{step}"
    objective, threat = pgi_of(data), threats.linf(data["pgi.eps"].item())
    before, index = variables(data, f"{at}.before."), data[f"{at}.index"]
    whole = memory_before(data, step)
    rows = {k: jnp.asarray(v[index]) for k, v in whole.items()}
    batch = Batch(jnp.asarray(data["x"][index]), jnp.asarray(data["y"][index], jnp.int32))
    views = objective.attack(training(before), batch, threat, {}, rows)
    np.testing.assert_allclose(views.images["start"], data[f"{at}.x_start"], atol=1e-8)
    np.testing.assert_allclose(views.images["adv"], data[f"{at}.x_adv"], atol=1e-8)
    np.testing.assert_allclose(views.extras["delta"], data[f"{at}.next_delta"], atol=1e-8)
    np.testing.assert_allclose(views.extras["momentum"], data[f"{at}.momentum"], atol=1e-8)
    monkeypatch.setattr(type(objective), "begin_step", lambda self, state, *_: state)
    few = {**data, "x_u8": data["x_u8"][:12], "y": data["y"][:12]}
    after, metrics = one_step(few, objective, threat, before=before, index=index, state=whole)
    np.testing.assert_allclose(metrics["loss"], data[f"{at}.loss"], rtol=1e-8)
    check(data, at, before, after)
    for name, stored in (("delta", "next_delta"), ("momentum", "momentum")):
        np.testing.assert_allclose(after.objective[name][index], data[f"{at}.{stored}"], atol=1e-8)
        others = np.setdiff1d(np.arange(12), index)
        np.testing.assert_array_equal(after.objective[name][others], whole[name][others])


def test_the_memory_begins_anew_every_few_epochs():
    objective, threat = objectives.pgi(reset=2), threats.linf(0.1)
    state = objective.init_state(Sizes(10, (2, 2, 1), 5))
    used = {name: value + 0.05 for name, value in state.items()}
    for step in range(8):  # epochs of two steps
        clock = Clock(jnp.asarray(step), 2)
        found = objective.begin_step(used, None, jax.random.key(step), threat, clock)
        if step in (0, 4):
            np.testing.assert_allclose(np.abs(found["delta"]), 0.1, rtol=1e-6)
            assert (found["delta"] > 0).any()
            assert (found["delta"] < 0).any()
            assert (found["momentum"] == 0).all()
        else:
            assert (found["delta"] == used["delta"]).all()


@pytest.mark.parametrize("step", [2, 3])
def test_nuat_is_the_authors(golden, monkeypatch, step):
    data, at = golden("beyond_public_memory"), f"nuat.s{step}"
    lam = data["nuat.nuc_at_step"][step].item()
    objective = objectives.nuat(lam=lam, label_smoothing=data["nuat.label_smoothing"].item())
    threat, draws = threats.linf(data["nuat.eps"].item()), {"start": data[f"{at}.noise_draw"]}
    before, index = variables(data, f"{at}.before."), data[f"{at}.x_index"]
    batch = Batch(jnp.asarray(data["x"][index]), jnp.asarray(data["y"][index], jnp.int32))
    state = {"step": jnp.asarray(step)}
    views = objective.attack(training(before), batch, threat, draws, state)
    np.testing.assert_allclose(views.images["adv"], data[f"{at}.x_adv"], atol=1e-8)
    injected(monkeypatch, type(objective), draws)
    after, metrics = one_step(
        data, objective, threat, before=before, index=index, step=step, steps=100
    )
    np.testing.assert_allclose(metrics["loss"], data[f"{at}.loss"], rtol=1e-8)
    np.testing.assert_allclose(metrics["nuclear"], data[f"{at}.nuclear"], rtol=1e-8)
    check(data, at, before, after)


def test_nuat_stays_at_its_start_where_there_is_no_gradient():
    objective, threat = objectives.nuat(attack_statistics="running"), threats.linf(0.1)
    batch = Batch(jnp.full((4, 2, 2, 1), 0.5), jnp.arange(4) % 3)
    draws = {"start": jax.random.uniform(jax.random.key(0), (4, 2, 2, 1))}
    views = objective.attack(lambda x: jnp.zeros((4, 3)), batch, threat, draws)
    np.testing.assert_allclose(jnp.abs(views.images["adv"] - 0.5), 0.05, rtol=1e-5)


def test_nuats_steps_count_from_the_epochs_start():
    objective = objectives.nuat()
    found = [
        int(
            objective.begin_step({"step": jnp.int32(0)}, None, None, None, Clock(jnp.int32(s), 3))[
                "step"
            ]
        )
        for s in range(7)
    ]
    assert found == [0, 1, 2, 0, 1, 2, 0]


def test_what_liet_draws_is_independent():
    objective, threat = objectives.liet(), threats.linf(0.1)
    images, labels = jnp.full((8, 8, 8, 1), 0.5), jnp.arange(8)
    state = {"label_information": jnp.zeros((64, 8, 8, 1))}
    batch = Batch(images, labels)
    drawn = objective.draw(jax.random.key(0), batch, threat, state)
    per_example = [drawn[k] for k in ("mask", "noise", "targets_start", "targets_adv")]
    related = np.corrcoef([np.ravel(values) for values in per_example])
    assert np.abs(related - np.eye(4)).max() < 0.2
    mask = drawn["mask"]
    assert 0 <= mask.min() < 0.05 < 0.95 < mask.max() < 1


@pytest.mark.parametrize("name", ["liet", "pgi"])
def test_a_missing_state_is_named(name):
    objective = getattr(objectives, name)()
    batch = Batch(jnp.full((2, 2, 2, 1), 0.5), jnp.array([0, 1]))
    with pytest.raises(ValueError, match="state must hold (label_information|delta and momentum)"):
        objective.inner(None, jax.random.key(0), batch, threats.linf(0.1))
