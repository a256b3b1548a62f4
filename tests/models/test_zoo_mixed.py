"""The published mixed classifiers and their bases with random weights, against PyTorch's values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import mixing, models
from jaxrobust.models._bit import BiTResNet
from jaxrobust.models._layers import Layers
from jaxrobust.models._wide_resnet import WideResNet
from tests.models.quick import assert_close, quick
from tests.models.test_zoo import CIFAR10, DEEPMIND, logits_and_gradient, state_dict

SILU_99 = Layers("silu", "same", 0.99)
RA_WRN = WideResNet(10, (1, 2, 1), (16, 24, 40), 8, layers=SILU_99, squeeze=0.25, **CIFAR10)
BIT = BiTResNet(10, (1, 1, 1, 1), 32, (32, 32, 32, 32), (64, 128, 96, 128))


def networks(data):
    """Version 2 of BiT keeps mean and std in the file; here they are not the usual 0.5."""
    own = {
        name: tuple(data[f"sd/{name}"].ravel().tolist())
        for name in ("mean", "std")
        if f"sd/{name}" in data
    }
    return {
        "mixed_bit_rn": BiTResNet(10, (1, 2, 1, 1), 32, (32, 32, 64, 32), (64, 128, 128, 96)),
        "mixed_bit_rn_v2": BIT.clone(units=(2, 1, 1, 1), **own),
        "mixed_ra_wrn": RA_WRN,
        "mixed_dm_rn": models.wide_resnet(depth=10, width=1, **DEEPMIND, **CIFAR10),
    }


NAMES = list(networks({}))


def loaded(golden, name):
    data = golden(f"zoo/{name}")
    model = networks(data)[name]
    return data, model, models.from_torch_state_dict(state_dict(data), model)


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def double(tree):
    return cast(tree, jnp.float64)


def check_features(data, features, tolerance):
    """Samples, means and mean squares of the two maps that a mixing network reads."""
    for number in (1, 2):
        maps = np.asarray(features[f"stage{number}"])
        rows, columns = data[f"feat{number}_idx"]
        assert_close(maps[:, rows][:, :, columns], data[f"feat{number}_at"], tolerance)
        assert_close(maps.mean((1, 2)), data[f"feat{number}_mean"], tolerance)
        assert_close((maps**2).mean((1, 2)), data[f"feat{number}_meansq"], tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_bases_agree_with_pytorch(golden, name):
    data, model, variables = loaded(golden, name)
    images = jnp.asarray(data["x"])

    def run(variables, images):
        trained = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return models.logits_fn(model, variables).with_features(images), trained

    (logits, features), (train_logits, updates) = quick(run)(variables, images)
    assert logits.dtype == jnp.float32
    assert_close(logits, data["logits"], 2e-5)
    if "feat1_at" in data:
        check_features(data, features, 2e-5)
    if "train_logits" in data:
        assert_close(train_logits, data["train_logits"], 2e-5)
        after = {**state_dict(data), **state_dict(data, "train_sd/")}
        expected = models.from_torch_state_dict(after, model)["batch_stats"]
        jax.tree.map(lambda a, b: assert_close(a, b, 2e-5), updates["batch_stats"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_bases_agree_with_pytorch_in_float64(golden, float64, name):
    data, model, variables = loaded(golden, name)
    variables, images = double((variables, data["x"]))
    labels = jnp.asarray(data["y"], jnp.int32)
    logits, gradient = logits_and_gradient(model, labels)(variables, images)
    assert_close(logits, data["logits64"], 1e-9)
    assert_close(gradient, data["grad_x"], 1e-6)


@pytest.mark.parametrize(("classes", "count"), [(10, 232_279_178), (100, 232_647_908)])
def test_parameters_of_bit_are_those_of_the_published_class(classes, count):
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(models.bit_resnet(num_classes=classes).init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_half_precision_of_bit(golden, dtype):
    data, model, variables = loaded(golden, "mixed_bit_rn")
    logits = quick(model.clone(dtype=dtype).apply)(variables, jnp.asarray(data["x"]))
    assert logits.dtype == jnp.float32
    assert_close(logits, data["logits"], 2e-5 if dtype == "float32" else 0.1)


def test_constants_of_the_file_must_be_the_networks(golden):
    data = golden("zoo/mixed_bit_rn_v2")
    with pytest.raises(ValueError, match="build the network with mean="):
        models.from_torch_state_dict(state_dict(data), BIT.clone(units=(2, 1, 1, 1)))


def summed_cross_entropy(log_probs, labels):
    return -jnp.take_along_axis(log_probs, labels[:, None], 1).sum()


def smoothing(golden, dtype):
    """The whole composite, from one state dict, and its reference values."""
    data = golden("zoo/mixed_adaptive_smoothing")
    rob = models.wide_resnet(depth=10, width=1, **DEEPMIND, **CIFAR10)
    network = models.mixing_network(
        std_channels=(64, 128), rob_channels=(16, 32), planes=(16, 24, 32)
    )
    parts = models.from_torch_mixed(state_dict(data), std=BIT, rob=rob, mixing=network)
    constants = dict(parts.constants)
    gamma = models.gamma_fn(
        network,
        cast(parts.mixing, dtype),
        scale=constants.pop("gamma_scale"),
        bias=constants.pop("gamma_bias"),
    )
    bases = (
        models.logits_fn(BIT, cast(parts.std, dtype)),
        models.logits_fn(rob, cast(parts.rob, dtype)),
    )
    return data, bases, gamma, constants


def test_adaptive_smoothing_agrees_with_pytorch(golden):
    data, bases, gamma, constants = smoothing(golden, jnp.float32)
    preset = mixing.ADAPTIVE_SMOOTHING["cifar10-edm"]
    assert constants == pytest.approx(preset.options)
    assert (float(gamma.scale), float(gamma.bias)) == pytest.approx((2, preset.gamma_bias))
    both = mixing.mixed(*bases, gamma=gamma, **constants)
    outputs = quick(lambda mixed, x: mixed.outputs(x))(both, jnp.asarray(data["x"]))
    assert_close(outputs.log_probs, data["logprob"], 2e-5)
    assert_close(outputs.std_logits, data["logits_std"], 2e-5)
    assert_close(outputs.rob_logits, data["logits_rob"], 2e-5)
    assert_close(outputs.gamma, data["gamma"], 2e-5)


@pytest.mark.slow
def test_adaptive_smoothing_agrees_with_pytorch_in_float64(golden, float64):
    """Of one image, by the gradients too: of the loss, and of the mixing network's output."""
    data, bases, gamma, constants = smoothing(golden, jnp.float64)
    images, labels = double(data["x"][:1]), jnp.asarray(data["y"][:1], jnp.int32)
    scales = {name: constants[name] for name in ("std_scale", "rob_scale")}

    def run(mixed, images, by_loss, by_gamma):
        def total(images):
            outputs = mixed.outputs(images)
            loss = summed_cross_entropy(outputs.log_probs, labels)
            return by_loss * loss + by_gamma * outputs.gamma.sum(), outputs

        gradient, outputs = jax.grad(total, has_aux=True)(images)
        return outputs, gradient

    run = quick(run)
    one, none = jnp.ones(()), jnp.zeros(())
    for settings, detach, prefix in (
        (constants, False, ""),
        (constants, True, ""),
        (scales, False, "full_"),
        (scales, True, "full_"),
    ):
        both = mixing.mixed(*bases, gamma=gamma, detach=detach, **settings)
        outputs, gradient = run(both, images, one, none)
        assert_close(outputs.log_probs, data[f"{prefix}logprob64"][:1], 1e-9)
        assert_close(outputs.gamma, data["gamma"][:1], 1e-12)
        if settings is constants:
            assert_close(outputs.alpha, data["alpha"][:1], 1e-12)
        name = f"{prefix}grad_x{'_detached' if detach else ''}"
        assert_close(gradient, data[name][:1], 1e-6)

    both = mixing.mixed(*bases, gamma=gamma, **constants)
    outputs, gradient = run(both, images, none, one)
    norm = gamma.variables["batch_stats"]["output_norm"]
    unit = jnp.sqrt(norm["var"] + 1e-5) / gamma.scale
    raw = norm["mean"] + unit * (outputs.gamma - gamma.bias)
    assert_close(raw, data["raw"][:1], 1e-6)
    assert_close(unit[0] * gradient, data["raw_grad_x"][:1], 1e-6)


def nuts(golden, dtype):
    data = golden("zoo/mixed_nuts")
    own = {name: tuple(data[f"sd/std_model.{name}"].ravel().tolist()) for name in ("mean", "std")}
    std = BIT.clone(**own)
    parts = models.from_torch_mixed(state_dict(data), std=std, rob=RA_WRN)
    bases = (
        models.logits_fn(std, cast(parts.std, dtype)),
        models.logits_fn(RA_WRN, cast(parts.rob, dtype)),
    )
    return data, mixing.mixed_nuts(*bases, **parts.constants), parts.constants


def test_mixednuts_agrees_with_pytorch(golden):
    data, both, constants = nuts(golden, jnp.float32)
    assert constants == pytest.approx(mixing.MIXED_NUTS["cifar10"].options)
    images = jnp.asarray(data["x"])
    log_probs, surrogate = quick(lambda nuts, x: (nuts(x), nuts.surrogate(x)))(both, images)
    assert_close(log_probs, data["logprob"], 2e-5)
    np.testing.assert_allclose(jnp.exp(log_probs), data["probs"], atol=2e-5)
    assert_close(surrogate, data["surrogate"], 2e-5)


@pytest.mark.slow
def test_mixednuts_agrees_with_pytorch_in_float64(golden, float64):
    data, both, constants = nuts(golden, jnp.float64)
    images, labels = double(data["x"][:1]), jnp.asarray(data["y"][:1], jnp.int32)

    def run(logits_fn, images):
        def loss(images):
            log_probs = logits_fn(images)
            return summed_cross_entropy(log_probs, labels), log_probs

        return jax.grad(loss, has_aux=True)(images)

    run = quick(run)
    gradient, log_probs = run(both, images)
    assert_close(log_probs, data["logprob64"][:1], 1e-9)
    assert_close(gradient, data["grad_x"][:1], 1e-6)
    gradient, surrogate = run(both.surrogate, images)
    assert_close(surrogate, data["surrogate64"][:1], 1e-9)
    assert_close(gradient, data["surrogate_grad_x"][:1], 1e-6)
    map_ = {name: constants[name] for name in "spc"}
    mapped = mixing.mixednuts_map(double(data["logits_rob"]), **map_)
    assert_close(mapped, data["mapped_rob"], 1e-5)


def test_what_belongs_to_no_part_is_named(golden):
    weights = state_dict(golden("zoo/mixed_nuts"))
    with pytest.raises(ValueError, match=r"not part of a mixed classifier: other\.weight"):
        models.from_torch_mixed({**weights, "other.weight": 0}, std=BIT, rob=RA_WRN)
    with pytest.raises(ValueError, match="has no mixing network"):
        models.from_torch_mixed(weights, std=BIT, rob=RA_WRN, mixing=models.mixing_network())
