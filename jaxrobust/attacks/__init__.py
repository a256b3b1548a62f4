"""Attacks: traceable functions of a logits function; wrap them in `jax.jit` yourself."""

from jaxrobust.attacks._apgd import apgd as apgd
from jaxrobust.attacks._attacked import Attacked as Attacked
from jaxrobust.attacks._fab import fab as fab
from jaxrobust.attacks._fgsm import fgsm as fgsm
from jaxrobust.attacks._pgd import pgd as pgd
from jaxrobust.attacks._square import square as square
