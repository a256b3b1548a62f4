"""Recipes of several norms, in float64, where APGD's decisions are the authors'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import objectives, threats
from jaxrobust.losses import cross_entropy
from jaxrobust.objectives import Batch, Clock, Sizes
from jaxrobust.objectives._eat import drawn_norm
from tests.objectives.recipes import check, evaluated, injected, one_step, variables

INDEX = np.arange(6)


def setting(golden, *norms):
    data = golden("beyond_public_union")
    names = {"linf": "Linf", "l2": "L2", "l1": "L1"}
    threat = threats.union(**{norm: data[f"eps.{names[norm]}"].item() for norm in norms})
    batch = Batch(jnp.asarray(data["x"][INDEX]), jnp.asarray(data["y"][INDEX], jnp.int32))
    return data, threat, batch, variables(data, "init."), data["apgd_steps"].item()


@pytest.mark.usefixtures("float64")
def test_eat_draws_as_the_authors(golden):
    data = golden("beyond_public_union")
    stored = np.concatenate([np.zeros((1, 2, 2), int), data["eat.correct_seen_after"].astype(int)])
    for step, draw in enumerate(data["eat.uniform_draw"]):
        correct, seen = stored[step].T
        chances = objectives.norm_probabilities(correct, seen)
        weights = data["eat.weights"][step]
        np.testing.assert_allclose(chances, weights / weights.sum(), rtol=1e-10)
        assert int(drawn_norm(jnp.asarray(draw), chances)) == data["eat.norm"][step]


def test_norm_probabilities_are_equal_where_nothing_is_known_or_everything_is_withstood():
    for correct, seen in (([0, 3], [0, 4]), ([4, 4], [4, 4]), ([0, 0], [0, 0])):
        np.testing.assert_array_equal(objectives.norm_probabilities(correct, seen), 0.5)
    np.testing.assert_allclose(objectives.norm_probabilities([4, 2, 4], [4, 4, 4]), [0, 1, 0])
    with pytest.raises(ValueError, match="correct and seen must be counts"):
        objectives.norm_probabilities([1, 2], [3])
    with pytest.raises(ValueError, match="seen must be at least 0"):
        objectives.norm_probabilities([1, 2], [3, -1])


@pytest.mark.usefixtures("float64")
def test_eat_is_the_authors(golden, monkeypatch):
    data, threat, batch, before, steps = setting(golden, "linf", "l1")
    objective = objectives.eat(steps=steps)
    norm = int(data["eat.norm"][0])
    draws = {"norm": jnp.asarray(norm)}
    views = objective.attack(evaluated(before), batch, threat, draws)
    np.testing.assert_allclose(views.images["adv"], data["eat.s0.x_adv"], atol=1e-8)
    injected(monkeypatch, type(objective), draws)
    after, metrics = one_step(
        data, objective, threat, before=before, index=INDEX, sizes=Sizes(10, (6, 6, 3), 18, threat)
    )
    np.testing.assert_allclose(metrics["loss"], data["eat.s0.loss_per_example"].mean(), rtol=1e-8)
    correct, seen = data["eat.correct_seen_after"][0].T
    np.testing.assert_array_equal(after.objective["correct"], correct)
    np.testing.assert_array_equal(after.objective["seen"], seen)


@pytest.mark.usefixtures("float64")
def test_max_norms_is_the_authors(golden):
    data, threat, batch, before, steps = setting(golden, "linf", "l1", "l2")
    objective = objectives.max_norms(steps=steps)
    views = objective.attack(evaluated(before), batch, threat, {})
    np.testing.assert_array_equal(views.extras["norm"], data["max.choice"])
    np.testing.assert_allclose(views.images["adv"], data["max.x_adv"], atol=1e-8)
    after, metrics = one_step(data, objective, threat, before=before, index=INDEX)
    np.testing.assert_allclose(metrics["loss"], data["max.loss"], rtol=1e-8)
    check(data, "max", before, after)


@pytest.mark.usefixtures("float64")
def test_avg_norms_is_the_mean_of_the_losses(golden):
    data, threat, _, before, steps = setting(golden, "linf", "l2", "l1")
    objective = objectives.avg_norms(steps=steps, norms=("linf", "l1", "l2"))  # as composed
    after, metrics = one_step(data, objective, threat, before=before, index=INDEX)
    np.testing.assert_allclose(metrics["loss"], data["avg.loss"], rtol=1e-8)
    check(data, "avg", before, after)


@pytest.mark.usefixtures("float64")
def test_ramp_is_the_authors(golden):
    data, threat, batch, before, steps = setting(golden, "linf", "l1")
    objective = objectives.ramp(lbd=data["ramp.lbd"].item(), steps=steps)
    views = objective.attack(evaluated(before), batch, threat, {})
    for name, stored in (("target", "x_target"), ("source", "x_source"), ("adv", "x_adv")):
        np.testing.assert_allclose(views.images[name], data[f"ramp.{stored}"], atol=1e-8)
    after, metrics = one_step(data, objective, threat, before=before, index=INDEX)
    np.testing.assert_allclose(metrics["loss"], data["ramp.loss"], rtol=1e-8)
    check(data, "ramp", before, after)


@pytest.mark.usefixtures("float64")
def test_msd_with_its_projection_per_example_is_the_authors(golden, monkeypatch):
    data = golden("beyond_public_msd")
    alpha = {"linf": "l_inf", "l2": "l_2", "l1": "l_1"}
    sizes = {norm: data[f"msd.alpha_{name}"].item() for norm, name in alpha.items()}
    objective = objectives.msd(steps=data["msd.steps"].item(), step_sizes=sizes)
    eps = {"linf": "Linf", "l2": "L2", "l1": "L1"}
    threat = threats.union(**{n: data[f"msd.eps_{name}"].item() for n, name in eps.items()})
    batch = Batch(jnp.asarray(data["x"]), jnp.asarray(data["y"], jnp.int32))
    before = variables(data, "init.")
    draws = {"counts": data["msd.ks"]}
    network = evaluated(before)
    visited = data["msd.points"][:2]  # before each step
    for step, point in enumerate(visited):
        gradient = jax.grad(lambda x: cross_entropy(network(x), batch.labels).sum())(
            jnp.asarray(point)
        )
        delta, count = jnp.asarray(point - data["x"]), jnp.asarray(data["msd.ks"][step])
        members = dict(zip(threat.names, threat.threats, strict=True))
        tried = objective._proposals(members, batch.images, delta, gradient, count)
        for found, image in zip(tried, data[f"msd.proposals_{step}"], strict=True):
            np.testing.assert_allclose(data["x"] + found, image, atol=1e-8)
        small = objective._proposals(members, batch.images, delta, gradient * 1e-6, count)
        np.testing.assert_allclose(small, tried, atol=1e-8, err_msg="only its direction counts")
    views = objective.attack(network, batch, threat, draws)
    np.testing.assert_allclose(views.images["adv"], data["x"] + data["msd.delta"], atol=1e-8)
    injected(monkeypatch, type(objective), draws)
    after, metrics = one_step(data, objective, threat, before=before, index=INDEX)
    np.testing.assert_allclose(metrics["loss"], data["msd.loss"], rtol=1e-8)
    check(data, "msd", before, after)


RECIPES = {
    "eat": {"correct": jnp.zeros(3, jnp.int32), "seen": jnp.zeros(3, jnp.int32)},
    "max_norms": None, "avg_norms": None, "ramp": {}, "msd": {},
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_images_are_in_one_of_the_balls_whatever_the_network_says(name):
    objective = getattr(objectives, name)(steps=3)
    images = jax.random.uniform(jax.random.key(0), (6, 4, 4, 1))
    images = images.at[0].set(0).at[1].set(1)
    batch = Batch(images, jnp.arange(6) % 3)
    sizes = {"linf": 0.05, "l2": 0.3, "l1": 1.0}
    state = [] if RECIPES[name] is None else [RECIPES[name]]

    def attacked(logits_fn, **radii):
        run = jax.jit(
            lambda b: objective.inner(
                logits_fn, jax.random.key(1), b, threats.union(**radii), *state
            )
        )
        return run(batch).images

    for logits_fn in (
        lambda x: jnp.full((len(x), 3), jnp.nan) * x.sum(),
        lambda x: jnp.zeros((len(x), 3)),
        lambda x: jnp.sin(9 * x).reshape(len(x), -1)[:, :3],
    ):
        for found in attacked(logits_fn, **sizes).values():
            gap = np.asarray(found - images, np.float64).reshape(6, -1)
            assert ((found >= 0) & (found <= 1)).all()
            ratios = [
                np.abs(gap).max(1) / 0.05,
                np.linalg.norm(gap, axis=1) / 0.3,
                np.abs(gap).sum(1),
            ]
            assert (np.min(ratios, 0) <= 1 + 1e-5).all()
    for found in attacked(lambda x: x.reshape(6, -1)[:, :3], linf=0.0, l2=0.0, l1=0.0).values():
        assert (found == images).all()


def test_unions_that_do_not_fit_are_refused():
    batch = Batch(jnp.full((2, 4, 4, 1), 0.5), jnp.array([0, 1]))
    key, flat = jax.random.key(0), lambda x: x.reshape(len(x), -1)[:, :3]
    for objective, threat, said in (
        (objectives.eat(), threats.linf(0.1), "union of norms for eat.*got linf eps 0.1"),
        (objectives.ramp(), threats.union(linf=0.1, l2=0.5), "union of norms with linf and l1 for ramp"),
        (objectives.avg_norms(), threats.union(linf=0.1, l1=1), "with linf and l2 and l1 for avg"),
        (objectives.avg_norms(norms=("linf", "l1")), threats.union(linf=0.1, l1=1, l2=1), "all of the threat"),
        (objectives.msd(), threats.union(threats.spatial(5, 1), l1=1), "union of norms for msd"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            objective.inner(flat, key, batch, threat)
    with pytest.raises(ValueError, match="step_sizes must be by norm.*l3"):
        objectives.msd(step_sizes={"l3": 1.0})


def test_counts_of_msd_are_between_5_and_20():
    batch = Batch(jnp.zeros((2, 4, 4, 1)), jnp.array([0, 1]))
    counts = objectives.msd(steps=500).draw(jax.random.key(0), batch, None)["counts"]
    assert (int(counts.min()), int(counts.max())) == (5, 20)


def test_eat_counts_over_the_run():
    objective, threat = objectives.eat(), threats.union(linf=0.1, l1=1)
    state = objective.init_state(Sizes(3, (4, 4, 1), 8, threat))
    extras = {"robust": jnp.array([True, False, True]), "norm": jnp.array([1, 1, 1])}
    for step in range(3):
        sums = objective.observe({}, None, extras, state)
        state = objective.end_step(state, sums, Clock(jnp.asarray(step), 1))
    assert (state["correct"].tolist(), state["seen"].tolist()) == ([0, 6], [0, 9])
