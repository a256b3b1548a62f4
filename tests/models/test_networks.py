"""Networks: the papers' parameter counts, options, precision, strictness, devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import models
from jaxrobust.models._preact_resnet import PreActResNet
from jaxrobust.models._resnet import ResNet
from tests.models.quick import assert_close, quick

# Parameters that the papers' classes have, less the branch that TRADES' class never uses.
# Those of the networks in the table of published ones are in test_published.py.
PARAMETERS = {
    "small_cnn": (models.small_cnn(), 312_202),
    "WRN-28-10": (models.wide_resnet(depth=28, width=10), 38_119_866 - 1_640_672),
    "WRN-34-10": (models.wide_resnet(), 48_262_586 - 2_102_112),
    "preact_resnet18": (models.preact_resnet18(), 11_172_170),
    "preact_resnet18, no final norm": (models.preact_resnet18(final_norm=False), 11_171_146),
    "preact_resnet34": (models.preact_resnet34(), 21_280_330),
    "preact_resnet50": (models.preact_resnet50(), 23_513_162),
    "resnet18": (models.resnet18(), 11_173_962),
    "resnet34": (models.resnet34(), 21_282_122),
    "resnet50": (models.resnet50(), 23_520_842),
    "vgg16": (models.vgg16(), 14_728_266),
}


def shapes(model, images=(1, 32, 32, 3)):
    """The variables' shapes; nothing is allocated."""
    images = jax.ShapeDtypeStruct(images, jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    model, expected = PARAMETERS[name]
    images = (1, 28, 28, 1) if name == "small_cnn" else (1, 32, 32, 3)
    params = shapes(model, images)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


def tiny(family, **options):
    """A small network of each family, with the least common of its options."""
    if family == "wide_resnet":
        model = models.wide_resnet(depth=10, width=1, activation="silu", padding="same", **options)
        return model.clone(features=(4, 8, 8), stem=4)
    if family == "preact_resnet":
        model = models.preact_resnet50(width=2, activation="softplus", **options)
        return model.clone(blocks=(1, 1))
    if family == "resnet":
        return models.resnet50(width=2, **options).clone(blocks=(1, 1))
    return models.vgg16(width=2, **options)


FAMILIES = ("wide_resnet", "preact_resnet", "resnet", "vgg")


@functools.cache
def setup(family):
    """Images, and variables that are drawn without compiling an initialisation."""
    images = jnp.asarray(np.random.default_rng(1).uniform(size=(2, 32, 32, 3)), jnp.float32)
    rng = np.random.default_rng(2)

    def draw(path, leaf):
        fan_in = max(np.prod(leaf.shape[:-1]), 1)
        values = rng.normal(size=leaf.shape) * np.sqrt(2 / fan_in if leaf.ndim > 1 else 0.01)
        offset = 1 if path[-1].key in ("scale", "var") else 0
        return jnp.asarray(values + offset, jnp.float32)

    return images, jax.tree_util.tree_map_with_path(draw, shapes(tiny(family), images.shape))


def train_step(model):
    """Gradients of parameters and images, logits of both modes, statistics."""

    def run(variables, images):
        def loss(params, images):
            both = {**variables, "params": params}
            logits, updates = model.apply(both, images, train=True, mutable=["batch_stats"])
            return -jax.nn.log_softmax(logits)[:, 0].mean(), (logits, updates["batch_stats"])

        gradients, (logits, statistics) = jax.grad(loss, (0, 1), has_aux=True)(
            variables["params"], images
        )
        return gradients, logits, statistics, model.apply(variables, images)

    return run


@functools.cache
def outcome(family, **options):
    images, variables = setup(family)
    return quick(train_step(tiny(family, **options)))(variables, images)


@pytest.mark.parametrize("family", FAMILIES)
def test_train_step_is_finite_and_moves_everything(family):
    """Under strict promotion of types and ranks, in train and evaluation mode."""
    gradients, logits, statistics, eval_logits = outcome(family)
    for leaf in jax.tree.leaves((gradients, logits, statistics, eval_logits)):
        assert leaf.dtype == jnp.float32
        assert np.isfinite(leaf).all()
    assert logits.shape == eval_logits.shape == (2, 10)
    paths = jax.tree_util.tree_leaves_with_path(gradients)
    # A bias before a normalisation is the one parameter that does nothing.
    dead = [jax.tree_util.keystr(path) for path, leaf in paths if np.abs(leaf).max() < 1e-7]
    assert all("_conv" in path and "bias" in path for path in dead), dead
    _, variables = setup(family)
    moved = jax.tree.map(lambda a, b: np.any(a != b), statistics, variables["batch_stats"])
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32(family):
    images, variables = setup(family)
    model = tiny(family, dtype="bfloat16")
    for leaf in jax.tree.leaves(jax.eval_shape(train_step(model), variables, images)):
        assert leaf.dtype == jnp.float32
    program = str(jax.make_jaxpr(model.apply)(variables, images))
    convolutions = [line for line in program.splitlines() if " conv_general_dilated[" in line]
    assert len(convolutions) > 5
    assert all(":bf16[" in line for line in convolutions)
    roots = [line for line in program.splitlines() if "= rsqrt" in line]
    assert roots
    assert all(":f32[" in line for line in roots)


def test_bfloat16_is_close_to_float32():
    gradients, _, statistics, logits = outcome("wide_resnet", dtype="bfloat16")
    _, _, exact_statistics, exact = outcome("wide_resnet")
    assert_close(logits, exact, 0.05)
    assert (logits != exact).any()
    jax.tree.map(lambda a, b: assert_close(a, b, 0.1), statistics, exact_statistics)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_rematerialisation_changes_no_value():
    expected, actual = outcome("wide_resnet"), outcome("wide_resnet", remat=True)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), actual, expected)


@pytest.mark.parametrize("family", FAMILIES[:3])
def test_rematerialisation_keeps_the_parameter_tree_and_recomputes_blocks(family):
    images, variables = setup(family)
    model = tiny(family, remat=True)
    assert jax.tree.structure(shapes(model)) == jax.tree.structure(variables)
    gradient = jax.make_jaxpr(jax.grad(lambda x: model.apply(variables, x).sum()))(images)
    assert str(gradient).count("prevent_cse=True") >= sum(model.blocks)


@pytest.mark.slow
@pytest.mark.parametrize("remat", [False, True])
def test_a_loop_over_blocks_changes_no_value(remat):
    """The same variables, the same results and statistics, in a smaller program."""
    images, _ = setup("wide_resnet")
    model = models.wide_resnet(depth=22, width=1, activation="silu", padding="same", remat=remat)
    plain = model.clone(features=(4, 8, 8), stem=4)
    looped = plain.clone(scan=True)
    variables = plain.init(jax.random.key(0), images)
    jax.tree.map(np.testing.assert_array_equal, looped.init(jax.random.key(0), images), variables)
    expected, actual = (quick(train_step(m))(variables, images) for m in (plain, looped))
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), actual, expected)
    programs = [str(jax.make_jaxpr(m.apply)(variables, images)) for m in (plain, looped)]
    # Three stages of three blocks: one is written down for the two that are equal.
    assert [program.count("conv_general_dilated[") for program in programs] == [21, 15]


@pytest.mark.parametrize(
    ("family", "stages"), [("wide_resnet", 3), ("preact_resnet", 2), ("resnet", 2), ("vgg", 5)]
)
def test_features_are_sown(family, stages):
    images, variables = setup(family)
    model = tiny(family)
    _, state = jax.eval_shape(
        functools.partial(model.apply, mutable=["intermediates"]), variables, images
    )
    features = {name: value.shape for name, (value,) in state["intermediates"].items()}
    assert set(features) == {*(f"stage{n}" for n in range(1, stages + 1)), "pooled"}
    assert features["pooled"] == (2, features[f"stage{stages}"][-1])
    sides = {"wide_resnet": (32, 16, 8), "vgg": (16, 8, 4, 2, 1)}.get(family, (32, 16))
    assert tuple(features[f"stage{n}"][1] for n in range(1, stages + 1)) == sides
    assert "intermediates" not in jax.eval_shape(model.init, jax.random.key(0), images)


def test_batch_statistics_across_devices():
    """Two devices that share statistics do what one device with the whole batch does."""
    images, variables = setup("resnet")
    images, model = images[:, :16, :16], tiny("resnet")

    def run(model):
        return functools.partial(model.apply, train=True, mutable=["batch_stats"])

    whole, stats = quick(run(model))(variables, images)
    shared = jax.vmap(run(model.clone(axis_name="d")), in_axes=(None, 0), axis_name="d")
    halves, shared_stats = quick(shared)(variables, images[:, None])
    assert_close(halves[:, 0], whole, 1e-4)
    jax.tree.map(lambda a, b: assert_close(a[0], b, 1e-5), shared_stats, stats)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_odd_sizes(padding):
    model = models.wide_resnet(depth=10, width=1, padding=padding)
    images = jax.ShapeDtypeStruct((1, 7, 7, 3), jnp.float32)
    apply = functools.partial(model.apply, mutable=["intermediates"])
    _, state = jax.eval_shape(apply, shapes(model), images)
    assert state["intermediates"]["stage3"][0].shape == (1, 2, 2, 64)


def test_initial_values():
    """He over the fan-out for wide networks, PyTorch's uniform for the others, as published."""
    wide = models.wide_resnet(depth=10).clone(blocks=(1,), features=(128,))
    params = quick(wide.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    kernel = params["stage1_block0"]["conv2"]["kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 128)), rtol=0.02)
    assert (params["dense"]["bias"] == 0).all()
    assert _reaches(params["dense"]["kernel"], 1 / np.sqrt(128))
    preact = models.preact_resnet18(width=32).clone(blocks=(1,))
    params = quick(preact.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    assert _reaches(params["stage1_block0"]["conv2"]["kernel"], 1 / np.sqrt(9 * 32))
    assert _reaches(params["dense"]["kernel"], 1 / np.sqrt(32))


def _reaches(values, bound):
    return 0.95 * bound < np.abs(values).max() <= bound


@pytest.mark.parametrize("build", [models.resnet18, models.preact_resnet18])
def test_blocks_of_34_and_50(build):
    name = build.__name__.removesuffix("18")
    deep, deeper = getattr(models, f"{name}34")(), getattr(models, f"{name}50")()
    assert (deep.blocks, deep.bottleneck) == ((3, 4, 6, 3), False)
    assert (deeper.blocks, deeper.bottleneck) == ((3, 4, 6, 3), True)
    assert isinstance(deeper, ResNet | PreActResNet)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.wide_resnet(depth=32), "depth must be 6 n \\+ 4 .*, not 32"),
        (lambda: models.wide_resnet(activation="gelu"), "activation must be one of .*, not 'gelu'"),
        (lambda: models.wide_resnet(padding="valid"), "padding must be one of .*, not 'valid'"),
        (lambda: models.resnet18(dtype="int8"), "dtype must be one of None, .*, not 'int8'"),
        (lambda: models.preact_resnet18(shortcut="none"), "shortcut must be one of .*'none'"),
        (lambda: shapes(models.vgg16(), (1, 28, 28, 1)), "32 x 32 pixels or more"),
        (
            lambda: shapes(models.resnet18(mean=models.CIFAR10_MEAN), (1, 32, 32, 1)),
            "mean has 3 values, the images 1 channels",
        ),
        (
            lambda: jax.eval_shape(
                models.resnet18().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3), jnp.uint8)
            ),
            "images must be floating point",
        ),
    ],
)
def test_errors_name_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()
