"""The train step of TRADES in PyTorch, written as one would write it there, beside ours."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.pytorch_passes import has_torch, torch_net
from jaxrobust.bench import (
    Setting,
    chained,
    least_times,
    objective_of,
    setting,
    step_program,
)
from jaxrobust.convolutions import compiler_options
from jaxrobust.keys import fold_keys
from jaxrobust.reasons import first_line

EPS, BETA = 8 / 255, 6.0
LOGITS_DEVIATION = 3.0
TOLERANCE = (
    0.01  # of the first step's loss and gradient: rounding turns the sign of small gradients
)


class TorchStepRow(NamedTuple):
    """The train step of TRADES in one form.

    Attributes:
      form: "jaxrobust", "PyTorch eager" or "PyTorch torch.compile", these in channels_last.
      compile_seconds: of ours; for `torch.compile` its first step, `nan` for eager.
      seconds: of one step, the least of the repeats, all forms in turn; `nan` where it failed.
      ratio: our seconds over these.
      loss: of the first step.
      loss_difference: relative to ours.
      problem: why there are no figures; else empty.
    """

    form: str
    compile_seconds: float
    seconds: float
    ratio: float
    loss: float
    loss_difference: float
    problem: str = ""


def torch_step_table(
    *, width: int = 16, batch_size: int = 32, steps: int = 10, repeats: int = 3
) -> list[TorchStepRow]:
    """TRADES on a PreActResNet-18 at 32 x 32, ours and in PyTorch, eager and compiled.

    The same weights, batch, attack noise, threat, step sizes and optimizer; the losses of
    the first step must agree.

    Args:
      width: channels of the first stage.
      batch_size: images.
      steps: of the attack.
      repeats: of each measurement; the least time counts.

    Returns:
      A row per form. Where `torch.compile` fails, as without a C++ compiler, or the losses of a
      first step differ by more than one per cent, its row says so and has no times.

    Raises:
      ValueError: if PyTorch is not installed.
    """
    if not has_torch():
        raise ValueError("the comparison needs PyTorch: pip install torch")
    bench = with_spread_logits(setting("preact_resnet18", width=width, batch_size=batch_size))
    calls: dict[str, Callable[[], Any]] = {}
    first: dict[str, tuple[float, float]] = {}  # compilation, loss
    problems: dict[str, str] = {}
    calls["jaxrobust"], compile_seconds = _ours(bench, steps)
    _, metrics = calls["jaxrobust"]()
    first["jaxrobust"] = (compile_seconds, float(metrics["loss"]))
    for form in ("PyTorch eager", "PyTorch torch.compile"):
        step = _torch_step(bench, width, steps, compiled=form.endswith("compile"))
        started = time.perf_counter()
        try:
            loss = step()
        except Exception as error:  # of the compiler that torch.compile calls
            problems[form] = first_line(error)
            continue
        took = time.perf_counter() - started
        first[form] = (took if form.endswith("compile") else float("nan"), loss)
        calls[form] = step
    seconds = least_times(calls, repeats)
    ours = first["jaxrobust"]
    rows = [_row(form, ours, first[form], seconds["jaxrobust"], seconds[form]) for form in calls]
    nan = float("nan")
    return rows + [
        TorchStepRow(form, nan, nan, nan, nan, nan, problem) for form, problem in problems.items()
    ]


def with_spread_logits(bench: Setting) -> Setting:
    """The last layer scaled until logits are as far apart as a trained network's.

    At initialisation all classes are equally likely: the divergence that the attack climbs is then
    nothing but rounding, and no two programs agree on it.
    """
    images = bench.images.astype(jnp.float32) / 255
    logits = jax.jit(partial(bench.model.apply, train=False))(bench.variables, images)
    params = bench.variables["params"]
    kernel = params["dense"]["kernel"] * (LOGITS_DEVIATION / jnp.std(logits))
    params = {**params, "dense": {**params["dense"], "kernel": kernel}}
    return bench._replace(variables={**bench.variables, "params": params})


def _row(
    form: str,
    ours: tuple[float, float],
    found: tuple[float, float],
    our_seconds: float,
    seconds: float,
) -> TorchStepRow:
    compile_seconds, loss = found
    difference = abs(loss - ours[1]) / abs(ours[1])
    if not difference < TOLERANCE:
        nan, problem = float("nan"), f"the losses differ by {100 * difference:.1f} %"
        return TorchStepRow(form, compile_seconds, nan, nan, loss, difference, problem)
    return TorchStepRow(form, compile_seconds, seconds, our_seconds / seconds, loss, difference)


def _ours(bench: Setting, steps: int) -> tuple[Callable[[], Any], float]:
    run, state = step_program(bench, objective_of("trades", steps))
    started = time.perf_counter()
    compiled = run.lower(state).compile(compiler_options())
    return chained(compiled, state), time.perf_counter() - started


def attack_noise(bench: Setting) -> np.ndarray:
    """Where the attack of our first step begins: keys as the train step folds them."""
    key = jax.random.fold_in(jax.random.key(1), 0)
    positions = jnp.arange(len(bench.labels), dtype=jnp.int32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, positions)
    attack_keys = fold_keys(jax.vmap(jax.random.split)(keys)[:, 1], 0)
    shape = bench.images.shape[1:]
    return np.array(1e-3 * jax.vmap(lambda key: jax.random.normal(key, shape))(attack_keys))


def _torch_step(bench: Setting, width: int, steps: int, *, compiled: bool) -> Callable[[], Any]:
    import torch

    net: Any = torch_net(bench.variables, width)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)
    called = torch.compile(net, dynamic=False) if compiled else net
    x, noise = (
        torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2))).contiguous(
            memory_format=torch.channels_last
        )
        for array in (np.asarray(bench.images, np.float32) / 255, attack_noise(bench))
    )
    labels = torch.from_numpy(np.array(bench.labels, np.int64))
    return partial(_torch_trades, net, called, optimizer, x, labels, noise, steps)


def _torch_trades(
    net: Any, called: Any, optimizer: Any, x: Any, labels: Any, noise: Any, steps: int
) -> float:
    """One step; returns its loss."""
    import torch
    from torch.nn import functional

    def divergence(clean: Any, adv: Any, reduction: str) -> Any:
        log_adv = functional.log_softmax(adv, 1)
        log_clean = functional.log_softmax(clean, 1)
        return functional.kl_div(log_adv, log_clean, reduction=reduction, log_target=True)

    step_size = 2.5 * EPS / steps
    net.eval()
    net.requires_grad_(False)  # or a compiled backward pass computes the parameters' gradients too
    with torch.no_grad():
        clean = called(x)
    z = noise
    for _ in range(steps):
        z = z.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(divergence(clean, called(x + z), "sum"), z)
        z = (z.detach() + step_size * grad.sign()).clamp(-EPS, EPS)
        z = (x + z).clamp(0, 1) - x
    adversarial = (x + z).clamp(0, 1)
    net.train()
    net.requires_grad_(True)
    optimizer.zero_grad(set_to_none=True)
    clean, adv = called(x), called(adversarial)
    loss = functional.cross_entropy(clean, labels)
    loss = loss + BETA * divergence(clean, adv, "batchmean")
    loss.backward()
    optimizer.step()
    return loss.item()
