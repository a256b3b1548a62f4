"""The two trained networks beside one of the library."""

from dataclasses import replace

from with_nnx import config as own

from jaxrobust.experiment import Tradeoff, use

config = Tradeoff(
    name="own_tradeoff",
    runs={"NNX": "runs/own_nnx", "Equinox": "runs/own_equinox"},
    members=(replace(own, name="library", model=use("digits_cnn")),),
    evaluators=(use("autoattack", norm="linf", eps=0.05, images=32),),
)
