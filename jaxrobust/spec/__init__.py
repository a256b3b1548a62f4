"""Names and arguments that stand for calls: how experiments name their parts.

The export is the registry: `use("trades", beta=6)` in an objective's place is
`jaxrobust.objectives.trades(beta=6)`, and exporting a function makes it usable. Parts of other
packages are named by their import path.
"""

from jaxrobust.spec._checks import checked as checked
from jaxrobust.spec._json import from_json as from_json
from jaxrobust.spec._json import to_json as to_json
from jaxrobust.spec._parts import Part as Part
from jaxrobust.spec._parts import built as built
from jaxrobust.spec._parts import called as called
from jaxrobust.spec._parts import choices as choices
from jaxrobust.spec._parts import receives as receives
from jaxrobust.spec._signatures import signature_of as signature_of
from jaxrobust.spec._spec import Spec as Spec
from jaxrobust.spec._spec import use as use
from jaxrobust.spec._targets import resolved as resolved
from jaxrobust.spec._trust import UntrustedError as UntrustedError
from jaxrobust.spec._trust import check_stored as check_stored
from jaxrobust.spec._trust import packages_of as packages_of
from jaxrobust.spec._trust import trusted as trusted
from jaxrobust.spec._values import Number as Number
from jaxrobust.spec._values import check_booleans as check_booleans
from jaxrobust.spec._values import first_problem as first_problem
from jaxrobust.spec._values import not_nan as not_nan
from jaxrobust.spec._values import number as number
