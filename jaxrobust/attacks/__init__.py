"""Attacks: traceable functions of a logits function; wrap them in `jax.jit` yourself.

Each function has a class with a capitalised name that binds its settings. It is a pytree, and
evaluations call it as `(logits_fn, keys, images, labels) -> Attacked`.
"""

from jaxrobust.attacks._apgd import apgd as apgd
from jaxrobust.attacks._attack import Attack as Attack
from jaxrobust.attacks._attack import InParts as InParts
from jaxrobust.attacks._attacked import Attacked as Attacked
from jaxrobust.attacks._bound import APGD as APGD
from jaxrobust.attacks._bound import FAB as FAB
from jaxrobust.attacks._bound import FGSM as FGSM
from jaxrobust.attacks._bound import PGD as PGD
from jaxrobust.attacks._bound import MinMargin as MinMargin
from jaxrobust.attacks._bound_cr import CR as CR
from jaxrobust.attacks._bound_malt import MALT as MALT
from jaxrobust.attacks._bound_minimum_norm import DDN as DDN
from jaxrobust.attacks._bound_minimum_norm import FMN as FMN
from jaxrobust.attacks._bound_minimum_norm import PDPGD as PDPGD
from jaxrobust.attacks._bound_minimum_norm import DeepFool as DeepFool
from jaxrobust.attacks._bound_minimum_norm import SigmaZero as SigmaZero
from jaxrobust.attacks._bound_minimum_norm import SuperDeepFool as SuperDeepFool
from jaxrobust.attacks._bound_pma import PMA as PMA
from jaxrobust.attacks._bound_spatial import RandomTransform as RandomTransform
from jaxrobust.attacks._bound_spatial import SpatialGrid as SpatialGrid
from jaxrobust.attacks._bound_spatial import WorstOfK as WorstOfK
from jaxrobust.attacks._bound_square import Square as Square
from jaxrobust.attacks._cr import cr as cr
from jaxrobust.attacks._ddn import ddn as ddn
from jaxrobust.attacks._deepfool import deepfool as deepfool
from jaxrobust.attacks._fab import fab as fab
from jaxrobust.attacks._fgsm import fgsm as fgsm
from jaxrobust.attacks._fmn import fmn as fmn
from jaxrobust.attacks._malt import malt_targets as malt_targets
from jaxrobust.attacks._min_margin import min_margin as min_margin
from jaxrobust.attacks._pdpgd import pdpgd as pdpgd
from jaxrobust.attacks._pgd import pgd as pgd
from jaxrobust.attacks._pma import pma as pma
from jaxrobust.attacks._sigma_zero import sigma_zero as sigma_zero
from jaxrobust.attacks._spatial_grid import spatial_grid as spatial_grid
from jaxrobust.attacks._spatial_random import AverageCase as AverageCase
from jaxrobust.attacks._spatial_random import average_case as average_case
from jaxrobust.attacks._spatial_random import worst_of_k as worst_of_k
from jaxrobust.attacks._square import square as square
from jaxrobust.attacks._superdeepfool import superdeepfool as superdeepfool
