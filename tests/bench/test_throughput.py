"""The throughput of a train step, and the counting of its mathematics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner
from jax import lax

from jaxrobust import bench, models
from jaxrobust.bench import model_flops
from jaxrobust.cli import cli
from jaxrobust.commands import markdown_table


def count(fn, *args):
    return model_flops(jax.make_jaxpr(fn)(*args))


def conv(images, kernel, stride=1):
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


IMAGES, KERNEL = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
PASS = 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)


def test_products_and_convolutions():
    assert count(lambda a, b: a @ b, jnp.ones((2, 3)), jnp.ones((3, 4))) == 2 * 2 * 3 * 4
    batched = count(lambda a: jnp.einsum("bij,bjk->bik", a, a), jnp.ones((7, 3, 3)))
    assert batched == 2 * 7 * 27
    assert count(conv, IMAGES, KERNEL) == PASS
    assert count(lambda x, k: conv(x, k, 2), IMAGES, KERNEL) == PASS / 4


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("argument", [0, 1])
def test_a_gradient_costs_what_its_pass_costs(stride, argument):
    forward = count(lambda x, k: conv(x, k, stride), IMAGES, KERNEL)
    grad = jax.grad(lambda x, k: (conv(x, k, stride) ** 2).sum(), argument)
    assert count(grad, IMAGES, KERNEL) == 2 * forward


def test_loops_branches_and_devices():
    def attack(x):
        step = lambda _, x: x + jax.grad(lambda x: (conv(x, KERNEL) ** 2).sum())(x)  # noqa: E731
        return lax.fori_loop(0, 7, step, x)

    assert count(attack, IMAGES) == 7 * 2 * PASS
    branch = lambda x: lax.cond(x.sum() > 0, lambda x: conv(x, KERNEL).sum(), lambda x: 0.0, x)  # noqa: E731
    assert count(branch, IMAGES) == PASS
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("d")
    mapped = jax.shard_map(lambda x: conv(x, KERNEL), mesh=mesh, in_specs=spec, out_specs=spec)
    assert count(jax.jit(mapped), IMAGES) == PASS
    unknown = lambda x: lax.while_loop(lambda x: x.sum() > 0, lambda x: x @ x, x)  # noqa: E731
    with pytest.raises(ValueError, match="rounds are unknown"):
        count(unknown, jnp.ones((2, 2)))


def test_a_network_of_the_papers():
    """PreActResNet-18 at 32 x 32 has 0.56 billion multiplications a pass."""
    model = models.preact_resnet18()
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, train=False))
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    flops = count(lambda v, x: model.apply(v, x, train=False), variables, images)
    assert 1.11e9 < flops < 1.12e9


DIGITS = ["experiments/digits_trades.py", "--set", "batch_size=24", "--set", "objective.steps=3"]


@pytest.mark.slow
def test_the_step_of_an_experiment(tmp_path):
    path = tmp_path / "rows.json"
    options = ["--steps", "2", "--repeats", "1", "--json", str(path)]
    done = CliRunner().invoke(cli, ["bench", "throughput", *DIGITS, *options])
    assert done.exit_code == 0, done.output
    head, _, row = markdown_table(path).splitlines()
    assert head.startswith("| experiment (")
    assert "digits_trades" in row
    assert "float32" in row


@pytest.mark.slow
def test_counts_all_passes_of_a_step():
    from jaxrobust.experiment import load, override

    experiment = override(load("experiments/digits_trades.py"), DIGITS[2::2])
    row = bench.throughput(experiment, steps=1, repeats=1)
    assert np.isclose(row.share, row.flops_per_second / row.peak_flops_per_second)
    assert np.isclose(row.images_per_second * row.step_seconds, 24)
    assert row.devices == 8
    more = override(experiment, ["objective.steps=4"])
    other = bench.throughput(more, steps=1, repeats=1).flops_per_image
    model = experiment.build("model", num_classes=10)
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.ones((1, 8, 8, 1)), train=False)
    )
    forward = count(
        lambda v, x: model.apply(v, x, train=False),
        variables,
        jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32),
    )
    assert np.isclose(other - row.flops_per_image, 2 * forward, rtol=1e-6)


def test_a_batch_that_does_not_split_is_refused():
    done = CliRunner().invoke(cli, ["bench", "throughput", *DIGITS[:2], "batch_size=9"])
    assert done.exit_code != 0
    assert "batch_size must be a multiple of the 8 devices" in str(done.exception or done.output)


def test_the_peak_grows_no_larger_than_asked():
    assert bench.matmul_peak(jnp.float32, largest=256) > 0
    with pytest.raises(ValueError, match="256"):
        bench.matmul_peak(jnp.float32, largest=8)
