"""An exported network: the same logits without checkpoints, names, damage, and what is refused."""

import json
import shutil
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from jaxrobust import cli, models, training
from jaxrobust.experiment import Experiment, Validation, use
from jaxrobust.networks import LogitsFunction
from jaxrobust.rows import append_row, read_rows
from jaxrobust.training._weights import read_weights, write_weights

BASE = Experiment(
    name="base",
    data=use("synthetic", size=6, train=40, test=8),
    model=use("mlp", hidden=[8]),
    objective=use("trades", beta=2.0, steps=1),
    threat=use("linf", eps=0.1),
    learning_rate=use("constant", value=0.05),
    ema_decay=0.9,
    epochs=2,
    batch_size=16,
    validation=Validation(size=8, steps=1),
)
ONE = jax.devices()[:1]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A run, evaluated by AutoAttack on four images, and its export."""
    folder = tmp_path_factory.mktemp("export")
    training.train(BASE, folder / "run", devices=ONE, say=lambda line: None)
    called(folder, "evaluate", "run", "--attack", "autoattack", "--eps", "16/255", "--n", "4")
    output = called(folder, "export", "run", "out")
    assert "exported base, step 4 (best), to out: README.md, config.copy.json" in output
    return folder / "run", folder / "out"


def called(folder, *arguments):
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        result = CliRunner().invoke(cli.cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def copy(places, tmp_path):
    shutil.copytree(places[1], tmp_path / "out")
    return tmp_path / "out"


def test_the_network_is_that_of_the_run_with_its_averages(places):
    run, out = map(training.load_run, places)
    images = jnp.asarray(run.dataset.floats("test")[0])
    np.testing.assert_array_equal(run.logits_fn(images), out.logits_fn(images))
    assert (out.step, out.experiment) == (run.step, run.experiment)


def test_the_names_are_the_paths_of_the_parameters(places):
    arrays = safetensors.numpy.load_file(places[1] / training.WEIGHTS)
    assert set(arrays) == {
        f"params/{layer}/{leaf}" for layer in ("dense1", "dense2") for leaf in ("bias", "kernel")
    }


def test_results_and_cards_are_those_of_the_rows(places):
    run, out = places
    (row,) = read_rows(out / "rows.jsonl")
    assert [row] == read_rows(run / "rows.jsonl")
    robust = f"{100 * row['numbers'][1]['value']:.2f}"
    card = json.loads((out / "model_card.json").read_text())
    (written,) = run.glob("autoattack/*/model_card.json")
    assert card == json.loads(written.read_text())
    assert (card["eps"], card["autoattack_acc"]) == ("16/255", robust)
    assert (card["dataset"], card["architecture"]) == ("synthetic", "mlp(hidden=[8])")
    assert card["footnote"] == "linf; 4 test images"
    text = (out / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: jaxrobust\n")
    assert f"| {float(robust):.1f} ±" in text
    assert "trained with `trades` against linf eps 0.1" in text


def test_rows_of_another_checkpoint_stay_behind(places, tmp_path):
    shutil.copytree(places[0], tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "4" / "default" / "more").write_text("changed")
    assert "run has no rows of step 4" in called(tmp_path, "export", "run", "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md", "config.json", "config.copy.json", "model.safetensors",
    }  # fmt: skip
    assert "It was not evaluated before the export." in (tmp_path / "out/README.md").read_text()


def test_repeated_rows_and_those_of_other_test_data_are_left_out(places, tmp_path):
    shutil.copytree(places[0], tmp_path / "run")
    for _ in range(2):
        called(tmp_path, "evaluate", "run", "--steps", "2", "--quiet")
    pgd, attacked = (read_rows(tmp_path / "run" / "rows.jsonl")[place] for place in (-1, 0))
    other = {**pgd, "evaluated": {**pgd["evaluated"], "images": "of another file"}}
    append_row(tmp_path / "run" / "rows.jsonl", other)
    output = called(tmp_path, "export", "run", "out")
    assert "left out: 1 of its rows are of other test data" in output
    assert read_rows(tmp_path / "out" / "rows.jsonl") == [attacked, pgd]
    again = called(tmp_path, "evaluate", "run", "--steps", "2", "--quiet")
    assert (
        "warning: the test images have changed since run/rows.jsonl was written (1 rows are"
        in again
    )
    table = called(tmp_path, "table", "run/rows.jsonl")
    assert len(table.splitlines()) == 2 + 1 + 3 + 3  # of PGD, also the worst of both
    assert table.count("base, images of anoth |") == 3


def test_where_nothing_is_held_out_no_checkpoint_is_the_best(tmp_path):
    last = replace(BASE, validation=Validation(size=0), epochs=1)
    training.train(last, tmp_path / "run", devices=ONE, say=lambda line: None)
    told = called(tmp_path, "evaluate", "run", "--steps", "1", "--quiet")
    assert "base, step 2 (last, nothing was held out), evaluated: " in told
    assert "step 2 (last, nothing was held out), to out" in called(tmp_path, "export", "run", "out")
    assert "step\n2 (last, nothing was held out)" in (tmp_path / "out/README.md").read_text()


def test_the_card_says_what_a_network_from_outside_needs(tmp_path, monkeypatch):
    """The module, `--trust`, and the test data, by the name of their file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "small_net.py").write_text(
        "from jaxrobust import models\n\n"
        "def small(num_classes):\n    return models.mlp(hidden=(4,), num_classes=num_classes)\n"
    )
    images = np.random.default_rng(0).integers(0, 256, (24, 6, 6, 1), np.uint8)
    labels = np.arange(24) % 3
    np.savez("shapes.npz", images=images, labels=labels)
    data = use("npz", path="shapes.npz", test_size=8)
    own = replace(BASE, data=data, model=use("small_net:small"), validation=Validation(size=0))
    training.train(own, tmp_path / "run", devices=ONE, say=lambda line: None)
    called(tmp_path, "export", "run", "out", "--trust", "small_net")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "`jaxrobust evaluate . --trust small_net`" in text
    assert "the test data, shapes, in `shapes.npz` and the Python module `small_net`" in text
    assert """load_run(".", trust=('small_net',)).logits_fn""" in text
    assert 'datasets: ["shapes"]' in text
    assert "on shapes, trained with" in text


def test_an_export_is_evaluated_and_exported_like_a_run(copy, tmp_path):
    called(tmp_path, "evaluate", "out", "--steps", "2", "--quiet")
    before, row = read_rows(copy / "rows.jsonl")
    assert row["checkpoint"] == before["checkpoint"] == {"kind": "best", "step": 4}
    called(tmp_path, "evaluate", "out", "--attack", "autoattack", "--eps", "16/255", "--n", "4")
    table = called(tmp_path, "table", "out/rows.jsonl")
    assert table.count("AutoAttack") == 1  # of the run and of its export it is the same
    called(tmp_path, "export", "out", "again")
    files = [folder / training.WEIGHTS for folder in (copy, tmp_path / "again")]
    chex.assert_trees_all_equal(*map(safetensors.numpy.load_file, files))
    assert read_rows(tmp_path / "again" / "rows.jsonl")[0] == row


def test_a_run_starts_from_an_export(copy, tmp_path):
    again = replace(BASE, init_from=str(copy), epochs=0)
    trained = training.train(again, tmp_path / "new", devices=ONE, say=lambda line: None)
    first = training.load_run(copy).logits_fn.params
    chex.assert_trees_all_equal(jax.device_get(trained.state.params), first)


def test_empty_branches_stay_where_they_are(tmp_path):
    network = LogitsFunction({"a": {}, "b": {"w": jnp.ones(2, jnp.bfloat16)}}, {"c": {}}, None)
    write_weights(tmp_path / "w", network, {})
    found, _ = read_weights(tmp_path / "w", network)
    chex.assert_trees_all_equal((found.params, found.state), (network.params, network.state))
    assert found.params["b"]["w"].dtype == jnp.bfloat16


def test_a_flipped_bit_is_found(copy):
    path = copy / training.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged, or not from `jaxrobust export` .*SHA-256"):
        training.load_run(copy)


@pytest.mark.parametrize("size", [0, 5, 40, 400])
def test_a_cut_file_is_one_line(copy, size):
    path = copy / training.WEIGHTS
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"is damaged, or not from") as raised:
        training.load_run(copy)
    assert "\n" not in str(raised.value)


def test_weights_of_another_network_are_refused(copy):
    for name in ("config.json", "config.copy.json"):
        path = copy / name
        path.write_text(path.read_text().replace("8\n", "9\n"))
    with pytest.raises(ValueError, match="another network than its config.json: params/dense"):
        training.load_run(copy)


def test_the_other_checkpoint_is_not_there(copy):
    with pytest.raises(ValueError, match="is of the best checkpoint, not the last"):
        training.load_run(copy, checkpoint="last")


@pytest.mark.parametrize("resume", [False, True])
def test_nothing_is_trained_in_an_export(copy, resume):
    with pytest.raises(ValueError, match=r"holds an exported network.* --init-from .*out"):
        training.train(BASE, copy, devices=ONE, resume=resume)


def test_a_folder_with_files_is_not_written_to(places, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(ValueError, match="folder must be new or empty"):
        training.export_network(places[0], tmp_path / "out")


def test_networks_with_names_in_pytorch_are_exported_under_them(tmp_path):
    model = use("resnet18", width=2)
    data = use("synthetic", size=8, channels=3, train=24, test=8)
    experiment = replace(BASE, model=model, data=data, epochs=1, ema_decay=0.0)
    training.train(experiment, tmp_path / "run", devices=ONE, say=lambda line: None)
    run = training.export_network(tmp_path / "run", tmp_path / "out")
    arrays = safetensors.numpy.load_file(tmp_path / "out" / training.WEIGHTS)
    assert {"conv1.weight", "layer1.0.bn1.running_var", "linear.bias"} <= set(arrays)
    images = jnp.asarray(run.dataset.floats("test")[0])
    network = models.resnet18(width=2)
    read = models.load_torch_checkpoint(tmp_path / "out" / training.WEIGHTS, network)
    for found in (training.load_run(tmp_path / "out").logits_fn, models.logits_fn(network, read)):
        np.testing.assert_array_equal(found(images), run.logits_fn(images))
