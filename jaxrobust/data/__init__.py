"""Data sets in memory, and the order in which training sees them."""

from jaxrobust.data._batches import epoch_order as epoch_order
from jaxrobust.data._dataset import Dataset as Dataset
from jaxrobust.data._digits import digits as digits
