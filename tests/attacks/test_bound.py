"""Bound attacks: every threat in every attack, or refused before anything runs; parts of Square."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, losses, threats
from jaxrobust.attacks import Attacked
from jaxrobust.inputs import InputError

KEY = jax.random.key(3)
IMAGES = jax.random.uniform(jax.random.key(1), (6, 4, 4, 1))
LABELS = np.arange(6) % 3
WEIGHTS = jax.random.normal(jax.random.key(0), (16, 3))


def network(x):
    return x.reshape(len(x), -1) @ WEIGHTS


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Brightness:
    """A threat from outside of the library: one offset per image."""

    eps: jax.Array

    def init(self, key, x):
        return self.project(jax.random.uniform(key, (), x.dtype, -1, 1) * self.eps, x)

    def ascend(self, z, grad, step_size):
        return z + jnp.asarray(step_size, z.dtype) * jnp.sign(grad)

    def project(self, z, x):
        return jnp.clip(jnp.clip(z, -self.eps, self.eps), -x.min(), 1 - x.max())

    def apply(self, z, x):
        return x + z


class Stepless:
    """Neither `eps` nor a default step."""

    def init(self, key, x):
        return jax.random.uniform(key, (), x.dtype, -0.1, 0.1)

    def project(self, z, x):
        return jnp.clip(jnp.clip(z, -0.1, 0.1), -x.min(), 1 - x.max())

    ascend, apply = Brightness.ascend, Brightness.apply


jax.tree_util.register_static(Stepless)


def inner(logits_fn, keys, images, labels, *, threat):
    options = {"loss": losses.cross_entropy, "steps": 1, "step_size": 0.01}
    return attacks.pgd(logits_fn, keys, images, labels, threat=threat, **options)


THREATS = {
    "linf": threats.linf(0.1),
    "l2": threats.l2(0.5),
    "l1": threats.l1(1.0),
    "l0": threats.l0(3),
    "spatial": threats.spatial(20, 1),
    "spatial, then linf": threats.compose(threats.spatial(20, 1), threats.linf(0.05)),
    "two norms": threats.compose(threats.linf(0.05), threats.l2(0.1)),
    "union": threats.union(linf=0.1, l2=0.5, l1=1.0),
    "from outside": Brightness(jnp.asarray(0.1)),
}
BIND = {
    "PGD": lambda threat: attacks.PGD(threat=threat, steps=2),
    "FGSM": lambda threat: attacks.FGSM(threat=threat),
    "WorstOfK": lambda threat: attacks.WorstOfK(threat=threat, k=2),
    "RandomTransform": lambda threat: attacks.RandomTransform(threat=threat),
    "SpatialGrid": lambda threat: attacks.SpatialGrid(threat=threat, counts=(2, 1, 2)),
    "SpatialGrid, inner": lambda threat: attacks.SpatialGrid(
        threat=threat, counts=(2, 1, 2), inner=inner
    ),
    "APGD": lambda threat: attacks.APGD(threat=threat, steps=2),
    "FAB": lambda threat: attacks.FAB(threat=threat, steps=2),
    "Square": lambda threat: attacks.Square(threat=threat, queries=3),
    "MinMargin": lambda threat: attacks.MinMargin(threat=threat, steps=2, targets=1),
    "PMA": lambda threat: attacks.PMA(threat=threat, steps=4),
    "CR": lambda threat: attacks.CR(threat=threat, steps=6, period=3, targets=2, restarts=2),
    "MALT, APGD": lambda threat: attacks.MALT(
        attack=attacks.APGD(threat=threat, loss="margin_targeted", steps=2), targets=2
    ),
    "MALT, FAB": lambda threat: attacks.MALT(attack=attacks.FAB(threat=threat, steps=2)),
    "FMN": lambda threat: attacks.FMN(threat=threat, steps=20),
    "DDN": lambda threat: attacks.DDN(threat=threat, steps=20),
    "PDPGD": lambda threat: attacks.PDPGD(threat=threat, steps=20),
    "SigmaZero": lambda threat: attacks.SigmaZero(threat=threat, steps=20),
    "DeepFool": lambda threat: attacks.DeepFool(threat=threat, steps=5),
    "SuperDeepFool": lambda threat: attacks.SuperDeepFool(
        threat=threat, steps=2, deepfool_steps=3, search_steps=3
    ),
}
ANY, NORMS = set(THREATS), {"linf", "l2", "l1"}
TAKEN = dict.fromkeys(("PGD", "WorstOfK", "RandomTransform"), ANY)
TAKEN |= {"FGSM": ANY - {"union"}}  # it has no random start, which draws the member
TAKEN |= dict.fromkeys(("APGD", "FAB", "Square", "MinMargin", "MALT, APGD", "MALT, FAB"), NORMS)
TAKEN |= {"PMA": {"linf"}, "CR": {"linf"}}
TAKEN |= {"FMN": NORMS | {"l0"}, "PDPGD": NORMS | {"l0"}, "DDN": {"l2"}, "SigmaZero": {"l0"}}
TAKEN |= {"DeepFool": {"l2", "linf"}, "SuperDeepFool": {"l2"}}
TAKEN |= {"SpatialGrid": {"spatial"}, "SpatialGrid, inner": {"spatial, then linf"}}


@pytest.mark.parametrize("attack", BIND)
def test_every_threat_is_attacked_or_refused_before_anything_runs(attack):
    @jax.jit
    def run(bound, key, images, labels):
        return bound(network, key, images, labels)

    clean = np.asarray(losses.cross_entropy(network(IMAGES), jnp.asarray(LABELS)))
    for name, threat in THREATS.items():
        if name not in TAKEN[attack]:
            with pytest.raises(InputError, match=r"^(threat|inner)\b") as said:
                BIND[attack](threat)
            assert threats.described(threat) in str(said.value) or "inner" in str(said.value)
            continue
        found = run(BIND[attack](threat), KEY, IMAGES, LABELS)
        assert isinstance(found, Attacked), name
        images = np.asarray(found.images)
        assert 0 <= images.min() <= images.max() <= 1
        wrong = np.asarray(network(images).argmax(-1)) != LABELS
        np.testing.assert_array_equal(found.success & ~wrong, False)
        if attack in ("PGD", "FGSM") and name in NORMS:
            after = np.asarray(losses.cross_entropy(network(images), jnp.asarray(LABELS)))
            assert after.mean() > clean.mean(), name


@pytest.mark.parametrize("attack", ["PGD", "FGSM"])
def test_a_threat_without_a_default_step_needs_one(attack):
    with pytest.raises(ValueError, match="step_size must be given for Stepless"):
        getattr(attacks, attack)(threat=Stepless())
    bound = getattr(attacks, attack)(threat=Stepless(), step_size=0.05)
    assert bound(network, KEY, IMAGES, LABELS).images.shape == IMAGES.shape


@pytest.mark.parametrize("norm", sorted(NORMS))
def test_bound_attacks_are_their_functions(norm):
    ball = {"norm": norm, "eps": THREATS[norm].eps}
    given = network, KEY, IMAGES, LABELS
    targets = (LABELS + 1) % 3
    for bound, function, options in (
        (attacks.APGD(threat=THREATS[norm], steps=4), attacks.apgd, {"steps": 4}),
        (attacks.FAB(threat=THREATS[norm], steps=3), attacks.fab, {"steps": 3}),
    ):
        same = jax.tree.map(np.array_equal, bound(*given), function(*given, **ball, **options))
        assert all(jax.tree.leaves(same)), bound
    targeted = attacks.APGD(threat=THREATS[norm], loss="margin_targeted", steps=3)
    found = targeted(*given, targets)
    assert np.isfinite(found.loss).all()
    with pytest.raises(InputError, match="targets .* must be given for .*'margin_targeted'"):
        targeted(*given)


@pytest.mark.parametrize(
    "norm", ["linf", *(pytest.param(norm, marks=pytest.mark.slow) for norm in ("l1", "l2"))]
)
def test_square_in_parts_is_square_and_nothing_depends_on_who_left(norm):
    keys = jax.random.split(KEY, 6)
    given = network, keys, IMAGES, np.asarray(network(IMAGES).argmax(-1))
    bound = attacks.Square(threat=THREATS[norm], queries=9, chunk=4)
    assert bound.parts == 3
    whole, state = bound(*given), bound.begin(*given)
    for number in range(bound.parts):
        state = bound.go_on(network, number, state, *given[1:])
    found = bound.end(state, IMAGES)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, whole, found)))
    assert np.asarray(found.queries).max() <= bound.passes(3, targeted=False)[0] == 10
    few = jax.tree.map(lambda leaf: leaf[3:], given[1:])
    np.testing.assert_array_equal(bound(network, *few).images, whole.images[3:])


@pytest.mark.parametrize("name", ["PMA", "CR", "MALT, APGD", "MALT, FAB"])
def test_attacks_in_parts_are_the_whole_attacks(name):
    """Also where every example runs beside others; with the passes that each one took."""
    keys = jax.random.split(KEY, 6)
    given = network, keys, IMAGES, np.asarray(network(IMAGES).argmax(-1))
    bound = BIND[name](threats.linf(0.1))
    whole, state = bound(*given), bound.begin(*given)
    for number in range(bound.parts):
        rows = np.flatnonzero(~np.asarray(bound.done(state)))
        if not len(rows):
            break
        some = jax.tree.map(lambda leaf, rows=rows: leaf[rows], (state, *given[1:]))
        new = bound.go_on(network, np.int32(number), *some)
        state = jax.tree.map(lambda old, new, rows=rows: old.at[rows].set(new), state, new)
    assert np.asarray(bound.done(state)).all() or name == "PMA"
    found = bound.end(state, IMAGES)
    assert 0 < np.asarray(found.success).sum() < 6
    np.testing.assert_array_equal(found.success, whole.success)
    fooled = np.asarray(found.success)
    np.testing.assert_allclose(found.images[fooled], whole.images[fooled], atol=1e-6)
    most = bound.passes(3, targeted=False)
    for counted, limit in zip((found.queries, found.backwards), most, strict=True):
        assert (np.asarray(counted) <= limit).all()
        assert (np.asarray(counted)[~fooled] == limit).all() or name == "CR"
    np.testing.assert_array_equal(found.queries, whole.queries)
    np.testing.assert_array_equal(found.backwards, whole.backwards)


def test_malt_wants_an_attack_with_targets():
    for wrong in (attacks.APGD(threat=threats.linf(0.1)), attacks.PGD(threat=threats.linf(0.1))):
        with pytest.raises(InputError, match="attack must take target classes"):
            attacks.MALT(attack=wrong)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shift:
    """A threat from outside that offers a grid: shifts to the right by whole pixels."""

    most: jax.Array

    def init(self, key, x):
        return jnp.zeros((), x.dtype)

    def apply(self, z, x):
        return jnp.roll(x, jnp.round(z).astype(jnp.int32), 1)

    def on_grid(self, point, x):
        return point[0] * self.most


def test_a_grid_searches_every_threat_that_offers_one():
    images = jnp.zeros((2, 3, 5, 1)).at[:, 1, 2].set(1)

    def logits_fn(x):
        return jnp.stack([0.5 + 0 * x[:, 1, 4, 0], x[:, 1, 4, 0]], -1)

    bound = attacks.SpatialGrid(threat=Shift(jnp.asarray(2.0)), counts=(5, 1, 1))
    found = bound(logits_fn, KEY, images, jnp.zeros(2, int))
    assert found.success.all()
    assert found.perturbation.tolist() == [2.0, 2.0]


MINIMUM_NORM = {
    "FMN": ("l1", lambda *a: attacks.fmn(*a, norm="l1", steps=20, escape=True)),
    "DDN": ("l2", lambda *a: attacks.ddn(*a, steps=20)),
    "PDPGD": ("linf", lambda *a: attacks.pdpgd(*a, norm="linf", steps=20)),
    "SigmaZero": ("l0", lambda *a: attacks.sigma_zero(*a, steps=20)),
    "DeepFool": ("linf", lambda *a: attacks.deepfool(*a, norm="linf", steps=5)),
    "SuperDeepFool": (
        "l2",
        lambda *a: attacks.superdeepfool(*a, steps=2, deepfool_steps=3, search_steps=3),
    ),
}


@pytest.mark.parametrize("name", MINIMUM_NORM)
def test_bound_minimum_norm_attacks_are_their_functions_within_the_radius(name):
    norm, function = MINIMUM_NORM[name]
    labels = np.array(network(IMAGES).argmax(-1))
    labels[0] = (labels[0] + 1) % 3  # an error of the clean image
    given = network, KEY, IMAGES, labels
    free = function(*given)
    assert free.distance[0] == 0
    # Half of those that are not misclassified as they are.
    eps = np.median(free.distance[(free.distance > 0) & np.isfinite(free.distance)])
    traces = []

    @jax.jit
    def run(bound):
        traces.append(name)
        return bound(*given)

    found = run(BIND[name](getattr(threats, norm)(eps)))
    np.testing.assert_array_equal(found.distance, free.distance)
    np.testing.assert_array_equal(found.perturbation, free.perturbation)
    np.testing.assert_array_equal(found.success, free.distance <= eps)
    assert 1 < found.success.sum() <= free.success.sum()
    inside = np.asarray(found.success)[:, None, None, None]
    np.testing.assert_array_equal(found.images, np.where(inside, free.images, IMAGES))
    none = run(BIND[name](getattr(threats, norm)(0)))
    np.testing.assert_array_equal(none.success, free.distance == 0)
    assert traces == [name]
    forwards, backwards = BIND[name](getattr(threats, norm)(eps)).passes(3, targeted=False)
    assert (forwards, backwards) == {
        "DeepFool": (5, 10), "SuperDeepFool": (2 * 5 + 3, 2 * (3 * 2 + 1)),
    }.get(name, (20, 20))  # fmt: skip


def test_bound_attacks_towards_targets_reach_them():
    targets = (np.asarray(network(IMAGES).argmax(-1)) + 1) % 3
    for bound in (
        attacks.FMN(threat=threats.l2(5.0), steps=30),
        attacks.DDN(threat=threats.l2(5.0), steps=30),
        attacks.PDPGD(threat=threats.linf(1.0), steps=30),
    ):
        found = bound(network, KEY, IMAGES, LABELS, targets)
        assert found.success.any()
        reached = np.asarray(network(found.images).argmax(-1)) == targets
        np.testing.assert_array_equal(reached[np.asarray(found.success)], True)
