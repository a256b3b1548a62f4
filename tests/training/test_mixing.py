"""A mixing network trained by the loop that trains everything else."""

import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxrobust import evaluation, mixing, models, objectives, threats
from jaxrobust.data import digits
from jaxrobust.experiment import Evaluation, Experiment, Validation, replace, use
from jaxrobust.objectives import Batch
from jaxrobust.training import (
    Checkpoints,
    TrainState,
    export_network,
    load_base,
    load_run,
    read_rows,
    train,
)

pytestmark = pytest.mark.slow

ONE = jax.devices()[:1]
EPS = 0.15


def base(name, objective, epochs):
    return Experiment(
        name=name,
        data=use("digits"),
        model=use("digits_cnn", width=4),
        objective=objective,
        threat=use("linf", eps=EPS),
        learning_rate=use("cosine", peak=0.1),
        epochs=epochs,
        batch_size=128,
        validation=Validation(size=0),
        evaluation=Evaluation(batch_size=90),
    )


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """An accurate and a robust digits network, as runs in a folder."""
    folder = tmp_path_factory.mktemp("bases")
    for config in (
        base("std", use("standard"), 5),
        base("rob", use("pgd_at", steps=2), 5),
    ):
        train(config, folder / config.name, devices=ONE, quiet=True)
    return folder


def mixing_experiment(folder, **changes):
    objective = use("adaptive_smoothing", copies=4, steps=3, weight=0.1, **changes)
    return Experiment(
        name="mixing",
        data=use("digits"),
        model=use(
            "mixed_classifier",
            std=str(folder / "std"),
            rob=str(folder / "rob"),
            planes=(8, 8, 8),
            alpha_scale=0.5,
            alpha_bias=0.5,
        ),
        objective=objective,
        threat=use("linf", eps=EPS),
        optimizer=use("adamw", weight_decay=1e-5),
        learning_rate=use("exponential_warmup", peak=2e-2),
        clip_norm=10.0,
        epochs=6,
        batch_size=128,
        validation=Validation(size=0),
        evaluation=Evaluation(batch_size=90),
    )


@pytest.fixture(scope="module")
def trained(bases):
    with jax.numpy_dtype_promotion("standard"):  # Optax's AdamW is not strict
        return train(mixing_experiment(bases), bases / "mixing", devices=ONE, quiet=True)


def test_it_learns_to_tell_attacked_images_and_the_bases_stay(bases, trained):
    rows = read_rows(bases / "mixing" / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.75 * rows[0]["loss"]
    assert rows[-1]["detected"] > max(0.68, rows[0]["detected"] + 0.1)
    assert list(trained.state.params) == ["mixing"]
    for name in ("std", "rob"):
        own = load_base(bases / name, num_classes=10)
        jax.tree.map(
            np.testing.assert_array_equal,
            jax.device_get(
                (getattr(trained.model, name).params, getattr(trained.model, name).state)
            ),
            jax.device_get((own.params, own.state)),
        )


def test_a_run_is_read_back_and_deployed(bases, trained):
    """The network of the run, and `mixing.mixed` of its parts: the same log-probabilities."""
    run = load_run(bases / "mixing")
    images, labels = (x[:90] for x in run.dataset.floats("test"))
    model, weights = run.logits_fn.network, (run.logits_fn.params, run.logits_fn.state)
    both = model.deployed(*weights)
    outputs = both.outputs(images)
    np.testing.assert_allclose(run.logits_fn(images), outputs.log_probs, atol=1e-5)
    assert 0.5 <= outputs.alpha.min() < outputs.alpha.max() <= 1
    other = model.deployed(*weights, gamma_bias=1.0).outputs(images)
    np.testing.assert_allclose(other.gamma - outputs.gamma, 0.6, atol=1e-4)

    attacks = evaluation.pgd_attacks(threats.linf(EPS), steps=3)
    result = evaluation.evaluate(both, images, labels, attacks=attacks, batch_size=90)
    assert result.clean.value > 0.8
    # What the network was trained for: attacked images get more of the robust base.
    attacked = both.outputs(jnp.asarray(result.adversarial_images["margin_pgd"]))
    assert attacked.gamma.mean() > outputs.gamma.mean()


def test_other_bases_are_refused_and_old_checkpoints_are_read(bases, trained, tmp_path):
    """Checkpoints once held the bases' weights; now the folder keeps their digest."""
    folder = tmp_path / "mixing"
    shutil.copytree(bases / "mixing", folder)
    (folder / "constants.sha256").write_text("0" * 64)
    with pytest.raises(
        ValueError, match="bases of .*mixing are not those that it was trained with"
    ):
        load_run(folder)

    Old = NamedTuple("Old", [(name, Any) for name in (*TrainState._fields, "frozen")])
    for number, frozen in enumerate((None, {"std": {"params": trained.model.std.params}})):
        with ocp.CheckpointManager(tmp_path / str(number)) as manager:
            manager.save(
                int(trained.state.step), args=ocp.args.StandardSave(Old(*trained.state, frozen))
            )
        _, state = Checkpoints(tmp_path / str(number)).restore_last(trained.state)
        jax.tree.map(np.testing.assert_array_equal, state, trained.state)


@pytest.mark.parametrize("attack", ["apgd", "pgd"])
def test_the_attacked_copies(bases, attack):
    """So many of each first image, inside 1.1 eps, different in strength, and worse for the mix."""
    std, rob = (load_base(bases / name, num_classes=10) for name in ("std", "rob"))
    model = models.mixed_classifier(std=std, rob=rob, planes=(4, 4, 4))
    images, labels = (x[:40] for x in digits().floats("test"))
    weights = model.init(jax.random.key(0), images)
    objective = objectives.adaptive_smoothing(copies=5, steps=4, attack=attack)

    @jax.jit
    def found(weights, key):
        def outputs_fn(x):
            return model.apply(*weights, x, train=False, method="outputs")[0]

        views = objective.inner(outputs_fn, key, Batch(images, labels), threats.linf(EPS))
        return views, outputs_fn(views.images["both"])

    views, outputs = found(weights, jax.random.key(1))
    both, extras = np.asarray(views.images["both"]), views.extras
    assert both.shape == (80, 8, 8, 1)
    np.testing.assert_array_equal(both[:40], images)
    np.testing.assert_array_equal(extras["attacked"], [0] * 40 + [1] * 40)
    np.testing.assert_array_equal(extras["labels"][40:], np.tile(labels[:8], 5))
    size = np.abs(both[40:] - np.tile(images[:8], (5, 1, 1, 1))).max((1, 2, 3))
    assert size.max() <= 1.1 * EPS + 1e-6
    assert size.max() > EPS
    assert size.min() < 0.9 * EPS
    right = np.asarray(outputs.log_probs.argmax(-1) == extras["labels"])
    assert right[40:].mean() < right[:40].mean() - 0.3


def test_the_loss_of_a_step(bases):
    """Per example the composite loss, clean examples by their own scale."""
    objective = objectives.adaptive_smoothing(bce=1.0, ce=0.5, product=0.1, clean_scale=2.0)
    log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (6, 3)))
    gamma = jnp.linspace(-2.0, 2.0, 6)
    labels, attacked = jnp.arange(6) % 3, jnp.array([0, 0, 0, 1, 1, 1])
    outputs = mixing.MixedOutputs(log_probs, log_probs, log_probs, gamma, gamma)
    extras = {"attacked": attacked, "labels": labels}
    loss, metrics = objective.outer({"both": outputs}, Batch(None, None), extras)
    weights = {"bce": 1.0, "ce": 0.5, "product": 0.1}
    plain = mixing.mixing_loss(log_probs, gamma, labels, attacked, **weights)
    np.testing.assert_allclose(loss, plain * jnp.array([2.0, 2, 2, 1, 1, 1]), rtol=1e-6)
    assert metrics["detected"].tolist() == [1] * 6


def test_clear_errors(bases, tmp_path):
    experiment = mixing_experiment(bases)
    wrong = {
        "needs a network that has outputs": {"model": use("digits_cnn", width=4)},
        "multiple of copies": {"objective": use("adaptive_smoothing", copies=7, steps=1)},
        "threat must be linf, l2 or l1": {
            "threat": use("spatial", max_degrees=10.0, max_shift_px=1.0)
        },
        "holds no run": {"model": use("mixed_classifier", std="nowhere", rob="nowhere")},
        "a base needs 'network'": {
            "model": use("mixed_classifier", std={"weights": "x.pt"}, rob={})
        },
    }
    for number, (message, changes) in enumerate(wrong.items()):
        config = replace(experiment, **changes)
        with jax.numpy_dtype_promotion("standard"), pytest.raises(ValueError, match=message):
            train(config, tmp_path / str(number), devices=ONE, quiet=True)
    with pytest.raises(ValueError, match="must be a network with its weights"):
        models.mixed_classifier(std="runs/a", rob="runs/b")
    with pytest.raises(ValueError, match="attack must be"):
        objectives.adaptive_smoothing(attack="fgsm")


def test_a_mixed_classifier_is_not_exported(trained, tmp_path):
    with pytest.raises(ValueError, match="is a mixed classifier, whose bases are runs"):
        export_network(trained.workdir, tmp_path / "out")
    assert not (tmp_path / "out").exists()
