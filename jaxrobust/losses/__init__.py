"""Losses: pure functions of logits, one value per example; the mean is the caller's."""

from jaxrobust.losses._binary import binary_boundary as binary_boundary
from jaxrobust.losses._binary import binary_trades as binary_trades
from jaxrobust.losses._binary import exponential as exponential
from jaxrobust.losses._binary import hinge as hinge
from jaxrobust.losses._certified import cc_ibp as cc_ibp
from jaxrobust.losses._certified import certified as certified
from jaxrobust.losses._certified import exp_ibp as exp_ibp
from jaxrobust.losses._certified import mtl_ibp as mtl_ibp
from jaxrobust.losses._cross_entropy import cross_entropy as cross_entropy
from jaxrobust.losses._divergences import clip_bound as clip_bound
from jaxrobust.losses._divergences import distance as distance
from jaxrobust.losses._divergences import kl_divergence as kl_divergence
from jaxrobust.losses._divergences import label_distance as label_distance
from jaxrobust.losses._divergences import squared_error as squared_error
from jaxrobust.losses._gairat import gair_trades as gair_trades
from jaxrobust.losses._gairat import gairat as gairat
from jaxrobust.losses._gairat import gairat_log_weights as gairat_log_weights
from jaxrobust.losses._gairat import gairat_weights as gairat_weights
from jaxrobust.losses._margins import dlr as dlr
from jaxrobust.losses._margins import dlr_targeted as dlr_targeted
from jaxrobust.losses._margins import margin as margin
from jaxrobust.losses._mart import mart as mart
from jaxrobust.losses._score import score as score
from jaxrobust.losses._targets import loss_of_run as loss_of_run
from jaxrobust.losses._trades import trades as trades
