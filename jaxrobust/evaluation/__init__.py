"""Evaluation: attacks driven over a data set, with intervals and reports."""

from jaxrobust.attacks import PGD as PGD
from jaxrobust.attacks import RandomTransform as RandomTransform
from jaxrobust.attacks import SpatialGrid as SpatialGrid
from jaxrobust.evaluation._autoattack import autoattack as autoattack
from jaxrobust.evaluation._checks import AttackResultError as AttackResultError
from jaxrobust.evaluation._checks import Check as Check
from jaxrobust.evaluation._evaluate import EvaluationResult as EvaluationResult
from jaxrobust.evaluation._evaluate import evaluate as evaluate
from jaxrobust.evaluation._evaluate import pgd_attacks as pgd_attacks
from jaxrobust.evaluation._examples import over_examples as over_examples
from jaxrobust.evaluation._figure_classes import draw_classes as draw_classes
from jaxrobust.evaluation._figure_curves import Curve as Curve
from jaxrobust.evaluation._figure_curves import draw_curves as draw_curves
from jaxrobust.evaluation._figure_plane import Point as Point
from jaxrobust.evaluation._figure_plane import draw_tradeoff as draw_tradeoff
from jaxrobust.evaluation._figures import draw_adversarial_images as draw_adversarial_images
from jaxrobust.evaluation._figures import draw_bars as draw_bars
from jaxrobust.evaluation._figures import draw_cascade as draw_cascade
from jaxrobust.evaluation._figures import draw_sweep as draw_sweep
from jaxrobust.evaluation._intervals import Accuracy as Accuracy
from jaxrobust.evaluation._intervals import accuracy as accuracy
from jaxrobust.evaluation._protocol import protocol as protocol
from jaxrobust.evaluation._report import Report as Report
from jaxrobust.evaluation._results import provenance as provenance
from jaxrobust.evaluation._results import write_json as write_json
from jaxrobust.rows import append_row as append_row
