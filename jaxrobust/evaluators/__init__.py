"""Evaluators: what a trained network is evaluated by, one file each; each makes a row."""

from jaxrobust.evaluators._audit import Audit as audit
from jaxrobust.evaluators._autoattack import AutoAttack as autoattack
from jaxrobust.evaluators._autoattack import folder_name as folder_name
from jaxrobust.evaluators._bracket import Brackets as bracket
from jaxrobust.evaluators._certified import Certified as certified
from jaxrobust.evaluators._distances import Distances as distances
from jaxrobust.evaluators._eps_curve import EpsCurve as eps_curve
from jaxrobust.evaluators._per_class import PerClass as per_class
from jaxrobust.evaluators._pgd import Pgd as pgd
from jaxrobust.evaluators._spatial_grid import SpatialGrid as spatial_grid
from jaxrobust.evaluators._union import Union as union
from jaxrobust.evaluators._verdict import Verdict as verdict

__all__ = [
    "audit",
    "autoattack",
    "bracket",
    "certified",
    "distances",
    "eps_curve",
    "folder_name",
    "per_class",
    "pgd",
    "spatial_grid",
    "union",
    "verdict",
]
