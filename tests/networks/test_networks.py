"""Adapters, logits functions of every library, and what the check refuses."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrobust import models
from jaxrobust.inputs import InputError
from jaxrobust.networks import check_network, network
from jaxrobust.training._updates import kernels, no_norm
from tests.networks import same
from tests.networks.same import IMAGES

SHAPE = IMAGES.shape[1:]


def modules():
    """The same weights as each library's own objects: arguments of `models.logits_fn`."""
    params, state = same.weights("linen")
    mine = nnx.merge(*nnx.split(same.NNXNet(rngs=nnx.Rngs(0))))
    mine.conv.kernel[...], mine.conv.bias[...] = params["conv"]["kernel"], params["conv"]["bias"]
    mine.dense.kernel[...], mine.dense.bias[...] = (
        params["dense"]["kernel"],
        params["dense"]["bias"],
    )
    found, _ = same.weights("equinox")
    module, layers = eqx.nn.make_with_state(same.EquinoxNet)(key=jax.random.key(0))
    leaves = lambda m: [getattr(getattr(m, a), b) for a in found for b in ("weight", "bias")]  # noqa: E731
    module = eqx.tree_at(leaves, module, [found[a][b] for a in found for b in ("weight", "bias")])
    return {
        "linen": (same.LinenNet(), {"params": params, "batch_stats": state}),
        "nnx": (mine,),
        "equinox": (module, layers),
    }


def test_logits_and_features_are_those_of_linen():
    found = {name: models.logits_fn(*given) for name, given in modules().items()}

    @jax.jit
    def shown(logits_fn, images):
        return logits_fn.with_features(images), logits_fn(images)

    (logits, features), alone = shown(found["linen"], IMAGES)
    np.testing.assert_allclose(alone, logits, atol=1e-6)
    assert list(features) == ["stage1"]
    for name in ("nnx", "equinox"):
        with jax.numpy_dtype_promotion("standard"):
            (own, maps), alone = shown(found[name], IMAGES)
        np.testing.assert_allclose(own, logits, atol=2e-6)
        np.testing.assert_allclose(alone, logits, atol=2e-6)
        np.testing.assert_allclose(maps["stage1"], features["stage1"], atol=2e-6)


def test_new_weights_modes_and_random_streams_do_not_recompile(compilations):
    """Evaluation mode is set whatever the module's is, and the module keeps its own."""

    @jax.jit
    def classify(logits_fn, images):
        return logits_fn(images)

    mine = same.NNXDropout(rngs=nnx.Rngs(0))
    mine.train()
    first = classify(models.logits_fn(mine), IMAGES)
    count = compilations.count("jit(classify)")
    np.testing.assert_array_equal(classify(models.logits_fn(mine), IMAGES), first)
    other = same.NNXDropout(rngs=nnx.Rngs(1))
    other.eval()
    assert np.abs(classify(models.logits_fn(other), IMAGES) - first).max() > 1e-3
    np.testing.assert_allclose(classify(models.logits_fn(other), IMAGES), other(IMAGES), atol=1e-6)
    assert compilations.count("jit(classify)") == count
    mine(IMAGES)  # still in training mode: its statistics move
    assert np.abs(mine.bn.mean[...]).max() > 0
    with jax.numpy_dtype_promotion("standard"):
        for number in (0, 1):
            build = eqx.nn.make_with_state(same.EquinoxDropout)
            found = models.logits_fn(*build(key=jax.random.key(number)))
            assert classify(found, IMAGES).shape == (8, same.CLASSES)
    assert compilations.count("jit(classify)") == count + 1
    assert network(same.NNXDropout) == network(same.NNXDropout) != network(same.NNXNet)
    assert network(same.EquinoxNet) == network(same.EquinoxNet)


def test_many_layers_keep_their_places():
    """The tenth comes after the second, in checkpoints too, where keys are sorted strings."""

    class Deep(nnx.Module):
        def __init__(self, *, rngs):
            self.layers = nnx.List([nnx.Linear(1, 1, rngs=rngs) for _ in range(12)])

        def __call__(self, images):
            x = images[:, 0, 0]
            for layer in self.layers:
                x = jnp.tanh(layer(x))
            return jnp.concatenate([x, -x], -1)

    deep = Deep(rngs=nnx.Rngs(3))
    np.testing.assert_allclose(models.logits_fn(deep)(IMAGES), deep(IMAGES), atol=1e-6)


def told(images, train):
    return jnp.full((len(images), 3), float(train))


class ByTrain(nn.Module):
    def __call__(self, images, train):
        return told(images, train)


class ByTraining(nn.Module):
    def __call__(self, images, *, training=False):
        return told(images, training)


class ByDeterministic(nn.Module):
    def __call__(self, images, deterministic=True):
        return told(images, not deterministic)


class ByRunningAverage(nn.Module):
    def __call__(self, images, use_running_average):
        return told(images, not use_running_average)


class ByField(nn.Module):
    deterministic: bool | None = None

    def __call__(self, images):
        return told(images, not self.deterministic)


@pytest.mark.parametrize(
    "module", [ByTrain, ByTraining, ByDeterministic, ByRunningAverage, ByField]
)
def test_linen_modules_take_their_mode_under_any_name(module):
    for train in (False, True):
        out, _ = network(module()).apply({}, {}, IMAGES, train=train)
        np.testing.assert_array_equal(out, float(train))


def test_other_collections_are_state_and_other_streams_have_keys():
    class Counting(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            count = self.variable("counters", "passes", lambda: jnp.zeros((), jnp.int32))
            noise = 0.0
            if train:
                count.value += 1
                noise = jax.random.normal(self.make_rng("noise"), (len(images), 10))
            return nn.Dense(10)(images.reshape(len(images), -1)) + noise

    net, key = network(Counting()), jax.random.key(0)
    params, state = net.init(key, IMAGES)
    clean, same_state = net.apply(params, state, IMAGES, train=False)
    assert same_state is state
    noisy, after = net.apply(params, state, IMAGES, train=True, key=key)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert int(after["counters"]["passes"]) == 1
    assert np.abs(noisy - clean).max() > 0.1
    assert check_network(net, SHAPE, 10, axis_size=4) == []


class Own:
    """A network of no library, with one fault."""

    def __init__(self, fault=None):
        self.fault = fault

    def init(self, key, images):
        weight = jax.random.normal(key, (images[0].size, 3))
        weight = weight.astype(jnp.int32) if self.fault == "integers" else weight
        return {"w": weight}, {"mean": jnp.zeros(3)}

    def apply(self, params, state, images, *, train, key=None, axis_name=None, method=None):
        logits = images.reshape(len(images), -1) @ params["w"].astype(images.dtype)
        if self.fault == "shape":
            logits = logits[:, :2]
        if train or self.fault == "moves":
            mean = logits.mean(0)
            if axis_name is not None and self.fault != "local":
                mean = jax.lax.pmean(mean, axis_name)
            state = state if self.fault == "still" else {"mean": mean}
        return logits, state if self.fault != "structure" or not train else {}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("shape", r"logits \[b, 3\] for the data's 3 classes, got \(2, 2\)"),
        ("integers", "parameters must be floating point, got int32 in w"),
        ("moves", "must not change in evaluation"),
        ("structure", "must keep its structure"),
        ("local", "not on those of the other devices"),
    ],
)
def test_the_check_refuses(fault, message):
    with pytest.raises(InputError, match=message):
        check_network(network(Own(fault)), SHAPE, 3, axis_size=4)


def test_the_check_accepts():
    for target in (Own(), same.LinenNet(), same.NNXNet, same.EquinoxNet):
        assert check_network(network(target), SHAPE, 3, axis_size=4) == []
    assert check_network(network(Own("local")), SHAPE, 3) == []
    (remark,) = check_network(network(Own("still")), SHAPE, 3)
    assert "never changes in training" in remark

    class Unshared(nn.Module):  # without the field axis_name
        @nn.compact
        def __call__(self, images, *, train):
            return nn.BatchNorm(not train)(nn.Dense(3)(images.reshape(len(images), -1)))

    with pytest.raises(InputError, match="give its norm layers the axis_name"):
        check_network(network(Unshared()), SHAPE, 3, axis_size=4)


def test_clear_errors():
    mine = same.NNXNet(rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="got an NNX module that has weights already"):
        network(mine).init(jax.random.key(0), IMAGES)
    with pytest.raises(InputError, match="must be the function itself"):
        network(hk.transform(lambda images: images))
    with pytest.raises(InputError, match="got int"):
        network(3)
    with pytest.raises(InputError, match=r"arguments \(width\) need a class or a function"):
        network(mine, width=3)
    with pytest.raises(InputError, match="variables must be the weights"):
        models.logits_fn(mine, {})
    for target in (same.LinenNet(), same.NNXNet, same.EquinoxNet):
        net = network(target)
        weights = net.init(jax.random.key(0), IMAGES)
        with pytest.raises(InputError, match=r"needs a network that has outputs\(images\)"):
            net.apply(*weights, IMAGES, train=False, method="outputs")
    # Dropout without a key.
    for net in same.DROPOUT.values():
        weights = net.init(jax.random.key(0), IMAGES)
        with pytest.raises(Exception, match=r"(?i)rng|key|NoneType"):
            net.apply(*weights, IMAGES, train=True)


def test_masks_go_by_names():
    def forward(images, *, train):
        x = hk.Conv2D(2, 3)(images)
        x = hk.BatchNorm(True, True, 0.9)(x, is_training=train)
        return hk.Linear(3)(x.mean((1, 2)))

    params, _ = network(forward).init(jax.random.key(0), IMAGES)
    assert kernels(params) == {
        "conv2_d": {"w": True, "b": False},
        "batch_norm": {"scale": False, "offset": False},
        "linear": {"w": True, "b": False},
    }
    assert not any(no_norm(params)["batch_norm"].values())
    params, _ = same.weights("equinox")
    for layer, kernel in (("conv", True), ("dense", True), ("bn", False)):
        assert kernels(params)[layer] == {"weight": kernel, "bias": False}
        assert no_norm(params)[layer] == {"weight": kernel, "bias": kernel}
