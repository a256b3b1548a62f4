"""Bounds: certified lower bounds of margins over a ball of images, for any traced network."""

from jaxrobust.bounds import _table as _table
from jaxrobust.bounds._affine import affine as affine
from jaxrobust.bounds._crown import crown as crown
from jaxrobust.bounds._ibp import ibp as ibp
from jaxrobust.bounds._lines import Lines as Lines
from jaxrobust.bounds._lines import elementwise as elementwise
from jaxrobust.bounds._margins import margins as margins
from jaxrobust.bounds._margins import verified as verified
from jaxrobust.bounds._rule import Free as Free
from jaxrobust.bounds._rule import Interval as Interval
from jaxrobust.bounds._rule import Known as Known
from jaxrobust.bounds._rule import Node as Node
from jaxrobust.bounds._rule import Rule as Rule
from jaxrobust.bounds._rule import register as register
from jaxrobust.bounds._unsupported import UnsupportedPrimitive as UnsupportedPrimitive
