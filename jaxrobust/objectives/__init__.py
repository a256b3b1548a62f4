"""Objectives: min-max recipes, each an inner attack and an outer loss."""

from jaxrobust.objectives._objective import Batch as Batch
from jaxrobust.objectives._objective import Objective as Objective
from jaxrobust.objectives._objective import Pass as Pass
from jaxrobust.objectives._objective import Views as Views
from jaxrobust.objectives._pgd_at import PGDAT as pgd_at
from jaxrobust.objectives._standard import Standard as standard
from jaxrobust.objectives._trades import Trades as trades

__all__ = ["Batch", "Objective", "Pass", "Views", "pgd_at", "standard", "trades"]
