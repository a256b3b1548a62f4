"""Experiments are data: frozen dataclasses that round-trip through JSON."""

from dataclasses import replace as replace

from jaxrobust.experiment._evaluators import evaluator_name as evaluator_name
from jaxrobust.experiment._evaluators import evaluator_packages as evaluator_packages
from jaxrobust.experiment._evaluators import evaluators_of as evaluators_of
from jaxrobust.experiment._evaluators import tradeoff_evaluators as tradeoff_evaluators
from jaxrobust.experiment._experiment import Evaluation as Evaluation
from jaxrobust.experiment._experiment import Experiment as Experiment
from jaxrobust.experiment._experiment import Validation as Validation
from jaxrobust.experiment._json import UnknownFieldError as UnknownFieldError
from jaxrobust.experiment._json import from_dict as from_dict
from jaxrobust.experiment._json import normal as normal
from jaxrobust.experiment._json import to_dict as to_dict
from jaxrobust.experiment._load import load as load
from jaxrobust.experiment._load import search_current_folder as search_current_folder
from jaxrobust.experiment._override import override as override
from jaxrobust.experiment._override import parsed as parsed
from jaxrobust.experiment._parts import PARTS as PARTS
from jaxrobust.experiment._scheduled import check_scheduled as check_scheduled
from jaxrobust.experiment._sources import sources as sources
from jaxrobust.experiment._sweep import SweepPoint as SweepPoint
from jaxrobust.experiment._sweep import sweep_points as sweep_points
from jaxrobust.experiment._tradeoff import MEMBER as MEMBER
from jaxrobust.experiment._tradeoff import Tradeoff as Tradeoff
from jaxrobust.experiment._tradeoff import bases as bases
from jaxrobust.spec import use as use
