"""The same network in PyTorch, with the same weights, beside ours."""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.bench import Setting, least_times, setting
from jaxrobust.convolutions import compiler_options, fast_on_cpu
from jaxrobust.losses import cross_entropy


class TorchRow(NamedTuple):
    """One pass in both libraries, on CPU, with the same number of threads to use.

    Attributes:
      program: "forward", "input gradient" or "training gradients".
      width: of the network.
      seconds: ours, the least of the repeats.
      torch_seconds: PyTorch's in channels_last, measured in turn with ours.
      ratio: ours over PyTorch's.
      difference: largest difference of the results, relative to the largest of them.
    """

    program: str
    width: int
    seconds: float
    torch_seconds: float
    ratio: float
    difference: float


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def torch_table(*, width: int = 16, batch_size: int = 32, repeats: int = 3) -> list[TorchRow]:
    """PreActResNet-18 at 32 x 32: forward, input gradient and training gradients in both libraries.

    Args:
      width: channels of the first stage.
      batch_size: images per pass.
      repeats: of each measurement; the least time counts.

    Returns:
      A row per pass.

    Raises:
      ValueError: if PyTorch is not installed.
      AssertionError: if the two libraries' results differ by more than 1 %.
    """
    if not has_torch():
        raise ValueError("the comparison needs PyTorch: pip install torch")
    bench = setting("preact_resnet18", width=width, batch_size=batch_size)
    ours, theirs = _ours(bench), _theirs(bench, width)
    differences = {}
    for name in ours:
        a, b = np.asarray(ours[name]()[0]), np.asarray(theirs[name]()[0])
        differences[name] = float(np.abs(a - b).max() / np.abs(b).max())
        assert differences[name] < 0.01, f"{name}: the results differ by {differences[name]}"
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    for name in ours:
        calls["ours", name], calls["torch", name] = ours[name], theirs[name]
    seconds = least_times(calls, repeats)
    return [
        TorchRow(
            name,
            width,
            seconds["ours", name],
            seconds["torch", name],
            seconds["ours", name] / seconds["torch", name],
            differences[name],
        )
        for name in ours
    ]


def _ours(bench: Setting) -> dict[str, Callable[[], Any]]:
    """Compiled passes; each returns what is compared first."""
    images = bench.images.astype(jnp.float32) / 255

    predict = fast_on_cpu(partial(bench.model.apply, train=False))
    update = fast_on_cpu(partial(bench.model.apply, train=True, mutable=["batch_stats"]))

    def forward(variables: Any) -> Any:
        return (predict(variables, images),)

    def input_gradient(variables: Any) -> Any:
        loss = lambda x: jnp.sum(cross_entropy(predict(variables, x), bench.labels))  # noqa: E731
        return (jax.grad(loss)(images),)

    def training(variables: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, after = update({**variables, "params": params}, images)
            return jnp.mean(cross_entropy(logits, bench.labels)), after

        grads, after = jax.grad(loss, has_aux=True)(variables["params"])
        return grads["stem"]["kernel"].transpose(3, 2, 0, 1), grads, after

    programs = {
        "forward": forward,
        "input gradient": input_gradient,
        "training gradients": training,
    }
    compiled = {
        name: jax.jit(program).lower(bench.variables).compile(compiler_options())
        for name, program in programs.items()
    }
    return {name: _call(program, bench.variables) for name, program in compiled.items()}


def _call(program: Any, argument: Any) -> Callable[[], Any]:
    return lambda: program(argument)


def _theirs(bench: Setting, width: int) -> dict[str, Callable[[], Any]]:
    import torch

    net = torch_net(bench.variables, width)
    cross_entropy_sum = torch.nn.CrossEntropyLoss(reduction="sum")
    cross_entropy_mean = torch.nn.CrossEntropyLoss()
    images = np.asarray(bench.images, np.float32).transpose(0, 3, 1, 2) / np.float32(255)
    x = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(np.array(bench.labels, np.int64))

    def forward() -> Any:
        net.eval()
        with torch.no_grad():
            return (net(x).numpy(),)

    def input_gradient() -> Any:
        net.eval()
        z = x.clone().requires_grad_(True)
        (grad,) = torch.autograd.grad(cross_entropy_sum(net(z), labels), z)
        return (grad.numpy().transpose(0, 2, 3, 1),)

    def training() -> Any:
        net.train()
        net.zero_grad(set_to_none=True)
        cross_entropy_mean(net(x), labels).backward()
        return (net.stem.weight.grad.numpy(),)

    return {"forward": forward, "input gradient": input_gradient, "training gradients": training}


def torch_net(variables: Any, width: int) -> Any:
    """PreActResNet-18 with a 1x1 shortcut on the activated input, as `models.preact_resnet18`."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.norm1 = nn.BatchNorm2d(before)
            self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(after)
            self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
            if stride != 1 or before != after:
                self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)

        def forward(self, x: Any) -> Any:
            active = torch.relu(self.norm1(x))
            y = self.conv2(torch.relu(self.norm2(self.conv1(active))))
            return y + (self.shortcut(active) if hasattr(self, "shortcut") else x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
            features = width
            for stage in range(1, 5):
                for index in range(2):
                    after, stride = width * 2 ** (stage - 1), 2 if stage > 1 and index == 0 else 1
                    setattr(self, f"stage{stage}_block{index}", Block(features, after, stride))
                    features = after
            self.norm = nn.BatchNorm2d(features)
            self.dense = nn.Linear(features, 10)

        def forward(self, x: Any) -> Any:
            x = self.stem(x)
            for stage in range(1, 5):
                for index in range(2):
                    x = getattr(self, f"stage{stage}_block{index}")(x)
            return self.dense(torch.relu(self.norm(x)).mean((2, 3)))

    net = Net()
    tensors = {**_flat(variables["params"]), **_flat(variables["batch_stats"])}
    state = net.state_dict()
    for name, value in tensors.items():
        state[name] = torch.from_numpy(value)
    net.load_state_dict(state)
    return net.to(memory_format=torch.channels_last)


NAMES = {"scale": "weight", "kernel": "weight", "mean": "running_mean", "var": "running_var"}


def _flat(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Flax leaves under PyTorch's names and in its layouts."""
    found: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
            continue
        array = np.array(value)
        if name == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        found[prefix + NAMES.get(name, name)] = np.ascontiguousarray(array)
    return found
