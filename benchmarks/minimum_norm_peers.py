"""Minimum-norm attacks of adversarial-library beside ours: same network, images and settings."""

import importlib
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.fast_verdict import DIGITS_SPEC, digits_case
from benchmarks.pytorch_passes import has_torch
from jaxrobust.bench import least_times
from jaxrobust.convolutions import compiler_options, fast_on_cpu
from jaxrobust.evaluation import minimum_norm_attacks

# Of adversarial-library: module, function, name of the number of steps, whether it takes a norm.
PEERS = {
    "fmn": ("fast_minimum_norm", "fmn", "steps", True),
    "ddn": ("decoupled_direction_norm", "ddn", "steps", False),
    "pdpgd": ("primal_dual_gradient_descent", "pdpgd", "num_steps", True),
    "sigma-zero": ("sigma_zero", "sigma_zero", "num_steps", False),
    "deepfool": ("deepfool", "df", "steps", True),
    "superdeepfool": ("superdeepfool", "sdf", "steps", False),
}
ORDERS = {"linf": float("inf"), "l2": 2, "l1": 1, "l0": 0}
CASES = (
    *(("fmn", norm) for norm in ORDERS),
    ("ddn", "l2"),
    *(("pdpgd", norm) for norm in ORDERS),
    ("sigma-zero", "l0"),
    *(("deepfool", norm) for norm in ("linf", "l2")),
    ("superdeepfool", "l2"),
)
OWN = {"fmn": {"escape": False}}  # the library's FMN has no escape from corners of the box
THEIRS: dict[str, dict[str, Any]] = {
    "ddn": {"levels": None},
    "deepfool": {"return_unsuccessful": True},
}
AGREE = 0.05  # relative, of the medians; points found, as a share of all


class MinimumNormRow(NamedTuple):
    """One attack in one norm.

    Attributes:
      attack: its name here.
      norm: of the distances.
      steps: of both; DeepFool and SuperDeepFool end earlier.
      points: images.
      found: those with a finite distance.
      median: distance over all points.
      seconds: of our attack on all points, the least of the repeats, without compilation.
      compile_seconds: of our attack, once.
      peer_found: likewise theirs.
      peer_median: likewise.
      peer_seconds: likewise, taken in turn with ours; NaN where it failed.
      problem: why there are no figures of the peer, or why they are not compared; else empty.
    """

    attack: str
    norm: str
    steps: int
    points: int
    found: int
    median: float
    seconds: float
    compile_seconds: float
    peer_found: int = -1
    peer_median: float = float("nan")
    peer_seconds: float = float("nan")
    problem: str = ""


def minimum_norm_peers(
    *,
    steps: int = 100,
    points: int = 100,
    repeats: int = 3,
    cases: Sequence[tuple[str, str]] = CASES,
) -> list[MinimumNormRow]:
    """Times both libraries on the robust digits network of the tests.

    Args:
      steps: of every attack.
      points: the first so many images.
      repeats: of each measurement.
      cases: attacks and norms.

    Returns:
      A row per attack and norm. One where the medians differ by more than 5 %, or the numbers of
      points found by more than 5 % of the points, says so.
    """
    case = digits_case("digits_robust", "linf", 0.1)
    images, labels = np.asarray(case.images[:points]), np.asarray(case.labels[:points])
    version, problem = _version(), ""
    if not version or not has_torch():
        problem = "adv-lib not installed" if has_torch() else "torch not installed"
    rows = []
    for name, norm in cases:
        ours = _ours(case.logits_fn, name, norm, steps, images, labels)
        calls: dict[str, Callable[[], Any]] = {"ours": ours.call}
        if not problem:
            calls["theirs"] = _theirs(case.logits_fn, name, norm, steps, images, labels)
        seconds = least_times(calls, repeats)
        distances = np.asarray(ours.call())
        own = (name, norm, steps, len(images), *_summary(distances))
        row = MinimumNormRow(*own, seconds["ours"], ours.compile_seconds, problem=problem)
        rows.append(row if problem else _beside(row, calls["theirs"](), seconds["theirs"]))
    return rows


def _version() -> str:
    try:
        return importlib.metadata.version("adv-lib")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _summary(distances: np.ndarray) -> tuple[int, float]:
    return int(np.isfinite(distances).sum()), float(np.median(distances))


def _beside(row: MinimumNormRow, distances: np.ndarray, seconds: float) -> MinimumNormRow:
    found, median = _summary(distances)
    agree = row.median == median or abs(row.median / median - 1) <= AGREE
    agree &= abs(row.found - found) <= AGREE * row.points
    problem = "" if agree else "the distances differ"
    return row._replace(peer_found=found, peer_median=median, peer_seconds=seconds, problem=problem)


class _Ours(NamedTuple):
    call: Callable[[], Any]
    compile_seconds: float


def _ours(
    logits_fn: Any, name: str, norm: str, steps: int, images: np.ndarray, labels: np.ndarray
) -> _Ours:
    (attack,) = minimum_norm_attacks(
        norm,  # type: ignore[arg-type]
        attacks=[name],
        steps=steps,
        **OWN.get(name, {}),
    ).values()

    def distances(logits_fn: Any, key: Any, images: Any, labels: Any) -> Any:
        return attack(fast_on_cpu(lambda x: logits_fn(x)), key, images, labels).distance

    arguments = (logits_fn, jax.random.key(0), jnp.asarray(images), jnp.asarray(labels))
    lowered = jax.jit(distances).lower(*arguments)
    started = time.perf_counter()
    compiled = lowered.compile(compiler_options())
    return _Ours(partial(compiled, *arguments), time.perf_counter() - started)


def _theirs(
    logits_fn: Any, name: str, norm: str, steps: int, images: np.ndarray, labels: np.ndarray
) -> Callable[[], np.ndarray]:
    """Distances; infinite where the network, in PyTorch, is still right."""
    import torch

    module, function, count, takes_norm = PEERS[name]
    attack = getattr(importlib.import_module(f"adv_lib.attacks.{module}"), function)
    settings = {count: steps, **({"norm": ORDERS[norm]} if takes_norm else {})}
    net = _torch_net({key: np.asarray(value) for key, value in logits_fn.args[0].items()})
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    y = torch.from_numpy(labels.astype(np.int64))
    right = net(x).argmax(1) == y

    def distances() -> np.ndarray:
        found = x.clone()
        found[right] = attack(net, x[right], y[right], **settings, **THEIRS.get(name, {}))
        sizes = torch.linalg.vector_norm((found - x).flatten(1), ord=ORDERS[norm], dim=1)
        return torch.where(net(found).argmax(1) != y, sizes, torch.inf).detach().numpy()

    return distances


def _torch_net(arrays: dict[str, np.ndarray]) -> Any:
    """The digits network in PyTorch: NHWC flattened, padding as in JAX."""
    import torch

    weights = {
        name: torch.from_numpy(
            value.transpose(3, 2, 0, 1).copy() if value.ndim == 4 else value.copy()
        )
        for name, value in arrays.items()
    }

    class Net(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            for operation in DIGITS_SPEC:
                if operation["op"] == "conv":
                    x = _same(x, weights, operation)
                elif operation["op"] == "relu":
                    x = torch.relu(x)
                elif operation["op"] == "flatten":
                    x = x.permute(0, 2, 3, 1).flatten(1)
                else:
                    name = operation["name"]
                    x = x @ weights[f"{name}_kernel"] + weights[f"{name}_bias"]
            return x

    return Net().eval()


def _same(x: Any, weights: Any, operation: dict[str, Any]) -> Any:
    from torch.nn import functional

    name, stride = operation["name"], operation["stride"]
    kernel, pads = weights[f"{name}_kernel"], []
    for size, width in zip(reversed(x.shape[2:]), reversed(kernel.shape[2:]), strict=True):
        whole = max((-(-size // stride) - 1) * stride + width - size, 0)
        pads += [whole // 2, whole - whole // 2]
    return functional.conv2d(functional.pad(x, pads), kernel, weights[f"{name}_bias"], stride)
