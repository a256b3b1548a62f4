"""How fast an experiment trains on the devices that are here, and how near their peak that is."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.bench._model_flops import model_flops
from jaxrobust.bench._plan_data import DataShape, data_shape
from jaxrobust.bench._plan_programs import stock_convolutions, train_step_program
from jaxrobust.convolutions import compiler_options
from jaxrobust.devices import bytes_per_device, check_split, device_mesh
from jaxrobust.experiment import Experiment
from jaxrobust.objectives import Sizes
from jaxrobust.training import build_model, build_optimizer, create_state

_LARGEST_PRODUCT = 8192  # rows and columns
_ENOUGH_SECONDS = 0.25  # for one measurement of products


class Throughput(NamedTuple):
    """The train step of an experiment on all devices of this process.

    Attributes:
      experiment: its name.
      device: kind of the devices.
      devices: how many.
      dtype: in which the network computes.
      batch_size: examples per step.
      compile_seconds: tracing, lowering and compilation of the step.
      step_seconds: of one step, the least of the repeats.
      images_per_second: training examples, each attacked and learnt from.
      flops_per_image: of the step's convolutions and matrix products, as `model_flops` counts.
      flops_per_second: of all devices.
      peak_flops_per_second: of square matrix products in `dtype`, measured on one device in the
        same run, times the devices.
      share: of that peak. Algorithms with fewer multiplications can take it above 1.
      bytes_per_device: of state, data set and intermediate results; 0 where it is not told.
      loss: of the last step.
    """

    experiment: str
    device: str
    devices: int
    dtype: str
    batch_size: int
    compile_seconds: float
    step_seconds: float
    images_per_second: float
    flops_per_image: float
    flops_per_second: float
    peak_flops_per_second: float
    share: float
    bytes_per_device: int
    loss: float


def throughput(
    experiment: Experiment,
    *,
    steps: int = 10,
    repeats: int = 3,
    say: Callable[[str], None] = lambda line: None,
) -> Throughput:
    """Times the real train step of an experiment on random images of its data set's shape.

    Args:
      experiment: its data are read only if their shape is not known by their name.
      steps: per repeat, waited for at the end.
      repeats: the least time counts.
      say: told what is done.

    Returns:
      `Throughput`.

    Raises:
      ValueError: if the batch does not split over the devices, or the data cannot be read.
      FloatingPointError: if the loss is not finite.
    """
    mesh = device_mesh(None)
    check_split(experiment.batch_size, mesh, microbatches=experiment.microbatches)
    shape = data_shape(experiment)
    step, shapes = train_step_program(experiment, shape, mesh)
    with stock_convolutions():
        flops = model_flops(jax.make_jaxpr(step)(*shapes))
    step, shapes = train_step_program(experiment, shape, mesh)
    say(f"compiling the train step for {mesh.size} x {mesh.devices.flat[0].device_kind}")
    started = time.perf_counter()
    program = step.lower(*shapes).compile(compiler_options())
    compile_seconds = time.perf_counter() - started
    say(f"{repeats} times {steps} steps of {experiment.batch_size} images")
    seconds, loss = _timed(program, _arguments(experiment, shape, shapes), steps, repeats)
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}")
    module = getattr(build_model(experiment, shape.num_classes), "module", None)
    dtype = jnp.dtype(getattr(module, "dtype", None) or "f4")
    say(f"matrix products in {dtype}")
    peak = mesh.size * matmul_peak(dtype)
    return Throughput(
        experiment=experiment.name,
        device=mesh.devices.flat[0].device_kind,
        devices=mesh.size,
        dtype=dtype.name,
        batch_size=experiment.batch_size,
        compile_seconds=compile_seconds,
        step_seconds=seconds,
        images_per_second=experiment.batch_size / seconds,
        flops_per_image=flops / experiment.batch_size,
        flops_per_second=flops / seconds,
        peak_flops_per_second=peak,
        share=flops / seconds / peak,
        bytes_per_device=bytes_per_device(program).get("bytes_per_device", 0),
        loss=loss,
    )


def matmul_peak(dtype: Any, *, largest: int = _LARGEST_PRODUCT) -> float:
    """FLOP/s of square matrix products on the first device: the best of growing sizes.

    Args:
      dtype: of the matrices.
      largest: rows and columns of the largest; smaller where products take long before.

    Returns:
      FLOP/s.

    Raises:
      ValueError: if `largest` is below 256.
    """
    if largest < 256:
        raise ValueError(f"largest must be at least 256, got {largest}")
    best, size, seconds = 0.0, 256, 0.0
    while size <= largest and seconds < _ENOUGH_SECONDS:
        matrix = jnp.full((size, size), 1 / size, dtype)
        times = max(4, min(100, round(2**33 / size**3)))

        def products(matrix: Any, times: int = times) -> Any:
            return jax.lax.fori_loop(0, times, lambda _, x: x @ matrix, matrix)

        program = jax.jit(products).lower(matrix).compile(compiler_options())
        jax.block_until_ready(program(matrix))
        for _ in range(3):
            started = time.perf_counter()
            jax.block_until_ready(program(matrix))
            seconds = time.perf_counter() - started
            best = max(best, 2 * times * size**3 / seconds)
        size *= 2
    return best


def _arguments(experiment: Experiment, shape: DataShape, shapes: tuple) -> list[Any]:
    """State and random data, placed as the step wants them."""
    _, images, labels, order, *_ = shapes
    rng = np.random.default_rng(0)
    steps = 1 if order is None else order.shape[0]
    model = build_model(experiment, shape.num_classes, helper=True)
    optimizer, _ = build_optimizer(experiment, steps)
    count = shape.train_size + shape.generated_size
    sizes = Sizes(shape.num_classes, shape.image_shape, count, experiment.build("threat"))
    values = (
        create_state(experiment, model, optimizer, shape.image_shape, sizes=sizes),
        rng.integers(0, shape.max_value + 1, images.shape, dtype=np.uint8),
        rng.integers(0, shape.num_classes, labels.shape, dtype=np.int32),
        None if order is None else rng.integers(0, labels.shape[0], order.shape, dtype=np.int32),
        experiment.build("objective"),
        experiment.build("threat"),
        model,
    )

    def placed(value: Any, wanted: Any) -> Any:
        return jax.device_put(jnp.asarray(value, wanted.dtype), wanted.sharding)

    return [jax.tree.map(placed, *pair) for pair in zip(values, shapes, strict=True)]


def _timed(program: Any, arguments: list, steps: int, repeats: int) -> tuple[float, float]:
    """Seconds per step, and the last loss. The state is donated from step to step."""
    state, *rest = arguments
    state, metrics = program(state, *rest)
    least = float("inf")
    for _ in range(repeats):
        jax.block_until_ready((state, metrics))
        started = time.perf_counter()
        for _ in range(steps):
            state, metrics = program(state, *rest)
        jax.block_until_ready((state, metrics))
        least = min(least, (time.perf_counter() - started) / steps)
    return least, float(metrics["loss"])
