"""Measurements: ratios taken side by side in one run, with a check that outputs agree."""

from jaxrobust.bench._attack import AttackRow as AttackRow
from jaxrobust.bench._attack import attack_table as attack_table
from jaxrobust.bench._convolutions import ConvolutionRow as ConvolutionRow
from jaxrobust.bench._convolutions import convolution_table as convolution_table
from jaxrobust.bench._forms import LoopRow as LoopRow
from jaxrobust.bench._forms import TransformRow as TransformRow
from jaxrobust.bench._forms import loop_table as loop_table
from jaxrobust.bench._forms import transform_table as transform_table
from jaxrobust.bench._many import ManyRow as ManyRow
from jaxrobust.bench._many import many_table as many_table
from jaxrobust.bench._plan import Plan as Plan
from jaxrobust.bench._plan import ProgramPlan as ProgramPlan
from jaxrobust.bench._plan import plan as plan
from jaxrobust.bench._plan_chips import TPUCompilerError as TPUCompilerError
from jaxrobust.bench._step import StepRow as StepRow
from jaxrobust.bench._step import step_table as step_table
from jaxrobust.bench._torch import TorchRow as TorchRow
from jaxrobust.bench._torch import torch_table as torch_table
