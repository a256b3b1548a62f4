"""Measurements: ratios taken side by side in one run, with a check that outputs agree."""

from jaxrobust.bench._attack import AttackRow as AttackRow
from jaxrobust.bench._attack import attack_table as attack_table
from jaxrobust.bench._convolutions import ConvolutionRow as ConvolutionRow
from jaxrobust.bench._convolutions import convolution_table as convolution_table
from jaxrobust.bench._step import LoopRow as LoopRow
from jaxrobust.bench._step import StepRow as StepRow
from jaxrobust.bench._step import loop_table as loop_table
from jaxrobust.bench._step import step_table as step_table
from jaxrobust.bench._torch import TorchRow as TorchRow
from jaxrobust.bench._torch import torch_table as torch_table
