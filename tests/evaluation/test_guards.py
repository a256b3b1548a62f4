"""What evaluations notice of networks: training mode, NaN, another network, closures as arguments."""

import gc
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrobust import evaluation, losses, mixing, models, threats
from jaxrobust.evaluation._identity import Identity
from jaxrobust.evaluation._store import ITEM, Store
from jaxrobust.verdicts import misclassified

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(12, 4, 4, 1)).astype(np.float32)
QUICK = {"norm": "linf", "eps": 0.05, "version": "custom", "attacks": ["apgd-ce"], "steps": 3}
PGD = {"pgd": evaluation.PGD(threat=threats.linf(0.05), steps=2)}


def weights_of(seed, width=3):
    return jax.random.normal(jax.random.key(seed), (16, width))


def linear(weights):
    return lambda x: x.reshape(len(x), -1) @ weights


def labels_of(logits_fn):
    return np.asarray(logits_fn(IMAGES).argmax(-1))


LABELS = labels_of(linear(weights_of(0)))


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=True):
        x = nn.BatchNorm(use_running_average=not train)(x.reshape(len(x), -1))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


class Parts(nnx.Module):
    def __init__(self, rngs):
        self.norm, self.drop = nnx.BatchNorm(16, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(self.norm(x.reshape(len(x), -1))))


class Dropped(eqx.Module):
    out: eqx.nn.Linear
    drop: eqx.nn.Dropout

    def __init__(self, key):
        self.out, self.drop = eqx.nn.Linear(16, 3, key=key), eqx.nn.Dropout(0.5)

    def __call__(self, x):
        return self.out(self.drop(x.reshape(-1)))


def batch_normed(x):
    flat = x.reshape(len(x), -1)
    mean, spread = flat.mean(0, keepdims=True), flat.std(0, keepdims=True)
    return ((flat - mean) / (spread + 1e-3)) @ weights_of(0)


def in_training_mode():
    linen, module = Normed(), Parts(nnx.Rngs(0))
    variables = linen.init(jax.random.key(0), IMAGES, train=False)
    rngs = {"dropout": jax.random.key(1)}
    equinox = Dropped(jax.random.key(0))
    return {
        "the batch's own statistics": batch_normed,
        "masked class": lambda x: batch_normed(x).at[:, 1].set(-1e9),
        "place in the batch": lambda x: (
            linear(weights_of(0))(x) + jnp.arange(float(len(x)))[:, None] * jnp.eye(3)[:1]
        ),
        "what came before": lambda x: batch_normed(x - x[:1]),
        "the batch's size": lambda x: linear(weights_of(0))(x) * (1 + 0.1 * len(x)),
        "Linen, statistics": lambda x: linen.apply(variables, x, train=True, rngs=rngs),
        "Linen, dropout": lambda x: linen.apply(variables, x, train=True, mutable=["batch_stats"])[
            0
        ],
        "Linen, all of it": lambda x: linen.apply(
            variables, x, train=True, mutable=["batch_stats"], rngs=rngs
        )[0],
        "NNX": lambda x: module(x),
        "NNX, handed over": module,
        "Equinox": jax.vmap(equinox),
    }


@pytest.mark.parametrize("name", in_training_mode())
@pytest.mark.parametrize("way", ["evaluate", "autoattack"])
def test_a_network_in_training_mode_is_told(name, way):
    network = in_training_mode()[name]
    options = {"attacks": PGD} if way == "evaluate" else QUICK
    with pytest.raises(ValueError, match=r"training mode\?.*train=False.*\.eval\(\).*inference"):
        getattr(evaluation, way)(network, IMAGES, LABELS, **options)


def test_a_transformation_of_nnx_is_not_taken_for_training_mode():
    """It writes all variables back, in evaluation mode too."""
    module = Parts(nnx.Rngs(0))
    module.eval()
    compiled = nnx.jit(lambda module, images: module(images))
    with pytest.raises(ValueError, match=r"logits_fn contains nnx.jit.*without nnx.jit") as caught:
        evaluation.evaluate(lambda x: compiled(module, x), IMAGES, LABELS, attacks={})
    assert "training mode" not in str(caught.value)


@pytest.mark.parametrize("size", [1, 2, 12])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_batches_are_told_at_every_size_and_healthy_networks_pass(size, batch_size):
    few = IMAGES[:size], LABELS[:size]
    with pytest.raises(ValueError, match=r"training mode\?"):
        evaluation.evaluate(batch_normed, *few, attacks={}, batch_size=batch_size)
    for scale in (1e-8, 1.0, 1e8, 0.0):
        network = linear(scale * weights_of(0))
        evaluation.evaluate(network, *few, attacks={}, batch_size=batch_size)


@pytest.mark.slow
def test_networks_in_evaluation_mode_work_as_they_are():
    module, linen, equinox = Parts(nnx.Rngs(0)), Normed(), Dropped(jax.random.key(0))
    module.eval()
    variables = linen.init(jax.random.key(0), IMAGES, train=False)
    for network in (
        module,
        lambda x: module(x),
        module.__call__,
        nnx.jit(lambda x: module(x)),
        models.logits_fn(linen, variables),
        lambda x: linen.apply(variables, x, train=False),
        jax.vmap(eqx.nn.inference_mode(equinox)),
    ):
        labels = np.asarray(network(IMAGES).argmax(-1))
        assert evaluation.evaluate(network, IMAGES, labels, attacks=PGD).clean.value == 1
        assert evaluation.autoattack(network, IMAGES, labels, **QUICK).clean_accuracy.value == 1


def test_nan_counts_as_wrong_is_counted_and_fails_a_check():
    def network(x):
        moved = jnp.abs(x * 16 - jnp.round(x * 16)).max((1, 2, 3)) > 1e-3
        return jnp.where(moved[:, None], jnp.nan, linear(weights_of(0))(x))

    grey = np.round(IMAGES * 14 + 1) / 16
    labels = np.asarray(network(grey).argmax(-1))
    attacks = evaluation.pgd_attacks(threats.linf(0.05), steps=2)
    result = evaluation.evaluate(network, grey, labels, attacks=attacks)
    assert result.clean.value == 1
    assert result.worst.value == 0
    assert result.nan_logits == {"clean": 0, "pgd": 12, "margin_pgd": 12}
    assert [c.name for c in result.checks if not c.passed] == ["finite logits"]
    report = evaluation.autoattack(
        network, grey, labels, norm="linf", eps=0.05, version="custom",
        attacks=["apgd-ce", "square"], steps=3, queries=10,
    )  # fmt: skip
    assert report.robust_accuracy.value == 0
    assert report.nan_logits == {"clean": 0, "adversarial": 12}
    assert "finite logits" in [c.name for c in report.checks if not c.passed]
    everywhere = evaluation.evaluate(lambda x: linear(weights_of(0))(x) * jnp.nan, grey, labels, attacks={})  # fmt: skip
    assert everywhere.clean.value == 0
    assert everywhere.nan_logits == {"clean": 12}


def test_overflow_counts_as_wrong_and_a_masked_class_does_not():
    """A tie of infinities would go to class 0, and softmax makes NaN of one."""

    def network(x):
        moved = jnp.abs(x * 16 - jnp.round(x * 16)).max((1, 2, 3)) > 1e-3
        return jnp.where(moved[:, None], jnp.inf, linear(weights_of(0))(x))

    grey = np.round(IMAGES * 14 + 1) / 16
    labels = np.asarray(network(grey).argmax(-1))
    attacks = evaluation.pgd_attacks(threats.linf(0.05), steps=2)
    result = evaluation.evaluate(network, grey, labels, attacks=attacks)
    assert (result.clean.value, result.worst.value) == (1, 0)
    assert result.nan_logits["pgd"] == 12
    assert [c.name for c in result.checks if not c.passed] == ["finite logits"]

    def masked(x):
        return linear(weights_of(0))(x).at[:, 1].set(-jnp.inf)

    result = evaluation.evaluate(masked, grey, np.asarray(masked(grey).argmax(-1)), attacks={})
    assert result.clean.value == 1


@pytest.mark.parametrize("field", ["threat", "step_size"])
def test_a_radius_for_each_example_is_refused(field):
    """The batch size would decide which image gets which."""
    many = np.full(12, 0.1, np.float32)
    settings = {"threat": threats.linf(0.1)} | {field: many}
    settings["threat"] = threats.linf(many) if field == "threat" else settings["threat"]
    attack = evaluation.PGD(**settings, steps=2)
    with pytest.raises(ValueError, match=rf"{field} of attack 'pgd' must be one .*\(12,\)"):
        evaluation.evaluate(linear(weights_of(0)), IMAGES, LABELS, attacks={"pgd": attack})


def test_a_batched_equinox_module_with_flags_is_evaluated():
    class Batched(eqx.Module):
        inner: Dropped

        def __call__(self, x):
            return jax.vmap(self.inner)(x)

    network = eqx.nn.inference_mode(Batched(Dropped(jax.random.key(0))))
    labels = np.asarray(network(IMAGES).argmax(-1))
    assert evaluation.evaluate(network, IMAGES, labels, attacks=PGD).clean.value == 1


def test_one_logit_has_a_negative_class_of_either_label():
    logits = jnp.array([[-1.0], [1.0], [-1.0], [jnp.nan]])
    for negative in (0, -1):
        labels = jnp.array([negative, 1, 1, negative])
        assert misclassified(logits, labels).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (jax.nn.softmax, "logits, not probabilities"),
        (lambda z: 1e4 * z, "cross-entropy saturation"),
    ],
)
def test_both_evaluations_check_the_logits(change, name):
    def network(x):
        return change(linear(weights_of(0))(x))

    result = evaluation.evaluate(network, IMAGES, LABELS, attacks={})
    report = evaluation.autoattack(network, IMAGES, LABELS, **QUICK)
    for checks in (result.checks, report.checks):
        assert name in {check.name for check in checks if not check.passed}
    assert [check["name"] for check in result.figures()["checks"]] == [name]
    healthy = evaluation.evaluate(linear(weights_of(0)), IMAGES, LABELS, attacks={})
    assert all(check.passed for check in healthy.checks)


def test_an_attack_that_leaves_the_box_is_told():
    from jaxrobust.attacks import Attacked

    def attack(logits_fn, keys, images, labels):
        return Attacked(images + 2, jnp.ones(len(images), bool), jnp.zeros(len(images)))

    with pytest.raises(evaluation.AttackResultError, match=r"12 images .*not in \[0, 1\]"):
        evaluation.evaluate(linear(weights_of(0)), IMAGES, LABELS, attacks={"mine": attack})


# ---- closures ----------------------------------------------------------------------------------


def closures(seed):
    """A network in several forms, all over arrays of their own."""
    w, b = weights_of(seed), np.asarray(weights_of(seed + 100, 1))[:3, 0]
    jitted = jax.jit(lambda x: jax.nn.relu(x.reshape(len(x), -1) @ w) + b[None])

    def scanned(x):
        flat = x.reshape(len(x), -1)
        total, _ = jax.lax.scan(lambda c, _: (c + flat @ w, None), jnp.zeros((len(x), 3)), length=2)
        return total + jitted(x)

    return {
        "plain": linear(w),
        "jitted": jitted,
        "numpy": linear(np.asarray(w)),
        "scanned": scanned,
    }


@pytest.mark.slow
@pytest.mark.parametrize("form", closures(0))
def test_three_checkpoints_compile_once_and_leave_nothing(form, compilations):
    jax.clear_caches()  # another form may be the same program
    evaluate = evaluation.evaluate
    counts, kept = [], []
    for seed in range(3):
        network = closures(seed)[form]
        labels = labels_of(network)
        before = len(compilations)
        found = evaluate(network, IMAGES, labels, attacks=PGD, batch_size=8)
        report = evaluation.autoattack(network, IMAGES, labels, **QUICK)
        counts.append([n for n in compilations[before:] if "jit(_" in n or "_batch" in n])
        assert found.clean.value == report.clean_accuracy.value == 1
        del network, found, report
        gc.collect()
        kept.append(sum(a.nbytes for a in jax.live_arrays() if a.shape == (16, 3)))
    assert counts[0]
    assert counts[1] == counts[2] == []
    assert kept[2] == kept[0]


def test_a_function_whose_arrays_change_is_seen_as_it_is_now():
    module = Parts(nnx.Rngs(0))
    module.eval()

    @dataclass
    class Holder:
        weights: Any
        scale: float = 1.0
        shift: dict = field(default_factory=lambda: {"by": 0.0})

        def __call__(self, x):
            return linear(self.weights)(x) * self.scale + self.shift["by"] * jnp.arange(3.0)[None]

    holder, array = Holder(weights_of(0)), np.asarray(weights_of(0)).copy()

    def changed():
        holder.scale = -1.0
        array[:] = -array
        module.out.kernel[...] = -module.out.kernel[...]

    networks = holder, linear(array), (lambda x: module(x)), module, jax.jit(linear(array))
    labels = [np.asarray(f(IMAGES).argmax(-1)) for f in networks]
    for f, y in zip(networks, labels, strict=True):
        assert evaluation.evaluate(f, IMAGES, y, attacks={}).clean.value == 1
    changed()
    for f, y in zip(networks[:4], labels, strict=False):
        now = np.asarray(f(IMAGES).argmax(-1))
        assert (now != y).any()
        assert evaluation.evaluate(f, IMAGES, now, attacks={}).clean.value == 1
    holder.shift["by"] = 50.0
    assert evaluation.evaluate(holder, IMAGES, np.full(12, 2), attacks={}).clean.value == 1


# ---- identity ----------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scaled:
    weights: Any
    temperature: float = field(default=1.0, metadata={"static": True})
    activation: str = field(default="relu", metadata={"static": True})
    detached: bool = field(default=False, metadata={"static": True})

    def __call__(self, x):
        x = jax.lax.stop_gradient(x) if self.detached else x
        h = getattr(jax.nn, self.activation)(x.reshape(len(x), -1) @ self.weights)
        return h / self.temperature


@pytest.mark.parametrize(
    "other",
    [
        {"temperature": 1.001},
        {"activation": "silu"},
        {"detached": True},
        {"weights": jnp.nextafter(weights_of(0), 1)},
    ],
    ids=str,
)
def test_another_network_with_the_same_arrays_is_refused(other, tmp_path):
    first = Scaled(weights_of(0))
    labels = labels_of(first)
    kept = evaluation.autoattack(first, IMAGES, labels, folder=tmp_path, **QUICK)
    again = evaluation.autoattack(Scaled(weights_of(0)), IMAGES, labels, folder=tmp_path, **QUICK)
    assert again.robust_accuracy == kept.robust_accuracy
    changed = Scaled(**{"weights": weights_of(0)} | other)
    with pytest.raises(ValueError, match="holds another evaluation: model differ"):
        evaluation.autoattack(changed, IMAGES, labels, folder=tmp_path, **QUICK)


class Judged:
    """A network that shows its attackers another slope than it has."""

    def __init__(self, sign):
        self.sign = sign

    def __call__(self, x):
        return linear(weights_of(0))(x)

    def judge(self, loss, images, labels):
        logits = self(images)
        return self.sign * loss(logits, labels), logits


def off_the_grid(x):
    """As the linear network on the images that are given, and nowhere else."""
    same = (jnp.abs(x[:, None] - jnp.asarray(IMAGES)[None]).max((2, 3, 4)) == 0).any(1)
    return jnp.where(same[:, None], linear(weights_of(0))(x), 0.0)


@pytest.mark.parametrize(
    ("first", "other"), [(Judged(1), Judged(-1)), (linear(weights_of(0)), off_the_grid)]
)
def test_a_network_that_differs_elsewhere_is_another_one(first, other, tmp_path):
    evaluation.autoattack(first, IMAGES, LABELS, folder=tmp_path, **QUICK)
    evaluation.autoattack(first, IMAGES, LABELS, folder=tmp_path, batch_size=2, **QUICK)
    with pytest.raises(ValueError, match="model differ"):
        evaluation.autoattack(other, IMAGES, LABELS, folder=tmp_path, **QUICK)


def steered(turned):
    """The linear network with a prescribed derivative that may turn away from the given images."""

    @jax.custom_vjp
    def network(x):
        return linear(weights_of(0))(x)

    def backward(x, cotangent):
        slope = (cotangent @ weights_of(0).T).reshape(x.shape)
        given = (jnp.abs(x[:, None] - jnp.asarray(IMAGES)[None]).max((2, 3, 4)) == 0).any(1)
        away = -slope if turned else slope
        return (jnp.where(given[:, None, None, None], slope, away),)

    network.defvjp(lambda x: (network(x), x), backward)
    return network


def test_a_prescribed_derivative_that_differs_elsewhere_is_another_one(tmp_path):
    ran = []
    options = QUICK | {"folder": tmp_path, "progress": lambda item, *_: ran.append(item)}
    for _ in range(2):
        evaluation.autoattack(steered(False), IMAGES, LABELS, **options)
    assert len(ran) == 2, "the second evaluation took up the first one's item"
    with pytest.raises(ValueError, match=r"model differ \(model: other derivatives\)"):
        evaluation.autoattack(steered(True), IMAGES, LABELS, **options)


def test_folders_of_earlier_versions_say_nothing_of_derivatives(tmp_path):
    numbers, names = np.ones((1, 2)), ("arrays", "program", "images", "labels")
    old = Identity(dict.fromkeys(names, "same"), numbers, numbers)
    now = Identity({**old.digests, "derivatives": "mine"}, numbers, numbers)
    Store(tmp_path, {"a": 1}, old).save(0, dict.fromkeys(ITEM, np.ones(2)))
    assert Store(tmp_path, {"a": 1}, now).load(0) is not None
    with pytest.raises(ValueError, match="model: other program"):
        Store(tmp_path, {"a": 1}, Identity(now.digests | {"program": "b"}, numbers, numbers))


def test_a_detached_mixture_is_another_network(tmp_path):
    network = Scaled(weights_of(0))
    guided = mixing.guided(network, guide=Scaled(weights_of(1)))
    evaluation.autoattack(network, IMAGES, LABELS, folder=tmp_path, **QUICK)
    with pytest.raises(ValueError, match="model differ"):
        evaluation.autoattack(guided, IMAGES, LABELS, folder=tmp_path, **QUICK)


SCRIPT = """
import sys, jax, numpy as np
from jaxrobust import evaluation
seed, folder = int(sys.argv[1]), sys.argv[2]
weights = jax.random.normal(jax.random.key(seed), (16, 3))
net = lambda x: x.reshape(len(x), -1) @ weights
x = np.random.default_rng(0).uniform(size=(12, 4, 4, 1)).astype(np.float32)
y = np.random.default_rng(1).integers(0, 3, 12)
ran = []
report = evaluation.autoattack(
    net, x, y, norm="linf", eps=0.05, version="custom", attacks=["apgd-ce"], steps=3,
    folder=folder, progress=lambda item, *_: ran.append(item))
print(len(ran), report.robust_accuracy.correct)
"""


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_plain_function_is_continued_by_another_process_and_another_one_is_not(tmp_path):
    def run(seed):
        command = [sys.executable, "-c", SCRIPT, str(seed), str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True)

    first, second, other = run(0), run(0), run(1)
    ran, robust = first.stdout.split()
    assert int(ran) > 0
    assert second.stdout.split() == ["0", robust]
    assert other.returncode != 0
    assert "model differ" in other.stderr


def test_two_evaluations_at_once_do_not_share_a_folder(tmp_path):
    def nested(item, done, total):
        with pytest.raises(ValueError, match="is in use: evaluation by process"):
            evaluation.autoattack(linear(weights_of(0)), IMAGES, LABELS, folder=tmp_path, **QUICK)

    options = QUICK | {"progress": nested, "folder": tmp_path}
    evaluation.autoattack(linear(weights_of(0)), IMAGES, LABELS, **options)


# ---- data --------------------------------------------------------------------------------------


def test_images_are_kept_where_they_are_few_or_asked_for(monkeypatch):
    from jaxrobust.evaluation import _evaluate

    network = linear(weights_of(0))
    assert set(evaluation.evaluate(network, IMAGES, LABELS, attacks=PGD).adversarial_images) == {"pgd"}  # fmt: skip
    options = {"attacks": PGD, "keep_images": False}
    assert not evaluation.evaluate(network, IMAGES, LABELS, **options).adversarial_images
    monkeypatch.setattr(_evaluate, "KEPT_BYTES", 100)
    large = evaluation.evaluate(network, IMAGES, LABELS, attacks=PGD)
    assert not large.adversarial_images
    assert large.robust.keys() == {"pgd"}


def test_half_precision_images_are_evaluated():
    def network(x):
        return linear(weights_of(0))(x.astype(jnp.float32))

    half = jnp.asarray(IMAGES, jnp.bfloat16)
    labels = np.asarray(network(half).argmax(-1))
    attacks = {"margin": evaluation.PGD(threat=threats.linf(0.05), steps=2, loss=losses.margin)}
    result = evaluation.evaluate(network, half, labels, attacks=attacks)
    assert result.adversarial_images["margin"].dtype == half.dtype
    assert result.clean.value == 1


def test_attacks_whose_classes_have_the_same_fields_are_not_mixed_up():
    def logits_fn(x):
        return (x.mean((1, 2)) - 0.5) @ jnp.array([[10.0, -10.0]])

    images, labels = jnp.full((2, 4, 4, 1), 0.1), jnp.array([1, 1])
    attacks = {
        norm: evaluation.PGD(threat=getattr(threats, norm)(1.0), steps=3, loss=losses.margin)
        for norm in ("linf", "l0")
    }
    found = evaluation.evaluate(logits_fn, images, labels, attacks=attacks)
    moved = [found.adversarial_images[norm] != images for norm in attacks]
    assert moved[0].sum((1, 2, 3)).tolist() == [16, 16]
    assert moved[1].sum((1, 2, 3)).max() <= 1


def test_any_threat_is_evaluated():
    every = (
        threats.spatial(20, 1),
        threats.compose(threats.spatial(20, 1), threats.linf(0.05)),
        threats.l1(1.0),
    )
    for threat in every:
        attacks = evaluation.pgd_attacks(threat, steps=2)
        result = evaluation.evaluate(linear(weights_of(0)), IMAGES, LABELS, attacks=attacks)
        assert result.worst.total == 12


def test_labels_that_were_counted_from_one_are_told():
    network = linear(weights_of(0, 10))
    images = RNG.uniform(size=(40, 4, 4, 1)).astype(np.float32)
    labels = np.asarray(network(images).argmax(-1)) + 1
    images, labels = images[labels < 10], labels[labels < 10]  # no label is out of range
    for way, options in (("evaluate", {"attacks": {}}), ("autoattack", QUICK)):
        with pytest.raises(ValueError, match=r"labels .*counted from 1: 100 % .*, 0 % the label"):
            getattr(evaluation, way)(network, images, labels, **options)


@pytest.mark.parametrize("noise", [0.1, 1.0])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_a_randomised_network_is_evaluated_to_its_end(noise, batch_size):
    def network(x, keys):
        draws = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
        return linear(weights_of(0))(x) + noise * draws

    report = evaluation.autoattack(
        network, IMAGES, LABELS, norm="linf", eps=0.05, version="rand", stochastic=True, steps=3,
        batch_size=batch_size,
    )  # fmt: skip
    assert report.robust_accuracy.value <= report.clean_accuracy.value
