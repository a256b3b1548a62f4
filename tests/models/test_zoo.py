"""Published PyTorch classes with random weights: our networks do what theirs do."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import models
from jaxrobust.models._preact_resnet import PreActResNet
from jaxrobust.models._resnet import ResNet
from tests.models.quick import assert_close, quick

CIFAR10 = {"mean": models.CIFAR10_MEAN, "std": models.CIFAR10_STD}
CIFAR100 = {"mean": models.CIFAR100_MEAN, "std": models.CIFAR100_STD}
RICE = models.published("Rice2020Overfitting", dataset="cifar100").options
DEEPMIND = {"activation": "silu", "padding": "same"}
WRN_16, WRN_10 = {"depth": 16, "width": 1}, {"depth": 10, "width": 2}

NETWORKS = {
    "rb_wrn_16_1_sub": models.wide_resnet(**WRN_16),
    "rb_wrn_10_2": models.wide_resnet(**WRN_10),
    "rb_dm_wrn_16_1_swish": models.wide_resnet(**WRN_16, **DEEPMIND, **CIFAR10),
    "rb_dm_wrn_10_2_silu_c100": models.wide_resnet(
        **WRN_10, **DEEPMIND, **CIFAR100, num_classes=100
    ),
    "rb_dm_wrn_16_1_pad2_gray": models.wide_resnet(
        **WRN_16, **DEEPMIND, image_padding=2, mean=(0.5,), std=(0.25,)
    ),
    "rb_dm_preact18_swish": models.preact_resnet18(
        width=8, shortcut="raw_3x3", **DEEPMIND, **CIFAR10
    ),
    "score_preact18_swish": models.preact_resnet18(
        width=8, shortcut="raw_3x3", bn_momentum=0.99, **DEEPMIND, **CIFAR10
    ),
    "rb_resnet18": models.resnet18(width=8),
    "rb_engstrom_bottleneck": ResNet(
        10, (2, 1, 1, 1), True, 8, models.CIFAR10_MEAN, (0.2023, 0.1994, 0.2010)
    ),
    "rb_preact18_nobn": models.preact_resnet18(width=8, shortcut="raw", final_norm=False),
    "rb_preact18_rice_c100": models.preact_resnet18(width=8, **RICE),
    "rb_preact18v2_rice_l2": models.preact_resnet18(width=8, **CIFAR10),
    "score_preact18_relu": models.preact_resnet18(width=8),
    "score_preact50_relu": PreActResNet(10, (2, 1, 1, 1), True, 8),
    "score_noddpm_preact18_swish": models.preact_resnet18(width=8, activation="silu"),
    "score_noddpm_preact18_softplus10": models.preact_resnet18(width=8, activation="softplus"),
    "trades_smallcnn": models.small_cnn(dropout=0.0),
    "vgg16_bn": models.vgg16(width=4),
}


def state_dict(data, prefix="sd/"):
    return {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}


def evaluation_and_train_step(model):
    """Logits in evaluation mode; logits and statistics of a train step."""

    def run(variables, images):
        train_logits, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return model.apply(variables, images), train_logits, updates.get("batch_stats", {})

    return quick(run)


def logits_and_gradient(model, labels):
    """In evaluation mode; the gradient of the summed cross entropy by the images."""

    def run(variables, images):
        def loss(images):
            logits = model.apply(variables, images)
            own = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
            return -own.sum(), logits

        gradient, logits = jax.grad(loss, has_aux=True)(images)
        return logits, gradient

    return quick(run)


@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_pytorch(golden, name):
    data, model = golden(f"zoo/{name}"), NETWORKS[name]
    variables = models.from_torch_state_dict(state_dict(data), model)
    run = evaluation_and_train_step(model)
    logits, train_logits, statistics = run(variables, jnp.asarray(data["x"]))
    assert logits.dtype == jnp.float32
    assert_close(logits, data["logits"], 1e-5)
    assert_close(train_logits, data["train_logits"], 1e-5)

    updated = {**state_dict(data), **state_dict(data, "train_sd/")}
    expected = models.from_torch_state_dict(updated, model).get("batch_stats", {})
    jax.tree.map(lambda ours, theirs: assert_close(ours, theirs, 1e-5), statistics, expected)

    dead = sum(v.size for k, v in state_dict(data).items() if _is_unused_parameter(k))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert parameters + dead == json.loads(str(data["meta"]))["params"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_state_dict_comes_back(golden, name):
    """Of the golden file, without counters, unused parameters and the images' normalisation."""
    data, model = state_dict(golden(f"zoo/{name}")), NETWORKS[name]
    found = models.to_torch_state_dict(models.from_torch_state_dict(data, model), model)
    left_out = data.keys() - found.keys()
    assert all(
        key.endswith("num_batches_tracked")
        or key.startswith("sub_block1.")
        or key in ("mu", "sigma", "mean", "std", "normalizer.new_mean", "normalizer.new_std")
        for key in left_out
    ), left_out
    for key, value in found.items():
        np.testing.assert_array_equal(value, data[key], err_msg=key)


def _is_unused_parameter(key):
    return key.startswith("sub_block1.") and key.endswith(("weight", "bias"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_pytorch_in_float64(golden, float64, name):
    """The gradient too: in float32 a ReLU within rounding of zero may fall on either side."""
    data, model = golden(f"zoo/{name}"), NETWORKS[name]
    variables = models.from_torch_state_dict(state_dict(data), model)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
    one = slice(1)  # image; convolutions in float64 are slow
    run = logits_and_gradient(model, jnp.asarray(data["y"][one], jnp.int32))
    logits, gradient = run(variables, jnp.asarray(data["x"][one], jnp.float64))
    assert logits.dtype == gradient.dtype == jnp.float64
    assert_close(logits, data["logits64"][one], 1e-9)
    assert_close(gradient, data["grad_x"][one], 2e-5)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("rb_dm_wrn_10_2_silu_c100", {"padding": "symmetric"}),
        ("rb_dm_wrn_10_2_silu_c100", {"activation": "relu"}),
    ],
)
def test_a_wrong_option_shows(golden, name, wrong):
    """What the keys cannot tell must be given: these goldens would notice it missing."""
    data = golden(f"zoo/{name}")
    options = {**WRN_10, **DEEPMIND, **CIFAR100, "num_classes": 100, **wrong}
    model = models.wide_resnet(**options)
    variables = models.from_torch_state_dict(state_dict(data), model)
    logits = quick(model.apply)(variables, jnp.asarray(data["x"]))
    with pytest.raises(AssertionError):
        assert_close(logits, data["logits"], 1e-2)


def test_small_cnn_dropout_keeps_what_pytorch_keeps(golden):
    """With the mask of the golden in place of the random one, dropout sits where theirs sits."""
    data = golden("zoo/trades_smallcnn")
    model = models.small_cnn(dropout=0.5)
    variables = models.from_torch_state_dict(state_dict(data), model)
    params = variables["params"]
    _, seen = model.apply(
        variables, jnp.asarray(data["x"]), capture_intermediates=True, mutable=["intermediates"]
    )
    (hidden,) = seen["intermediates"]["dense1"]["__call__"]
    kept = jax.nn.relu(hidden) * jnp.asarray(data["train_dropout_keep"], jnp.float32) * 2
    for layer in ("dense2", "dense3"):
        kept = kept @ params[layer]["kernel"] + params[layer]["bias"][None]
        kept = jax.nn.relu(kept) if layer == "dense2" else kept
    assert_close(kept, data["train_logits_dropout"], 1e-5)
    assert np.any(data["train_logits_dropout"] != data["train_logits"])
