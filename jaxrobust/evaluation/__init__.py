"""Evaluation: attacks driven over a data set, with intervals and reports."""

from jaxrobust.evaluation._evaluate import PGD as PGD
from jaxrobust.evaluation._evaluate import EvaluationResult as EvaluationResult
from jaxrobust.evaluation._evaluate import evaluate as evaluate
from jaxrobust.evaluation._evaluate import pgd_attacks as pgd_attacks
from jaxrobust.evaluation._intervals import Accuracy as Accuracy
from jaxrobust.evaluation._intervals import accuracy as accuracy
