"""Threats: the sets that an attacker may move an image in."""

from jaxrobust.threats._compose import compose as compose
from jaxrobust.threats._l0 import l0 as l0
from jaxrobust.threats._l1 import l1 as l1
from jaxrobust.threats._l1 import l1_box_correction as l1_box_correction
from jaxrobust.threats._l2 import l2 as l2
from jaxrobust.threats._linf import linf as linf
from jaxrobust.threats._questions import default_step as default_step
from jaxrobust.threats._questions import described as described
from jaxrobust.threats._questions import norm_of as norm_of
from jaxrobust.threats._rotate import rotate_translate as rotate_translate
from jaxrobust.threats._rotate_published import rotate_translate_nearest as rotate_translate_nearest
from jaxrobust.threats._rotate_published import rotate_translate_twice as rotate_translate_twice
from jaxrobust.threats._spatial import Spatial as Spatial
from jaxrobust.threats._spatial import Transform as Transform
from jaxrobust.threats._spatial import spatial as spatial
from jaxrobust.threats._threat import BatchedThreat as BatchedThreat
from jaxrobust.threats._threat import Threat as Threat
from jaxrobust.threats._threat import batched as batched
from jaxrobust.threats._union import Picked as Picked
from jaxrobust.threats._union import Union as Union
from jaxrobust.threats._union import union as union
