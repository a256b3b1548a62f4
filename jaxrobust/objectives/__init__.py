"""Objectives: min-max recipes, each an inner attack and an outer loss."""

from jaxrobust.objectives._adaptive_smoothing import AdaptiveSmoothing as adaptive_smoothing
from jaxrobust.objectives._binary_trades import BinaryTrades as binary_trades
from jaxrobust.objectives._distances import DistancePGDAT as distance_pgd_at
from jaxrobust.objectives._distances import DistanceTrades as distance_trades
from jaxrobust.objectives._eat import EAT as eat
from jaxrobust.objectives._eat import norm_probabilities as norm_probabilities
from jaxrobust.objectives._expressive import CcIBP as cc_ibp
from jaxrobust.objectives._expressive import ExpIBP as exp_ibp
from jaxrobust.objectives._expressive import MtlIBP as mtl_ibp
from jaxrobust.objectives._expressive import Sabr as sabr
from jaxrobust.objectives._fgsm_training import FGSMRS as fgsm_rs
from jaxrobust.objectives._fgsm_training import NFGSM as n_fgsm
from jaxrobust.objectives._gair_trades import GairTrades as gair_trades
from jaxrobust.objectives._gairat import Gairat as gairat
from jaxrobust.objectives._gairat import GairFat as gair_fat
from jaxrobust.objectives._gkl import GKL as gkl
from jaxrobust.objectives._grad_align import GradAlign as grad_align
from jaxrobust.objectives._grad_align import gradient_alignment as gradient_alignment
from jaxrobust.objectives._groups import GROUPS as GROUPS
from jaxrobust.objectives._hat import HAT as hat
from jaxrobust.objectives._ibp import IBP as ibp
from jaxrobust.objectives._ibp import CrownIBP as crown_ibp
from jaxrobust.objectives._lbgat import LBGAT as lbgat
from jaxrobust.objectives._liet import LIET as liet
from jaxrobust.objectives._mart import Mart as mart
from jaxrobust.objectives._msd import MSD as msd
from jaxrobust.objectives._nuat import NuAT as nuat
from jaxrobust.objectives._objective import Batch as Batch
from jaxrobust.objectives._objective import Bound as Bound
from jaxrobust.objectives._objective import Clock as Clock
from jaxrobust.objectives._objective import Devices as Devices
from jaxrobust.objectives._objective import Objective as Objective
from jaxrobust.objectives._objective import Pass as Pass
from jaxrobust.objectives._objective import Sizes as Sizes
from jaxrobust.objectives._objective import Stateful as Stateful
from jaxrobust.objectives._objective import Views as Views
from jaxrobust.objectives._objective import WithState as WithState
from jaxrobust.objectives._pgd_at import FAT as fat
from jaxrobust.objectives._pgd_at import PGDAT as pgd_at
from jaxrobust.objectives._pgi import PGI as pgi
from jaxrobust.objectives._ramp import Ramp as ramp
from jaxrobust.objectives._score import Score as score
from jaxrobust.objectives._standard import Standard as standard
from jaxrobust.objectives._trades import Trades as trades
from jaxrobust.objectives._union_training import AvgNorms as avg_norms
from jaxrobust.objectives._union_training import MaxNorms as max_norms

__all__ = [
    "GROUPS",
    "Batch",
    "Bound",
    "Clock",
    "Devices",
    "Objective",
    "Pass",
    "Sizes",
    "Stateful",
    "Views",
    "WithState",
    "adaptive_smoothing",
    "avg_norms",
    "binary_trades",
    "cc_ibp",
    "crown_ibp",
    "distance_pgd_at",
    "distance_trades",
    "eat",
    "exp_ibp",
    "fat",
    "fgsm_rs",
    "gair_fat",
    "gair_trades",
    "gairat",
    "gkl",
    "grad_align",
    "gradient_alignment",
    "hat",
    "ibp",
    "lbgat",
    "liet",
    "mart",
    "max_norms",
    "msd",
    "mtl_ibp",
    "n_fgsm",
    "norm_probabilities",
    "nuat",
    "pgd_at",
    "pgi",
    "ramp",
    "sabr",
    "score",
    "standard",
    "trades",
]
