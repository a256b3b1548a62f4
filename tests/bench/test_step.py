"""The tables of step times, and that memory does not grow with the attack's steps."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from benchmarks import form_tables as forms
from jaxrobust import models, objectives
from jaxrobust.bench import _step as bench


def tiny():
    model = models.digits_cnn(width=2, batch_norm=True)
    images = jax.random.randint(jax.random.key(0), (4, 8, 8, 1), 0, 255).astype(jnp.uint8)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)
    return bench.Setting(model, variables, images, jnp.arange(4))


def test_a_row_per_objective(monkeypatch):
    monkeypatch.setattr(bench, "setting", lambda *args, **kwargs: tiny())
    monkeypatch.setattr(forms, "setting", lambda *args, **kwargs: tiny())
    (row,) = bench.step_table(["trades"], steps=3, repeats=1)
    assert (row.attack_passes, row.forwards, row.outer_passes) == (3, 1, 2)
    parts = row.attack_seconds + row.forward_seconds + row.outer_seconds
    assert row.ratio == pytest.approx(row.seconds / parts)
    rows = forms.loop_table(steps=(2, 4), repeats=1)
    assert [(r.form, r.steps) for r in rows] == [("unrolled", 2), ("rolled", 2), ("rolled", 4)]


def test_a_row_per_transform(monkeypatch):
    monkeypatch.setattr(bench, "setting", lambda *args, **kwargs: tiny())
    monkeypatch.setattr(forms, "setting", lambda *args, **kwargs: tiny())
    rows = forms.transform_table(steps=1, repeats=1)
    assert [row.method for row in rows] == ["bilinear", "nearest"]
    assert all(row.share == pytest.approx(1 - row.plain_seconds / row.seconds) for row in rows)


def test_loops_that_disagree_are_not_reported(monkeypatch):
    monkeypatch.setattr(bench, "setting", lambda *args, **kwargs: tiny())
    monkeypatch.setattr(forms, "setting", lambda *args, **kwargs: tiny())
    monkeypatch.setattr(forms, "_attack", lambda b, steps, unroll, v: jnp.float32(unroll))
    with pytest.raises(AssertionError, match="disagree"):
        forms.loop_table(steps=(2, 4), repeats=1)


def test_memory_of_a_step_does_not_grow_with_the_attack():
    sizes = []
    for steps in (2, 16):
        run, state = bench.step_program(tiny(), objectives.trades(steps=steps))
        sizes.append(run.lower(state).compile().memory_analysis().temp_size_in_bytes)
    assert sizes[0] > 0
    assert sizes[1] <= 1.02 * sizes[0]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="objective 'Batch' is unknown"):
        bench.objective_of("Batch", 2)
    with pytest.raises(ValueError, match="model 'resnet7' is unknown"):
        bench.setting("resnet7", width=1, batch_size=1)
    with pytest.raises(ValueError, match="model 'mlp' has no width"):
        bench.setting("mlp", width=1, batch_size=1)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_pytorch_computes_the_same():
    from benchmarks.pytorch_passes import torch_table

    rows = torch_table(width=4, batch_size=2, repeats=1)
    assert [r.program for r in rows] == ["forward", "input gradient", "training gradients"]
    assert all(r.difference < 1e-3 for r in rows)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.filterwarnings("ignore")  # what PyTorch's compiler tells of itself
def test_the_step_in_pytorch_has_the_same_loss():
    from benchmarks.pytorch_step import torch_step_table

    rows = torch_step_table(width=4, batch_size=4, steps=2, repeats=1)
    assert {row.form for row in rows} == {"jaxrobust", "PyTorch eager", "PyTorch torch.compile"}
    eager = [row for row in rows if row.form != "PyTorch torch.compile"]  # that may fail to build
    assert all(not row.problem and row.loss_difference < 0.01 for row in eager)
