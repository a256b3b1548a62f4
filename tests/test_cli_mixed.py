"""Two files of PyTorch weights, or two runs, mixed and attacked by one command."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import mixing, models
from jaxrobust.commands import assigned, run_tradeoff
from jaxrobust.commands._members import numbers_of_member
from jaxrobust.data import synthetic
from jaxrobust.experiment import Evaluation, Experiment, Tradeoff, Validation, use
from jaxrobust.models._torch_import import _expected, _shapes
from jaxrobust.models._torch_names import layouts
from jaxrobust.training import train
from tests.models.test_torch_files import mapping, safetensors, tensor, zipped
from tests.test_cli import cli as cli  # a fixture

NETWORK = {"depth": 10, "width": 1}
DATA = {"size": 16, "channels": 3, "train": 32, "test": 24}
SET = [f"data.{name}={value}" for name, value in DATA.items()]
SET += [f"{base}.{name}={value}" for base in ("std", "rob") for name, value in NETWORK.items()]


def weights(model, seed):
    """A state dict in PyTorch's names and layouts, of the right shapes."""
    layout = layouts(model)[0]
    draw = np.random.default_rng(seed)
    found = {}
    for key, (_, shape) in _expected(layout, _shapes(model, {})).items():
        values = 0.3 * draw.normal(size=shape).astype(np.float32)
        found[key] = 1 + np.abs(values) if key.endswith("running_var") else values
    return found


def zip_file(path, arrays):
    """As torch.save writes it: one storage, and tensors that look into it."""
    flat = np.concatenate([array.ravel() for array in arrays.values()])
    parts, offset = {}, 0
    for key, array in arrays.items():
        strides = tuple(int(s) // 4 for s in array.strides)
        parts[key] = tensor("0", flat.size, offset, array.shape, strides)
        offset += array.size
    return zipped(path, mapping(**parts), flat)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An accurate base in safetensors, a robust one as torch.save writes it."""
    folder = tmp_path_factory.mktemp("weights")
    model = models.wide_resnet(**NETWORK)
    safetensors(folder / "std.safetensors", **weights(model, 0))
    zip_file(folder / "rob.pt", weights(model, 1))
    return [folder / "std.safetensors", folder / "rob.pt"]


def words(*more, networks=True):
    shown = ["--data", "synthetic", *(w for text in SET for w in ("--set", text))]
    if networks:
        shown += ["--std-network", "wide_resnet", "--rob-network", "wide_resnet"]
    return [*shown, *more]


@pytest.mark.slow
def test_two_files_are_mixed_and_attacked_by_one_command(cli, files, tmp_path):
    shown = words("--alpha", "0.7", "--rob-scale", "2", "--steps", "2", "--n", "16")
    code, out, err = cli("evaluate-mixed", *files, *shown, "--workdir", "r", "--quiet")
    assert code == 0, err
    assert "worst PGD" in out
    row = json.loads((tmp_path / "r" / "rows.jsonl").read_text())
    model = models.wide_resnet(**NETWORK)
    bases = [models.logits_fn(model, models.load_torch_checkpoint(f, model)) for f in files]
    both = mixing.mixed(*bases, alpha=0.7, rob_scale=2.0)
    images, labels = (x[:16] for x in synthetic(**DATA).floats("test"))
    right = (
        np.asarray(jax.jit(lambda m, x: m(x))(both, jnp.asarray(images))).argmax(-1) == labels
    ).sum()
    clean, *_, worst = row["numbers"]
    assert clean["correct"] == right
    assert worst["total"] == 16
    assert row["task"]["mixture"]["rob"]["weights"] == str(files[1])
    assert row["task"]["mixture"]["alpha"] == 0.7

    attack = ["--attack", "adaptive", "--version", "custom", "--attacks", "apgd-ce"]
    shown = words("--nuts", "cifar10", *attack, "--n", "4")
    code, out, err = cli("evaluate-mixed", *files, *shown, "--workdir", "n", "--quiet")
    assert code == 0, err
    assert (
        "NOT the standard AutoAttack (version custom, with deviations): linf, eps 0.0313725" in out
    )
    (kept,) = (tmp_path / "n" / "autoattack").iterdir()
    assert kept.name.startswith("adaptive_nutscifar10_")
    assert kept.name.endswith("_linf_eps0.03137255_custom_apgd-ce_seed0_first4")
    assert (kept / "report.json").exists()


def test_two_runs(cli, tmp_path):
    config = Experiment(
        name="base",
        data=use("synthetic", **DATA),
        model=use("mlp", hidden=(8,)),
        objective=use("standard"),
        threat=use("linf", eps=0.1),
        epochs=1,
        batch_size=16,
    )
    train(config, tmp_path / "base", devices=jax.devices()[:1], quiet=True)
    shown = ["--data", "synthetic", *(w for text in SET[:4] for w in ("--set", text))]
    shown += ["--alpha", "0.5", "--steps", "1", "--quiet"]
    code, _, err = cli("evaluate-mixed", "base", "base", *shown)
    assert code == 0, err
    row = json.loads((tmp_path / "runs" / "mixed" / "rows.jsonl").read_text())
    for name in ("std", "rob"):
        assert row["task"]["bases"][name]["checkpoint"] == {"kind": "best", "step": 2}


@pytest.mark.slow
def test_a_tradeoff_of_two_bases_and_their_mixture(tmp_path):
    """The mixture is trained on the runs of the members before it."""
    base = Experiment(
        name="std",
        data=use("digits"),
        model=use("digits_cnn", width=2),
        objective=use("standard"),
        threat=use("linf", eps=0.1),
        epochs=1,
        batch_size=256,
        validation=Validation(size=0),
        evaluation=Evaluation(steps=1, batch_size=360),
    )
    folder = tmp_path / "t"
    mixture = use("mixed_classifier", std="member:std", rob="member:rob", planes=(2, 2, 2))
    members = (
        base,
        replace(base, name="rob", objective=use("pgd_at", steps=1)),
        replace(
            base,
            name="mixed",
            model=mixture,
            objective=use("adaptive_smoothing", copies=4, steps=1),
        ),
    )
    tradeoff = Tradeoff(name="t", members=members)
    results = run_tradeoff(tradeoff, folder, quiet=True, say=lambda line: None)
    assert [*results["members"]] == ["std", "rob", "mixed"]
    for name, member in results["members"].items():
        assert "failure" not in member, (name, member)
        numbers = numbers_of_member(member)
        assert 0 <= numbers["worst PGD"].value <= numbers["clean"].value
    assert "mixed" in (folder / "report.html").read_text()


MISTAKES = {
    "no way to mix": (words(), "exactly one of alpha, smoothing and nuts"),
    "two ways": (words("--alpha", "0.5", "--nuts", "cifar10"), "exactly one of"),
    "no network": (words("--smoothing", "cifar10-edm"), "needs the file of a mixing network"),
    "no preset": (words("--nuts", "mnist"), "nuts must be one of cifar10, cifar100, imagenet"),
    "not a run": (
        words("--alpha", "0.5", networks=False),
        "--set std.NAME=value needs --std-network",
    ),
    "no such path": (words("--alpha", "1", "--set", "base.width=2"), "write std.NAME=value"),
    "alpha": (words("--alpha", "2"), "alpha must be in [0, 1]"),
    "nothing to evade": (words("--alpha", "1", "--attack", "adaptive"), "mixing network (gamma)"),
    "steps": (words("--alpha", "1", "--attack", "autoattack", "--steps", "20"), "--steps belongs"),
    "weight": (words("--alpha", "1", "--weight", "0.2"), "--weight belongs to --attack adaptive"),
    "scale": (words("--nuts", "cifar10", "--std-scale", "1"), "--std-scale belongs to --alpha"),
    "attacks": (words("--alpha", "1", "--attacks", "apgd-ce"), "--attacks belongs to --attack"),
    "version": (
        words("--alpha", "1", "--attack", "autoattack", "--attacks", "apgd-ce"),
        "--attacks belongs to --version custom, not to standard",
    ),
    "network": (words("--alpha", "1", "--network", "x.pt"), "--network belongs to --smoothing"),
    "alpha nan": (words("--alpha", "nan"), "--alpha must be in [0, 1], got 'nan'"),
    "eps 8": (words("--alpha", "1", "--eps", "8"), "--eps must be a radius in image units"),
    "eps nan": (words("--alpha", "1", "--eps", "nan"), "--eps must be a radius in image units"),
    "n": (words("--alpha", "1", "--n", "25"), "n must be between 1 and the 24 test images, got 25"),
    "eps": (words("--alpha", "1", "--eps", "wide"), "--eps must be a number or a fraction"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_in_one_line_and_code_2(cli, files, name):
    shown, expected = MISTAKES[name]
    code, out, err = cli("evaluate-mixed", *files, *shown)
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err


@pytest.mark.slow
def test_reports_of_other_mixtures_are_kept(cli, files, tmp_path):
    attack = ["--attack", "autoattack", "--version", "custom", "--attacks", "apgd-ce", "--n", "4"]
    changes = [], ["--alpha", "0.6"], ["--eps", "4/255"], ["--seed", "3"], ["--rob-scale", "2"]
    for change in changes:
        shown = words("--alpha", "0.5", *attack, *change, "--workdir", "r", "--quiet")
        code, _, err = cli("evaluate-mixed", *files, *shown)
        assert code == 0, err
    assert len(list((tmp_path / "r" / "autoattack").glob("*/report.json"))) == len(changes)
    text = (tmp_path / "r" / "rows.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert len({json.dumps(row["task"]["bases"]) for row in rows}) == 1
    assert all(len(base["sha256"]) == 64 for base in rows[0]["task"]["bases"].values())
    code, out, err = cli("table", "r/rows.jsonl")
    assert code == 0, err
    assert out.count("AutoAttack custom (apgd-ce), with deviations, linf eps 0.0313725") == 4


def test_networks_that_are_unknown_are_named(cli, files):
    shown = ["--data", "synthetic", "--alpha", "0.5", "--std-network", "wrn"]
    shown += ["--rob-network", "wide_resnet"]
    code, _, err = cli("evaluate-mixed", *files, *shown)
    assert code == 2
    assert "network 'wrn' is none of" in err


def test_assignments():
    parts = assigned(["std.width=2", "rob.threat=l2", 'data.path="x"', "rob.scale=8/255"])
    assert parts == {
        "std": {"width": 2},
        "rob": {"threat": "l2", "scale": 8 / 255},
        "data": {"path": "x"},
    }
