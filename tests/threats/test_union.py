"""A union of threats: each image is moved by one member, within that member's set."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, losses, threats
from jaxrobust.experiment import Experiment, use
from jaxrobust.inputs import InputError

SHAPE = (60, 4, 4, 1)
X = jax.random.uniform(jax.random.key(1), SHAPE)
WEIGHTS = jax.random.normal(jax.random.key(0), (16, 3))
THREE = threats.union(linf=0.05, l2=0.4, l1=1.0)


def network(x):
    return x.reshape(len(x), -1) @ WEIGHTS


def sizes(delta):
    flat = np.asarray(delta, np.float64).reshape(len(delta), -1)
    return {
        "linf": np.abs(flat).max(1) / 0.05,
        "l2": np.linalg.norm(flat, axis=1) / 0.4,
        "l1": np.abs(flat).sum(1) / 1.0,
    }


def test_names_and_members_are_in_the_given_order():
    assert THREE.names == ("linf", "l2", "l1")
    assert [float(threat.eps) for threat in THREE.threats] == [np.float32(0.05), np.float32(0.4), 1]
    turned = threats.union(l1=12, linf=8 / 255)
    assert turned.names == ("l1", "linf")
    mixed = threats.union(threats.spatial(5, 1), threats.spatial(30, 3), l2=0.5)
    assert mixed.names == ("spatial", "spatial 2", "l2")
    assert threats.described(turned) == "l1 eps 12 or linf eps 0.0313726"
    assert threats.norm_of(turned) is None


def test_every_start_and_step_stays_in_the_set_of_its_member():
    verbs = threats.batched(THREE, len(X))
    z = verbs.init(jax.random.split(jax.random.key(2), len(X)), X)
    assert set(np.asarray(z.member).tolist()) == {0, 1, 2}
    grads = jax.tree.map(lambda leaf: jnp.ones_like(leaf), z)
    far = verbs.ascend(z, grads, (1.0, 2.0, 30.0))
    assert (far.member == z.member).all()
    for found in (z, verbs.project(far, X)):
        moved = verbs.apply(found, X)
        assert 0 <= float(moved.min()) <= float(moved.max()) <= 1 + 1e-6
        ratio = sizes(moved - X)
        for member, name in enumerate(THREE.names):
            mine = np.asarray(z.member) == member
            assert (ratio[name][mine] <= 1 + 1e-5).all()
            assert ratio[name][mine].max() > 0.5


def test_pgd_attacks_the_member_that_was_drawn_and_restarts_find_the_worst():
    labels = network(X).argmax(-1)
    options = {"loss": losses.margin, "steps": 5, "keep": "best"}
    size = threats.default_step(THREE, 5)
    key = jax.random.key(3)

    def attack(threat, step_size, restarts):
        return attacks.pgd(
            network, key, X, labels, threat=threat, step_size=step_size, restarts=restarts,
            **options,
        )  # fmt: skip

    found = attack(THREE, size, 12)
    ratio = sizes(np.asarray(found.images) - np.asarray(X))
    assert (np.minimum.reduce(list(ratio.values())) <= 1 + 1e-4).all()
    alone = [attack(t, s, 1).success for t, s in zip(THREE.threats, size, strict=True)]
    together = np.logical_or.reduce(alone)
    assert together.mean() > max(np.mean(each) for each in alone)
    np.testing.assert_allclose(found.success.mean(), together.mean(), atol=0.04)
    assert not attack(threats.union(linf=0.0, l1=0.0), 0.1, 2).success.any()


def test_an_evaluation_attacks_every_member():
    labels = network(X).argmax(-1)
    given = network, jax.random.key(3), X, labels
    found = attacks.PGD(threat=THREE, steps=5, loss=losses.margin)(*given)
    alone = [attacks.PGD(threat=t, steps=5, loss=losses.margin)(*given) for t in THREE.threats]
    np.testing.assert_array_equal(found.success, np.any([each.success for each in alone], 0))
    wrong = np.asarray(network(found.images).argmax(-1) != labels)
    np.testing.assert_array_equal(found.success, wrong)
    best = np.max([np.where(a.success == found.success, a.loss, -np.inf) for a in alone], 0)
    np.testing.assert_array_equal(found.loss, best)
    sized = attacks.PGD(threat=THREE, steps=2, step_size=(0.01, 0.1, 0.2))(*given)
    assert sized.images.shape == X.shape


def test_radii_are_leaves_and_may_be_one_per_example():
    eps = jnp.linspace(0, 0.3, len(X))
    each = threats.union(linf=eps, l2=0.0)
    verbs = threats.batched(each, len(X))
    z = verbs.project(verbs.init(jax.random.split(jax.random.key(0), len(X)), X), X)
    assert (jnp.abs(verbs.apply(z, X) - X).max((1, 2, 3)) <= eps + 1e-6).all()
    assert len(jax.tree.leaves(THREE)) == 3


def test_what_makes_no_union_is_refused():
    for call, said in (
        (lambda: threats.union(linf=0.1), "at least two members, got 1"),
        (lambda: threats.union(), "at least two members, got 0"),
        (lambda: threats.union(threats.linf(0.1), linf=0.2), "got linf 2 times"),
        (lambda: threats.union(linf=0.1, l3=1), "no norm 'l3': choose from linf, l2, l1"),
        (lambda: threats.union(linf=8, l2=1), "linf: eps must be .* got 8"),
        (lambda: threats.union(0.1, 0.5), "members of a union must be threats.* got 0.1"),
    ):
        with pytest.raises(InputError, match=said):
            call()
    with pytest.raises(InputError, match="PGD attacks any threat"):
        attacks.APGD(threat=THREE)
    with pytest.raises(InputError, match="single threat, got linf eps 0.05 or l2"):
        attacks.fgsm(network, jax.random.key(0), X, jnp.zeros(len(X), int), threat=THREE)


def test_an_experiment_takes_a_union():
    config = Experiment(
        name="u",
        data=use("digits"),
        model=use("mlp", hidden=(4,)),
        objective=use("pgd_at", steps=2),
        threat=use("union", linf="8/255", l2=0.5),
        learning_rate=use("constant", value=0.1),
        epochs=1,
    )
    built = config.build("threat")
    assert built.names == ("linf", "l2")
    assert float(built.threats[0].eps) == np.float32(8 / 255)
    parts = use("union", use("linf", 0.1), use("spatial", 30, 3))
    assert replace(config, threat=parts).build("threat").names == ("linf", "spatial")
