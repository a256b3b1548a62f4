"""Runs of recipes that carry a state: resumed exactly, in groups, read back, and refused."""

from dataclasses import replace
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxrobust.experiment import Experiment, Validation, use
from jaxrobust.training import TrainState, load_run, train, train_many

ONE = jax.devices()[:1]
UNION = use("union", linf=0.1, l1=2.0)


def config(objective, **changes):
    fields = {
        "name": "run",
        "data": use("synthetic", size=8, train=48, test=8),
        "model": use("digits_cnn", width=2, batch_norm=True),
        "objective": objective,
        "threat": use("linf", eps=0.1),
        "learning_rate": use("constant", value=0.05),
        "epochs": 2,
        "batch_size": 16,
        "validation": Validation(size=0),
    }
    return Experiment(**fields | changes)


AVERAGED = {"ema_decay": 0.5, "ema_copied_steps": 1, "ema_batch_stats": "average", "awp": 0.01}
RUNS = {
    "pgi": config(use("pgi", reset=1)),
    "gkl": config(use("gkl", steps=1, gamma=0.4, temperature=4), **AVERAGED),
    "eat": config(use("eat", steps=1), threat=UNION),
    "liet": config(use("liet", every=2)),
    "lbgat": config(use("lbgat", steps=1), teacher=use("digits_cnn", width=3, batch_norm=True)),
}


@pytest.mark.parametrize("name", ["pgi", "gkl", "lbgat"])
def test_a_resumed_run_has_the_same_state_bit_for_bit(name, tmp_path):
    experiment, options = RUNS[name], {"quiet": True, "devices": ONE}
    said = []
    whole = train(experiment, tmp_path / "whole", say=said.append, **options)
    train(experiment, tmp_path / "parts", stop_at=2, **options)
    parts = train(experiment, tmp_path / "parts", resume=True, **options)
    chex.assert_trees_all_equal(*jax.device_get((whole.state, parts.state)))
    assert (name == "pgi") == any(
        "PGI keeps delta and momentum of 48 examples: 0.1 MB" in line for line in said
    )
    if name == "gkl":
        assert np.allclose(whole.state.objective["class_prior"].sum(1), 1)
        assert not np.allclose(whole.state.objective["class_prior"], 0.1)
    run = load_run(tmp_path / "parts", say=said.append)
    assert run.logits_fn(np.full((1, 8, 8, 3), 0.5, np.float32)).shape == (1, 10)


def test_a_group_carries_what_each_of_its_runs_carries_alone(tmp_path):
    members = [replace(RUNS["pgi"], name=str(seed), seed=seed) for seed in (0, 1)]
    folders = [tmp_path / member.name for member in members]
    together = train_many(members, folders, quiet=True, devices=ONE)
    for member, run in zip(members, together, strict=True):
        alone = train(member, tmp_path / f"alone-{member.name}", quiet=True, devices=ONE)
        found, expected = jax.device_get((run.state.objective, alone.state.objective))
        same = np.isclose(found["delta"], expected["delta"], atol=1e-5)
        assert same.mean() > 0.999  # signs of vanishing gradients may differ
        np.testing.assert_allclose(found["momentum"], expected["momentum"], atol=1e-4)
    assert not np.allclose(*(np.asarray(run.state.objective["delta"]) for run in together))


def test_a_helper_is_read_for_training_and_not_for_evaluation(tmp_path):
    standard = config(use("standard"), name="standard")
    helper = train(standard, tmp_path / "standard", quiet=True, devices=ONE).workdir
    experiment = config(use("hat", steps=1), name="hat", helper=str(helper), epochs=1)
    run = train(experiment, tmp_path / "hat", quiet=True, devices=ONE)
    assert run.model.helper is not None
    helper.rename(tmp_path / "elsewhere")
    images = np.full((1, 8, 8, 3), 0.5, np.float32)
    logits = load_run(tmp_path / "hat").logits_fn(images)
    np.testing.assert_allclose(logits, run.state.logits_fn(run.model)(images), atol=1e-5)


def test_objectives_without_state_resume_checkpoints_of_older_versions(tmp_path):
    experiment = config(use("trades", steps=1))
    options = {"quiet": True, "devices": ONE}
    first = train(experiment, tmp_path / "run", stop_at=3, **options)
    names = [name for name in TrainState._fields if name != "objective"]
    older: Any = NamedTuple("Older", [(name, Any) for name in names])
    folder = tmp_path / "run" / "checkpoints"
    with ocp.CheckpointManager(tmp_path / "older") as manager:
        old = older(**{name: getattr(first.state, name) for name in names})
        manager.save(3, args=ocp.args.StandardSave(old))
    for step in folder.iterdir():
        if step.name == "3":
            (tmp_path / "older" / "3").rename(tmp_path / "3")
            step.rename(tmp_path / "new-3")
            (tmp_path / "3").rename(folder / "3")
    said = []
    found = train(experiment, tmp_path / "run", resume=True, say=said.append, **options)
    whole = train(experiment, tmp_path / "whole", **options)
    chex.assert_trees_all_equal(*jax.device_get((found.state, whole.state)))
    assert not any("cannot be read" in line for line in said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": use("lbgat")}, "teacher must be given: the objective lbgat needs one"),
        ({"objective": use("hat")}, "helper must be given: the objective hat needs one"),
        ({"objective": use("trades"), "helper": "x"}, "helper must be None.*has no use for it"),
        ({"objective": use("pgi"), "teacher": use("mlp")}, "teacher must be None"),
    ],
)
def test_networks_that_are_missing_or_useless_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        config(**changes)


def test_what_cannot_be_trained_is_told_in_one_line_before_a_folder_is_made(tmp_path):
    for experiment, said in (
        (config(use("eat", steps=1)), "union of norms for eat"),
        (config(use("n_fgsm"), threat=use("l2", eps=0.5)), "threat must be linf for n_fgsm"),
        (config(use("n_fgsm"), microbatches=2), "microbatches must be 1"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            train(experiment, tmp_path / "none", quiet=True, devices=ONE)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "none").exists()


def test_memory_needs_the_numbers_of_examples():
    from jaxrobust.objectives import Sizes, pgi, trades
    from jaxrobust.training._prepare import check_memory

    sizes = Sizes(10, (32, 32, 3), 50_000)
    said = []
    with pytest.raises(ValueError, match="delta and momentum of every training example.*streamed"):
        check_memory(pgi(), sizes, streamed=True, say=said.append)
    check_memory(pgi(), sizes, streamed=False, say=said.append)
    check_memory(trades(), sizes, streamed=True, say=said.append)
    assert said == [
        "PGI keeps delta and momentum of 50,000 examples: 1,228.8 MB on every device and in every "
        "checkpoint"
    ]


def test_a_collapse_of_robustness_is_told_once_and_the_best_checkpoint_stays(tmp_path, monkeypatch):
    """Catastrophic overfitting: robust in training, not under PGD on held-out examples."""
    scores = iter([0.4, 0.5, 0.1, 0.0, 0.45, 0.2])
    monkeypatch.setattr(
        "jaxrobust.training._prepare.Validator.__call__",
        lambda *_: {"accuracy": 0.9, "robust_accuracy": next(scores)},
    )
    said = []
    experiment = config(use("fgsm_rs"), validation=Validation(size=16, steps=1), epochs=6)
    options = {"quiet": True, "devices": ONE, "say": said.append}
    train(experiment, tmp_path / "run", stop_at=4, **options)
    train(experiment, tmp_path / "run", resume=True, **options)
    warned = [line for line in said if "catastrophic overfitting" in line]
    assert [line.partition(" has fallen ")[2][:43] for line in warned] == [
        "from 50.0% to 10.0% at step 6, against the ",
        "from 50.0% to 20.0% at step 12, against the",
    ]
    assert all("the best checkpoint stays that of step 4" in line for line in warned)
    assert load_run(tmp_path / "run").step == 4
