"""The door for arrays and numbers: every public function checks its arguments here, once.

Shapes and dtypes are checked always, also under `jit`. Values are checked where they are concrete:
a tracer has none. What passes comes back normalised, so nothing below has to look again.
"""

from jaxrobust.inputs._batch import as_batch as as_batch
from jaxrobust.inputs._error import InputError as InputError
from jaxrobust.inputs._error import as_array as as_array
from jaxrobust.inputs._error import concrete as concrete
from jaxrobust.inputs._images import as_images as as_images
from jaxrobust.inputs._images import as_layout as as_layout
from jaxrobust.inputs._labels import as_classes as as_classes
from jaxrobust.inputs._labels import as_labels as as_labels
from jaxrobust.inputs._labels import as_probabilities as as_probabilities
from jaxrobust.inputs._labels import is_signed as is_signed
from jaxrobust.inputs._logits import aligned as aligned
from jaxrobust.inputs._logits import as_logits as as_logits
from jaxrobust.inputs._logits import as_network_logits as as_network_logits
from jaxrobust.inputs._logits import as_targets as as_targets
from jaxrobust.inputs._logits import at_label as at_label
from jaxrobust.inputs._logits import pick as pick
from jaxrobust.inputs._modes import SWITCH as SWITCH
from jaxrobust.inputs._modes import evaluation_mode as evaluation_mode
from jaxrobust.inputs._numbers import as_choice as as_choice
from jaxrobust.inputs._numbers import as_count as as_count
from jaxrobust.inputs._numbers import as_flag as as_flag
from jaxrobust.inputs._numbers import as_number as as_number
from jaxrobust.inputs._numbers import as_per_example as as_per_example
from jaxrobust.inputs._numbers import as_radius as as_radius
from jaxrobust.inputs._numbers import as_seed as as_seed
from jaxrobust.inputs._numbers import as_step_size as as_step_size
from jaxrobust.inputs._numbers import check_number as check_number
