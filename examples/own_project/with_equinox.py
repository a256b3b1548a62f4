"""The same with a network in Equinox."""

from dataclasses import replace

import with_nnx
from shapes import networks

from jaxrobust.experiment import use

config = replace(with_nnx.config, name="own_equinox", model=use(networks.EquinoxNet))
