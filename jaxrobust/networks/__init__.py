"""Networks of any library as two pure functions, and with their weights as logits functions."""

from jaxrobust.networks._accompanied import accompanied as accompanied
from jaxrobust.networks._check import check_network as check_network
from jaxrobust.networks._find import network as network
from jaxrobust.networks._logits import LogitsFunction as LogitsFunction
from jaxrobust.networks._logits import logits_fn as logits_fn
from jaxrobust.networks._network import Network as Network
from jaxrobust.networks._network import named_method as named_method
