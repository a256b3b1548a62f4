"""Attacks: traceable functions of a logits function; wrap them in `jax.jit` yourself."""

from jaxrobust.attacks._apgd import apgd as apgd
from jaxrobust.attacks._attacked import Attacked as Attacked
from jaxrobust.attacks._fab import fab as fab
from jaxrobust.attacks._fgsm import fgsm as fgsm
from jaxrobust.attacks._min_margin import min_margin as min_margin
from jaxrobust.attacks._pgd import pgd as pgd
from jaxrobust.attacks._spatial_grid import spatial_grid as spatial_grid
from jaxrobust.attacks._spatial_random import AverageCase as AverageCase
from jaxrobust.attacks._spatial_random import average_case as average_case
from jaxrobust.attacks._spatial_random import worst_of_k as worst_of_k
from jaxrobust.attacks._square import square as square
