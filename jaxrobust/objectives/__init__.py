"""Objectives: min-max recipes, each an inner attack and an outer loss."""

from jaxrobust.objectives._adaptive_smoothing import AdaptiveSmoothing as adaptive_smoothing
from jaxrobust.objectives._binary_trades import BinaryTrades as binary_trades
from jaxrobust.objectives._distances import DistancePGDAT as distance_pgd_at
from jaxrobust.objectives._distances import DistanceTrades as distance_trades
from jaxrobust.objectives._expressive import CcIBP as cc_ibp
from jaxrobust.objectives._expressive import ExpIBP as exp_ibp
from jaxrobust.objectives._expressive import MtlIBP as mtl_ibp
from jaxrobust.objectives._expressive import Sabr as sabr
from jaxrobust.objectives._gair_trades import GairTrades as gair_trades
from jaxrobust.objectives._gairat import Gairat as gairat
from jaxrobust.objectives._gairat import GairFat as gair_fat
from jaxrobust.objectives._ibp import IBP as ibp
from jaxrobust.objectives._ibp import CrownIBP as crown_ibp
from jaxrobust.objectives._mart import Mart as mart
from jaxrobust.objectives._objective import Batch as Batch
from jaxrobust.objectives._objective import Bound as Bound
from jaxrobust.objectives._objective import Objective as Objective
from jaxrobust.objectives._objective import Pass as Pass
from jaxrobust.objectives._objective import Stateful as Stateful
from jaxrobust.objectives._objective import Views as Views
from jaxrobust.objectives._pgd_at import FAT as fat
from jaxrobust.objectives._pgd_at import PGDAT as pgd_at
from jaxrobust.objectives._score import Score as score
from jaxrobust.objectives._standard import Standard as standard
from jaxrobust.objectives._trades import Trades as trades

__all__ = [
    "Batch",
    "Bound",
    "Objective",
    "Pass",
    "Stateful",
    "Views",
    "adaptive_smoothing",
    "binary_trades",
    "cc_ibp",
    "crown_ibp",
    "distance_pgd_at",
    "distance_trades",
    "exp_ibp",
    "fat",
    "gair_fat",
    "gair_trades",
    "gairat",
    "ibp",
    "mart",
    "mtl_ibp",
    "pgd_at",
    "sabr",
    "score",
    "standard",
    "trades",
]
