"""Group convolutions: reference values, and equivariance by layer, size and stride."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import models
from jaxrobust.models._group_layers import ORDERS, GroupConv, pool_planes
from tests.models.quick import assert_close, quick

# Group axis after a quarter turn (stated with the reference values), and after a flip of the
# rows, which takes the place of each element's partner and reverses its turns.
TURNED = {"z2": [0], "p4": [3, 0, 1, 2], "p4m": [3, 0, 1, 2, 5, 6, 7, 4]}
FLIPPED = [4, 5, 6, 7, 0, 1, 2, 3]


def turned(x, group):
    """What equivariant features `[b, h, w, g, c]` become where the image is turned."""
    return np.rot90(np.asarray(x)[:, :, :, TURNED[group]], 1, (1, 2))


def flipped(x):
    return np.asarray(x)[:, ::-1, :, FLIPPED]


@pytest.mark.parametrize("group", ["p4", "p4m"])
@pytest.mark.usefixtures("float64")
def test_reference_values(golden, group):
    data = golden("gconv_public")
    x = jnp.asarray(data["x"]).transpose(0, 2, 3, 1)
    lift = jnp.asarray(data[f"{group}/w_lift"]).transpose(2, 3, 1, 0)
    kernel = jnp.asarray(data[f"{group}/w_group"]).transpose(3, 4, 2, 1, 0)

    @jax.jit
    def convolve(x):
        lifted = models.lifting_conv(x, lift, group=group)
        return lifted, models.group_conv(lifted, kernel, group=group)

    def stored(name):  # (b, c, g, h, w)
        return data[f"{group}/{name}"].transpose(0, 3, 4, 2, 1)

    lifted, out = convolve(x)
    np.testing.assert_allclose(lifted, stored("lift_out"), atol=1e-12)
    np.testing.assert_allclose(out, stored("group_out"), atol=1e-12)
    np.testing.assert_array_equal(data[f"{group}/rot90_axis_perm"], TURNED[group])
    _, of_turned = convolve(jnp.rot90(x, 1, (1, 2)))
    np.testing.assert_allclose(of_turned, stored("rot90_input_group_out"), atol=1e-12)
    np.testing.assert_allclose(of_turned, turned(out, group), atol=1e-12)
    pooled = models.group_pool(out).max((1, 2))
    np.testing.assert_allclose(pooled, data[f"{group}/group_maxpool_global"], atol=1e-12)
    if group == "p4":
        even = jnp.asarray(data["p4/w_lift_k4"]).transpose(2, 3, 1, 0)
        out = models.lifting_conv(x, even, group="p4")
        np.testing.assert_allclose(out, stored("lift_out_k4"), atol=1e-12)


def broken(layer, x, group):
    """How far a layer is from equivariance to a turn, relative to its output."""
    straight = layer(x)
    start = turned(x, group) if x.ndim == 5 else np.rot90(x, 1, (1, 2))
    gaps = [np.asarray(layer(jnp.asarray(start))) - turned(straight, group)]
    if group == "p4m":
        start = flipped(x) if x.ndim == 5 else np.asarray(x)[:, ::-1]
        gaps.append(np.asarray(layer(jnp.asarray(start))) - flipped(straight))
    return max(np.abs(gap).max() for gap in gaps) / np.abs(np.asarray(straight)).max()


EXACT, NOT = 1e-5, 1e-2


@pytest.mark.parametrize("group", ["p4", "p4m"])
@pytest.mark.parametrize("kind", ["lifting", "group"])
@pytest.mark.parametrize(
    ("size", "stride", "kernel", "pad", "exact"),
    [
        (7, 1, 3, 0, True),
        (8, 1, 3, 1, True),
        (8, 1, 4, 0, True),
        (7, 2, 3, 1, True),
        (7, 2, 1, 0, True),
        (8, 2, 3, 1, False),
        (8, 2, 1, 0, False),
        (8, 2, 4, 1, True),
    ],
)
def test_convolutions_are_equivariant_where_the_window_is_symmetric(
    group, kind, size, stride, kernel, pad, exact, key
):
    planes = (ORDERS[group],) if kind == "group" else ()
    layer = GroupConv(3, kernel, stride, pad, group, bias=True)
    x = jax.random.normal(key, (2, size, size, *planes, 2))
    variables = layer.init(key, x)
    gap = broken(jax.jit(functools.partial(layer.apply, variables)), x, group)
    assert gap < EXACT if exact else gap > NOT


@pytest.mark.parametrize("group", ["p4", "p4m"])
def test_norms_and_pools_are_equivariant(group, key):
    x = jax.random.normal(key, (3, 6, 6, ORDERS[group], 2))
    norm = models._layers.BatchNorm()
    variables = norm.init(key, x, train=False)

    def normalised(x):
        return norm.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    assert broken(normalised, x, group) < EXACT
    for pool in (jnp.max, jnp.mean):
        assert broken(lambda x, pool=pool: pool_planes(x, pool), x, group) < EXACT
        with pytest.raises(ValueError, match="planes of even size to pool.*7, 7"):
            pool_planes(jnp.zeros((1, 7, 7, 4, 1)), pool)
    # A per-channel norm: scale and shift are shared by all elements of the group.
    assert variables["params"]["scale"].shape == (2,)
    gathered = np.asarray(normalised(x))
    np.testing.assert_allclose(gathered.mean((0, 1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(gathered.var((0, 1, 2, 3)), 1, atol=1e-4)
    assert np.abs(gathered.mean((0, 1, 2))).max() > 0.01
    plane = models.group_pool(x)
    np.testing.assert_array_equal(
        models.group_pool(jnp.asarray(turned(x, group))), np.rot90(plane, 1, (1, 2))
    )


def test_one_element_is_an_ordinary_convolution(key):
    x, kernel = jax.random.normal(key, (2, 8, 8, 3)), jax.random.normal(key, (3, 3, 3, 4))
    out = models.lifting_conv(x, kernel, group="z2", stride=2, pad=1)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_array_equal(out[:, :, :, 0], expected)
    again = models.group_conv(out, kernel.transpose(0, 1, 3, 2)[:, :, None], group="z2")
    assert again.shape == (2, 2, 2, 1, 3)


# ----- networks


def shapes(model, images):
    images = jax.ShapeDtypeStruct(images, jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def count(model, images):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model, images)["params"]))


def resnet_count(widths, order):
    """Written down from the description: stem, blocks, norms of two numbers, flattened head."""

    def conv(i, o, size):
        return order * i * o * size**2 + 2 * o

    total = 3 * widths[0] * 9 + 2 * widths[0]
    before = widths[0]
    for width in widths:
        total += conv(before, width, 3) + 3 * conv(width, width, 3)
        total += conv(before, width, 1) if before != width else 0
        before = width
    return total + order * before * 10 + 10


def test_parameter_counts():
    assert count(models.std_cnn(), (1, 28, 28, 1)) == 21_840
    # Lifting, five layers, the top with its bias; two numbers per norm and channel.
    assert count(models.group_cnn(), (1, 28, 28, 1)) == 90 + 5 * 3600 + 6400 + 10 + 6 * 20
    twin = models.group_cnn(group="z2", width=20)
    assert count(twin, (1, 28, 28, 1)) == 180 + 5 * 3600 + 3200 + 10 + 6 * 40
    flat = models.group_cnn(head="flatten", batch_norm=False)
    assert count(flat, (1, 28, 28, 1)) == 100 + 3610 + 7220 + 14420 + 64050 + 510
    images = (1, 32, 32, 3)
    assert count(models.group_resnet18(), images) == resnet_count((23, 45, 91, 181), 8)
    assert count(models.group_resnet18(group="p4"), images) == resnet_count((32, 64, 128, 256), 4)
    assert count(models.group_resnet18(group="z2"), images) == count(models.resnet18(), images)
    pooled = count(models.group_resnet18(head="group_pool"), images)
    assert pooled == resnet_count((23, 45, 91, 181), 8) - 7 * 181 * 10


def logits_of(model, images, *, seed=1):
    """Logits with drawn parameters and statistics: biases and norms are not at their start."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        size = (1 if name in ("scale", "var") else 0) + rng.uniform(-0.3, 0.3, leaf.shape)
        fan_in = max(np.prod(leaf.shape[:-1]), 1)
        kernel = rng.normal(size=leaf.shape) * np.sqrt(2 / fan_in)
        return jnp.asarray(kernel if name == "kernel" else size, jnp.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes(model, images.shape))
    return quick(functools.partial(model.apply, variables))


@functools.cache
def images(side, channels):
    return jnp.asarray(
        np.random.default_rng(0).uniform(size=(2, side, side, channels)), jnp.float32
    )


def variance(model, x, group):
    """How much logits change, relative to how much they differ between images."""
    logits_fn = logits_of(model, x)
    straight = np.asarray(logits_fn(x))
    moved = [np.rot90(x, turns, (1, 2)) for turns in (1, 2, 3)]
    if group == "p4m":
        moved += [np.asarray(x)[:, :, ::-1], np.asarray(x).transpose(0, 2, 1, 3)]
    gap = max(np.abs(np.asarray(logits_fn(jnp.asarray(m))) - straight).max() for m in moved)
    return gap / np.abs(straight[0] - straight[1]).max()


@pytest.mark.parametrize("group", ["p4", "p4m"])
def test_pooled_networks_are_invariant(group):
    """28 x 28 as published, 8 x 8 for tiny digits, a residual network on even and odd sizes."""
    small = models.group_cnn(group=group, width=4)
    assert variance(small, images(28, 1), group) < 1e-4
    assert variance(small.clone(stages=((2, 1),)), images(8, 1), group) < 1e-4
    resnet = models.group_resnet18(
        group=group, width=8, head="group_pool", downsample="pool", activation="silu"
    ).clone(blocks=(1, 1))
    assert variance(resnet, images(8, 3), group) < 1e-4
    strided = models.group_resnet18(group=group, width=8, head="group_pool").clone(blocks=(1, 1))
    assert variance(strided, images(9, 3), group) < 1e-4


def test_published_forms_are_not_invariant():
    """Strides on even sizes, and heads that keep the group axis: the tests above can fail."""
    strided = models.group_resnet18(width=8, head="group_pool").clone(blocks=(1, 1))
    assert variance(strided, images(8, 3), "p4m") > 1e-2
    flat = models.group_resnet18(width=8, downsample="pool").clone(blocks=(1, 1))
    assert variance(flat, images(8, 3), "p4m") > 1e-2
    flat = models.group_cnn(width=4, head="flatten", stages=[(2, 1)])
    assert variance(flat, images(8, 1), "p4") > 1e-2
    ordinary = models.group_cnn(group="z2", width=4, stages=[(2, 1)])
    assert variance(ordinary, images(8, 1), "z2") > 1e-2


NETWORKS = {
    "cnn": (models.group_cnn(width=2, stages=[(2, 1)]), (8, 1)),
    "flat": (models.group_cnn(width=2, head="flatten", batch_norm=False, stages=[(2, 1)]), (8, 1)),
    "resnet": (models.group_resnet18(width=6).clone(blocks=(1, 1)), (8, 3)),
    "std": (models.std_cnn(dropout=0.0), (16, 1)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_train_steps_are_finite_and_move_everything(name):
    model, size = NETWORKS[name]
    x = images(*size)
    variables = quick(model.init)(jax.random.key(0), x)

    @quick
    def step(params):
        def loss(params):
            both = {**variables, "params": params}
            logits, updates = model.apply(both, x, train=True, mutable=["batch_stats"])
            return -jax.nn.log_softmax(logits)[:, 0].mean(), (logits, updates)

        return jax.grad(loss, has_aux=True)(params)

    gradients, (logits, updates) = step(variables["params"])
    assert logits.shape == (2, 10)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradients, logits, updates)))
    paths = jax.tree_util.tree_leaves_with_path(gradients)
    dead = [jax.tree_util.keystr(path) for path, leaf in paths if np.abs(leaf).max() < 1e-9]
    assert not dead


@pytest.mark.parametrize("name", ["cnn", "flat", "resnet"])
def test_bfloat16_features_and_rematerialisation(name):
    model, size = NETWORKS[name]
    x = images(*size)
    half = model.clone(layers=model.layers.__class__(**{**vars(model.layers), "dtype": "bfloat16"}))
    run = functools.partial(half.apply, mutable=["intermediates"])
    logits, state = jax.eval_shape(run, shapes(half, x.shape), x)
    assert logits.dtype == jnp.float32
    sown = {k: v[0] for k, v in state["intermediates"].items()}
    assert "pooled" in sown
    planes = ORDERS["p4m" if name == "resnet" else "p4"]
    assert sown["stage1"].dtype == jnp.bfloat16
    assert sown["stage1"].shape[3] == planes
    recomputed = model.clone(remat=True)
    assert jax.tree.structure(shapes(recomputed, x.shape)) == jax.tree.structure(
        shapes(model, x.shape)
    )
    assert_close(logits_of(recomputed, x)(x), logits_of(model, x)(x), 1e-5)


def test_batch_statistics_across_devices():
    model, size = NETWORKS["cnn"]
    x = images(*size)
    variables = quick(model.init)(jax.random.key(0), x)

    def run(model):
        return functools.partial(model.apply, train=True, mutable=["batch_stats"])

    whole, stats = quick(run(model))(variables, x)
    shared = jax.vmap(run(model.clone(axis_name="d")), in_axes=(None, 0), axis_name="d")
    halves, shared_stats = quick(shared)(variables, x[:, None])
    assert_close(halves[:, 0], whole, 1e-4)
    jax.tree.map(lambda a, b: assert_close(a[0], b, 1e-5), shared_stats, stats)


def test_initial_values():
    """Uniform over the fan-in without the group's size, as published."""
    layer = GroupConv(16, group="p4m", bias=True)
    params = layer.init(jax.random.key(0), jnp.zeros((1, 5, 5, 8, 12)))["params"]
    bound = 1 / np.sqrt(12 * 9)
    assert 0.99 * bound < np.abs(params["kernel"]).max() <= bound
    np.testing.assert_allclose(params["kernel"].std(), bound / np.sqrt(3), rtol=0.03)
    assert 0.7 * bound < np.abs(params["bias"]).max() <= bound


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.group_cnn(group="p8"), "group must be one of 'z2', 'p4', 'p4m', not 'p8'"),
        (lambda: models.group_cnn(head="mean"), "head must be one of .*'mean'"),
        (lambda: models.group_resnet18(downsample="max"), "downsample must be one of .*'max'"),
        (lambda: shapes(models.group_cnn(), (1, 27, 27, 1)), "even size to pool.*23, 23"),
        (lambda: shapes(models.group_cnn(), (1, 28, 26, 1)), "images must be square"),
        (lambda: shapes(models.std_cnn(), (1, 8, 8, 1)), "16 x 16 pixels or more"),
        (
            lambda: models.lifting_conv(jnp.ones((1, 5, 5, 1)), jnp.ones((3, 2, 1, 1)), group="p4"),
            "kernel must be square",
        ),
        (
            lambda: models.group_conv(
                jnp.ones((1, 5, 5, 4, 1)), jnp.ones((3, 3, 8, 1, 1)), group="p4"
            ),
            "must have g = 4 for 'p4'",
        ),
    ],
)
def test_errors_name_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()
