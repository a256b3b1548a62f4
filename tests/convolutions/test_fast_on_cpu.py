"""Under every transformation, around networks of other libraries, and the switch itself."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrobust.convolutions import fast_on_cpu
from tests.convolutions.comparing import convolution, fast, jit, random, slow_convolutions

# Transformations from outside.

NET_IMAGES, NET_KERNELS = (4, 8, 8, 3), ((3, 3, 3, 8), (3, 3, 8, 8))


def network(kernels, images):
    for kernel, stride in zip(kernels, (1, 2), strict=True):
        images = jax.nn.silu(convolution(strides=(stride, stride))(images, kernel))
    return images.mean((1, 2))


def net_args():
    return [random(i, s) * 0.3 for i, s in enumerate(NET_KERNELS)], random(9, NET_IMAGES)


def loss_of(net):
    return lambda kernels, images: (net(kernels, images) ** 2).sum()


TRANSFORMATIONS = {
    "grad": lambda loss: jax.grad(loss, (0, 1)),
    "per example": lambda loss: jax.vmap(
        jax.grad(lambda k, x: loss(k, x[None]), (0, 1)), in_axes=(None, 0)
    ),
    "jvp": lambda loss: lambda k, x: jax.jvp(loss, (k, x), (k, x)),
    "linearize": lambda loss: lambda k, x: jax.linearize(loss, k, x)[1](k, x),
    "forward over reverse": lambda loss: (
        lambda k, x: jax.jvp(jax.grad(loss, (0, 1)), (k, x), (k, x))
    ),
    "reverse over reverse": lambda loss: jax.grad(
        lambda k, x: sum((g**2).sum() for g in jax.tree.leaves(jax.grad(loss, (0, 1))(k, x))),
        (0, 1),
    ),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformations(name):
    transform, args = TRANSFORMATIONS[name], net_args()
    want = jit(transform(loss_of(network)))(*args)
    got = jit(transform(loss_of(fast(network))))(*args)
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-4)


def test_vmap_over_params():
    kernels, images = net_args()
    kernels = jax.tree.map(lambda k: jnp.stack([k, -2 * k, k + 1]), kernels)
    for axes in ((0, None), (0, 0)):
        x = images if axes[1] is None else jnp.stack([images, 2 * images, -images])
        want, got = (
            jit(jax.vmap(jax.grad(loss_of(net), (0, 1)), axes))(kernels, x)
            for net in (network, fast(network))
        )
        chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-4)


def test_inside_an_attack_loop():
    kernels, images = net_args()

    @functools.partial(jit, static_argnums=0)
    def attack(net, images):
        step = lambda _, x: x + 0.1 * jnp.tanh(jax.grad(loss_of(net), 1)(kernels, x))  # noqa: E731
        return lax.fori_loop(0, 5, step, images)

    chex.assert_trees_all_close(attack(fast(network), images), attack(network, images), atol=1e-5)


def check_shard_map(check_vma):
    """Data parallel, with statistics over all devices: a collective inside `fn`."""
    kernels, images = net_args()
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def normalised(kernels, images):
        maps = network(kernels, images)
        return maps - lax.pmean(maps.mean(0, keepdims=True), "data")

    def gradients(net):
        def per_device(kernels, images):
            loss = lambda k, x: lax.pmean(loss_of(net)(k, x), "data")  # noqa: E731
            by_kernels, by_images = jax.grad(loss, (0, 1))(kernels, images)
            return lax.pmean(by_kernels, "data"), by_images

        specs = (P(), P("data"))
        return jit(
            jax.shard_map(
                per_device, mesh=mesh, in_specs=specs, out_specs=specs, check_vma=check_vma
            )
        )(kernels, images)

    chex.assert_trees_all_close(gradients(fast(normalised)), gradients(normalised), atol=1e-5)


@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map(check_vma):
    check_shard_map(check_vma)


def test_shard_map_inside_is_left_alone():
    kernels, images = net_args()
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    inner = jax.shard_map(network, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"))
    want, got = (
        jit(jax.grad(loss_of(net), (0, 1)))(kernels, images) for net in (inner, fast(inner))
    )
    chex.assert_trees_all_equal(got, want)


def test_explicit_sharding():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        kernels, images = net_args()
        images = jax.device_put(images, NamedSharding(mesh, P("data")))
        want, got = (
            jit(jax.grad(loss_of(net), (0, 1)))(kernels, images) for net in (network, fast(network))
        )
    chex.assert_trees_all_close(got, want, atol=1e-5)


# Networks of other libraries.


def linen_net():
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(8, (3, 3))(x)))
            return nn.Dense(5)(nn.silu(nn.Conv(8, (3, 3), strides=2)(x)).mean((1, 2)))

    net, images = Net(), random(0, NET_IMAGES)
    variables = net.init(jax.random.key(1), images)
    return functools.partial(net.apply, variables, train=False), images


def nnx_net():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.dense = nnx.Linear(8, 5, rngs=rngs)

        def __call__(self, x):
            return self.dense(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))

    net = Net(nnx.Rngs(0))
    net.eval()
    graphdef, state = nnx.split(net)
    return lambda x: nnx.merge(graphdef, state)(x), random(0, NET_IMAGES)


def equinox_net():
    eqx = pytest.importorskip("equinox")
    a, b = jax.random.split(jax.random.key(0))
    layers = [
        eqx.nn.Conv2d(3, 8, 3, key=a),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Conv2d(8, 5, 3, 2, key=b),
    ]
    net = eqx.nn.Sequential(layers)
    return lambda x: jax.vmap(net)(x.transpose(0, 3, 1, 2)).mean((2, 3)), random(0, NET_IMAGES)


@pytest.mark.parametrize("make", [linen_net, nnx_net, equinox_net])
def test_other_libraries(make):
    net, images = make()
    chex.assert_trees_all_equal(jit(fast(net))(images), jit(net)(images))
    gradient = lambda net: jax.grad(lambda x: (net(x) ** 2).sum())  # noqa: E731
    assert slow_convolutions(gradient(net), images)
    assert not slow_convolutions(gradient(fast(net)), images)
    want, got = (jit(gradient(f))(images) for f in (net, fast(net)))
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-6)


# The switch, the arguments and the cost.


def test_switch(monkeypatch):
    monkeypatch.delenv("JAXROBUST_FAST_CONVOLUTIONS", raising=False)
    assert fast_on_cpu(network) is not network
    assert fast_on_cpu(network, enabled=False) is network
    monkeypatch.setenv("JAXROBUST_FAST_CONVOLUTIONS", "0")
    assert fast_on_cpu(network) is network
    assert fast_on_cpu(network, enabled=True) is not network
    monkeypatch.delenv("JAXROBUST_FAST_CONVOLUTIONS")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert fast_on_cpu(network) is network


def test_other_arguments_pass_through():
    label, kernel = object(), random(1, (3, 3, 3, 8))

    def fn(params, x, times, *, flag, name=None):
        assert type(times) is int
        assert flag is False
        assert isinstance(params["numpy"], np.ndarray)
        maps = convolution()(x, params["kernel"]) * float(times)
        return {"maps": maps, "name": name, "times": times, "none": None, "label": label}

    params, x = {"kernel": kernel, "numpy": np.zeros(3)}, random(0, NET_IMAGES)
    want = fn(params, x, 2, flag=False, name="a")
    got = fast(fn)(params, x, 2, flag=False, name="a")
    chex.assert_trees_all_equal(got.pop("maps"), want.pop("maps"))
    assert got == want
    assert fast(network).__name__ == "network"


def test_one_trace_per_program():
    traces = []

    @fast
    def fn(images):
        traces.append(1)
        return convolution()(images, jnp.ones((3, 3, 3, 4))).sum()

    step = jax.jit(lambda x: lax.fori_loop(0, 4, lambda _, x: x + jax.grad(fn)(x), x))
    jax.block_until_ready([step(random(i, NET_IMAGES)) for i in range(3)])
    assert len(traces) == 1
