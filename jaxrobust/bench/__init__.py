"""Measurements: ratios taken side by side in one run, with a check that outputs agree."""

from jaxrobust.bench._attack import AttackRow as AttackRow
from jaxrobust.bench._attack import attack_table as attack_table
from jaxrobust.bench._convolutions import ConvolutionRow as ConvolutionRow
from jaxrobust.bench._convolutions import convolution_table as convolution_table
