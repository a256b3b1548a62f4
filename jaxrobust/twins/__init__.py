"""Twins: a network with the same values and with gradients where its own are stopped."""

from jaxrobust.twins._stops import Stop as Stop
from jaxrobust.twins._straight_through import gradient_stops as gradient_stops
from jaxrobust.twins._straight_through import straight_through as straight_through
