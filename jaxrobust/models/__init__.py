"""Networks (Flax Linen): images in [0, 1] in, logits out; normalisation is inside."""

from jaxrobust.models._logits import logits_fn as logits_fn
from jaxrobust.models._preact_resnet import preact_resnet18 as preact_resnet18
from jaxrobust.models._preact_resnet import preact_resnet34 as preact_resnet34
from jaxrobust.models._preact_resnet import preact_resnet50 as preact_resnet50
from jaxrobust.models._published import CIFAR10_MEAN as CIFAR10_MEAN
from jaxrobust.models._published import CIFAR10_STD as CIFAR10_STD
from jaxrobust.models._published import CIFAR100_MEAN as CIFAR100_MEAN
from jaxrobust.models._published import CIFAR100_STD as CIFAR100_STD
from jaxrobust.models._published import PUBLISHED as PUBLISHED
from jaxrobust.models._published import Published as Published
from jaxrobust.models._published import published as published
from jaxrobust.models._resnet import resnet18 as resnet18
from jaxrobust.models._resnet import resnet34 as resnet34
from jaxrobust.models._resnet import resnet50 as resnet50
from jaxrobust.models._small import digits_cnn as digits_cnn
from jaxrobust.models._small import mlp as mlp
from jaxrobust.models._small import small_cnn as small_cnn
from jaxrobust.models._torch_import import from_torch_state_dict as from_torch_state_dict
from jaxrobust.models._torch_import import load_torch_checkpoint as load_torch_checkpoint
from jaxrobust.models._torch_import import read_torch_checkpoint as read_torch_checkpoint
from jaxrobust.models._vgg import vgg16 as vgg16
from jaxrobust.models._wide_resnet import wide_resnet as wide_resnet
