"""Training: one state, one step, one loop."""

from jaxrobust.devices import LANES as LANES
from jaxrobust.interrupts import Interrupted as Interrupted
from jaxrobust.locks import FolderInUseError as FolderInUseError
from jaxrobust.rows import read_rows as read_rows
from jaxrobust.training._checkpoints import CheckpointError as CheckpointError
from jaxrobust.training._checkpoints import Checkpoints as Checkpoints
from jaxrobust.training._folder import begun as begun
from jaxrobust.training._folder import read_config as read_config
from jaxrobust.training._loop import Trained as Trained
from jaxrobust.training._member import NonFiniteLossError as NonFiniteLossError
from jaxrobust.training._prepare import step_settings as step_settings
from jaxrobust.training._program import Runner as Runner
from jaxrobust.training._program import make_train_step as make_train_step
from jaxrobust.training._program import share as share
from jaxrobust.training._runs import Run as Run
from jaxrobust.training._runs import build_model as build_model
from jaxrobust.training._runs import load_base as load_base
from jaxrobust.training._runs import load_run as load_run
from jaxrobust.training._state import TrainState as TrainState
from jaxrobust.training._state import create_state as create_state
from jaxrobust.training._step import StepSettings as StepSettings
from jaxrobust.training._train import alike as alike
from jaxrobust.training._train import train as train
from jaxrobust.training._train import train_many as train_many
from jaxrobust.training._updates import build_optimizer as build_optimizer
from jaxrobust.training._updates import gradient_projection as gradient_projection
