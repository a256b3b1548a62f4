"""The table of published networks: it builds, and the page that shows it says the same."""

import functools
import inspect
import pathlib
import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pydantic
import pytest

from jaxrobust import models
from tests.models.test_torch_files import safetensors

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "checkpoints.md"


@functools.cache
def parameters(network, dataset):
    """Parameters of a network by its short name; nothing is allocated."""
    entry = next(p for p in models.PUBLISHED if (p.network, p.dataset) == (network, dataset))
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(entry.model().init, jax.random.key(0), images)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def table():
    """The page's table of entries; run this file to print it."""
    lines = ["| data | threat | entry | network | parameters | clean | AutoAttack |"]
    lines.append("|---|---|---|---|---:|---:|---:|")
    for p in models.PUBLISHED:
        external = "" if p.autoattack_external is None else f" ({p.autoattack_external:.2f})"
        lines.append(
            f"| {p.dataset} | {p.threat} | {p.entry} | {p.network} "
            f"| {parameters(p.network, p.dataset):,} | {p.clean:.2f} "
            f"| {p.autoattack:.2f}{external} |"
        )
    return "\n".join(lines)


def test_the_page_shows_the_table():
    assert table() in PAGE.read_text()
    assert len(models.PUBLISHED) == len({(p.entry, p.dataset, p.threat) for p in models.PUBLISHED})


@pytest.mark.parametrize(
    ("network", "dataset", "count"),
    [
        ("WRN-34-10", "cifar10", 46_160_474),
        ("WRN-34-10", "cifar100", 46_218_164),
        ("WRN-34-20 normalised", "cifar10", 184_531_674),
        ("WRN-28-10 SiLU", "cifar10", 36_479_194),
        ("WRN-28-10 SiLU", "cifar100", 36_536_884),
        ("WRN-70-16 SiLU", "cifar10", 266_796_506),
        ("WRN-70-16 SiLU", "cifar100", 266_888_756),
        ("WRN-82-8 SiLU", "cifar10", 79_125_466),
        ("WRN-94-16 SiLU", "cifar10", 365_915_610),
        ("WRN-106-16 SiLU", "cifar10", 415_475_162),
        ("RaWRN-70-16", "cifar10", 267_240_802),
        ("PreActResNet-18", "cifar10", 11_172_170),
        ("PreActResNet-18 Rice", "cifar100", 11_218_340),
        ("PreActResNet-18 SiLU", "cifar10", 12_548_426),
        ("PreActResNet-18 SiLU", "cifar100", 12_594_596),
        ("ResNet-50", "cifar10", 23_520_842),
    ],
)
def test_parameters_are_those_of_the_published_classes(network, dataset, count):
    assert parameters(network, dataset) == count


def test_options_that_weights_cannot_show():
    wang = models.published("Wang2023Better_WRN-70-16", dataset="cifar100").model()
    assert (wang.layers.activation, wang.layers.padding) == ("silu", "same")
    assert (wang.mean, wang.std, wang.num_classes) == (
        models.CIFAR100_MEAN,
        models.CIFAR100_STD,
        100,
    )
    trades = models.published("Zhang2019Theoretically")
    assert (trades.eps, trades.model().mean, trades.model().std) == (0.031, (0.0,), (1.0,))
    rice = models.published("Rice2020Overfitting", threat="l2")
    assert (rice.eps, rice.model().shortcut, rice.model().final_norm) == (0.5, "activated", True)
    gowal = models.published("Gowal2021Improving_R18_ddpm_100m").model(dtype="bfloat16")
    assert (gowal.shortcut, gowal.layers.dtype) == ("raw_3x3", "bfloat16")
    madry = models.published("Engstrom2019Robustness").model()
    assert (madry.bottleneck, madry.std) == (True, (0.2023, 0.1994, 0.2010))


def test_unknown_entries_name_the_known_ones():
    with pytest.raises(
        ValueError, match=r"entry must be one of .*Gowal2020Uncovering, .*'Bai2023'"
    ):
        models.published("Bai2023", dataset="cifar100")


@pytest.mark.parametrize("published", models.PUBLISHED, ids=lambda p: f"{p.entry}-{p.threat}")
def test_options_have_the_types_that_factories_declare(published):
    """Experiment files pass these options as JSON: the annotations must accept them."""
    hints = typing.get_type_hints(published.factory)
    for key, value in published.options.items():
        pydantic.TypeAdapter(hints[key]).validate_python(value)
    assert published.options.keys() <= inspect.signature(published.factory).parameters.keys()


def test_the_pages_five_lines_run(tmp_path, monkeypatch):
    """The page's example, on a tiny network under the published one's name."""
    tiny = models.wide_resnet(depth=10, width=1, activation="silu", padding="same")
    tiny = tiny.clone(blocks=(1,), features=(4,), stem=4)
    entry = types.SimpleNamespace(model=lambda: tiny, eps=8 / 255)
    monkeypatch.setattr(models, "published", lambda *args, **kwargs: entry)
    rng, state = np.random.default_rng(0), {}
    state["init_conv.weight"] = rng.normal(size=(4, 3, 3, 3))
    for layer in ("layer.0.block.0.batchnorm_0", "layer.0.block.0.batchnorm_1", "batchnorm"):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"{layer}.{leaf}"] = np.ones(4)
    for conv in ("conv_0", "conv_1"):
        state[f"layer.0.block.0.{conv}.weight"] = rng.normal(size=(4, 4, 3, 3))
    state |= {"logits.weight": rng.normal(size=(10, 4)), "logits.bias": np.zeros(10)}
    state = {f"module.{key}": value.astype(np.float32) for key, value in state.items()}
    safetensors(tmp_path / "Wang2023Better_WRN-28-10.pt", **state)

    monkeypatch.chdir(tmp_path)
    code = PAGE.read_text().split("```py\n")[1].split("```")[0]
    scope = {"images": rng.uniform(size=(2, 8, 8, 3)).astype("f4"), "labels": np.array([1, 2])}
    exec(compile(code, str(PAGE), "exec"), scope)
    assert 0 <= scope["result"].worst.value <= scope["result"].clean.value <= 1


if __name__ == "__main__":
    print(table())
