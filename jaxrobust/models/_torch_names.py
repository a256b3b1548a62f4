"""What the papers' PyTorch classes call the parts of our networks."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn

from jaxrobust.models._bit import BiTResNet
from jaxrobust.models._mixing_network import MixingNetwork
from jaxrobust.models._preact_resnet import PreActResNet
from jaxrobust.models._resnet import ResNet
from jaxrobust.models._small import SmallCNN
from jaxrobust.models._vgg import VGG
from jaxrobust.models._wide_resnet import WideResNet

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class Layout(NamedTuple):
    """How one PyTorch class names the layers of one of our networks.

    Attributes:
      names: our layer name -> theirs.
      block: their name of our `stage{stage}_block{index}`; `stage0` counts from zero, `index1`
        from one.
      flattened: dense layers after a flattening -> the channels of what was flattened: PyTorch
        flattens channels first, we flatten them last.
      first: our name of the convolution that reads the images.
      image_size: pixels per side of the images, where the parameters depend on it.
    """

    names: Mapping[str, str]
    block: str = ""
    flattened: Mapping[str, int] = {}
    first: str = "stem"
    image_size: int = 32

    def name(self, path: tuple[str, ...]) -> str:
        """Their name of our layer at `path`."""
        if len(path) == 1:
            return self.names[path[0]]
        stage, index = (int(part) for part in path[0].removeprefix("stage").split("_block"))
        block = self.block.format(stage=stage, stage0=stage - 1, index=index, index1=index + 1)
        return f"{block}.{self.names[path[1]]}"

    def key(self, path: tuple[str, ...]) -> str:
        """Their key of our variable at `path`, which begins with its collection."""
        _, *layer, leaf = path
        return f"{self.name(tuple(layer))}.{_LEAVES[leaf]}"


def _convs_and_norms(conv: str, norm: str, first: int) -> dict[str, str]:
    """Names that differ from ours only in the word and in where the numbers start."""
    counts = [(n, n - 1 + first) for n in (1, 2, 3)]
    convs = {f"conv{ours}": conv.format(theirs) for ours, theirs in counts}
    return convs | {f"norm{ours}": norm.format(theirs) for ours, theirs in counts}


_BN = _convs_and_norms("conv{}", "bn{}", first=1)
_RESNET = _BN | {"stem": "conv1", "dense": "linear", "shortcut": "shortcut.0"}
# Of RaWRN; TRADES' has none.
_SQUEEZE = {"squeeze1": "se.fc1", "squeeze2": "se.fc2"}

_TRADES_WRN = Layout(
    _BN | {"stem": "conv1", "norm": "bn1", "dense": "fc", "shortcut": "convShortcut"} | _SQUEEZE,
    block="block{stage}.layer.{index}",
)
_DEEPMIND_WRN = Layout(
    _convs_and_norms("conv_{}", "batchnorm_{}", first=0)
    | {"stem": "init_conv", "norm": "batchnorm", "dense": "logits", "shortcut": "shortcut"}
    | _SQUEEZE,
    block="layer.{stage0}.block.{index}",
)
_PREACT = Layout(_RESNET | {"norm": "bn"}, block="layer{stage}.{index}")
_DEEPMIND_PREACT = Layout(
    _convs_and_norms("conv_2d_{}", "batchnorm_{}", first=0)
    | {"conv1": "conv_2d_1", "conv2": "conv_2d_2"}
    | {"stem": "conv_2d", "norm": "batchnorm", "dense": "logits", "shortcut": "shortcut"},
    block="layer_{stage0}.{index}",
)
_POST_ACTIVATION = Layout(
    _RESNET | {"norm": "bn1", "shortcut_norm": "shortcut.1"}, block="layer{stage}.{index}"
)
_SMALL_CNN = Layout(
    {f"conv{1 + n // 2}_{1 + n % 2}": f"feature_extractor.conv{n + 1}" for n in range(4)}
    | {f"dense{n}": f"classifier.fc{n}" for n in (1, 2, 3)},
    flattened={"dense1": 64},
    first="conv1_1",
    image_size=28,
)
# Index of the first convolution of each stage in `features`; each convolution is followed by its
# normalisation and its activation, each stage by a pooling.
_VGG_STARTS = {1: 0, 2: 7, 3: 14, 4: 24, 5: 34}
_VGG16 = Layout(
    {
        f"stage{stage}_{layer}{index}": f"features.{start + 3 * index + after}"
        for stage, start in _VGG_STARTS.items()
        for index in range(3)
        for after, layer in enumerate(("conv", "norm"))
    }
    | {"dense": "classifier"},
    first="stage1_conv0",
)

_BIT = Layout(
    _convs_and_norms("conv{}", "gn{}", first=1)
    | {"stem": "root.conv", "norm": "head.gn", "dense": "head.conv", "shortcut": "downsample"},
    block="body.block{stage}.unit{index1:02d}",
)
_MIXING_NETWORK = Layout(
    _BN | {"merge": "conv1x1", "dense": "linear", "output_norm": "bn", "shortcut": "shortcut.0"},
    block="layers.{stage0}.{index}",
    first="merge",
)

_LAYOUTS: dict[type[nn.Module], tuple[Layout, ...]] = {
    WideResNet: (_TRADES_WRN, _DEEPMIND_WRN),
    PreActResNet: (_PREACT, _DEEPMIND_PREACT),
    ResNet: (_POST_ACTIVATION,),
    VGG: (_VGG16,),
    SmallCNN: (_SMALL_CNN,),
    BiTResNet: (_BIT,),
    MixingNetwork: (_MIXING_NETWORK,),
}


def has_torch_names(model: object) -> bool:
    """Whether a network's weights have names in PyTorch.

    Args:
      model: any object.

    Returns:
      True for the networks whose published weights `load_torch_checkpoint` reads.

    Example:
      >>> from jaxrobust import models
      >>> models.has_torch_names(models.small_cnn()), models.has_torch_names(models.mlp())
      (True, False)
    """
    return type(model) in _LAYOUTS


def layouts(model: nn.Module) -> tuple[Layout, ...]:
    """The layouts in which weights of `model` are published."""
    if type(model) not in _LAYOUTS:
        known = ", ".join(network.__name__ for network in _LAYOUTS)
        raise ValueError(
            f"model must be one of {known}; the PyTorch names of {type(model).__name__} are unknown"
        )
    return _LAYOUTS[type(model)]
