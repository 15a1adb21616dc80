"""Training, evaluation and prediction: the uniform loop over any model that a spec describes."""

from mtlkit.train.callback import Callback
from mtlkit.train.history import History
from mtlkit.train.objective import Objective
from mtlkit.train.trainer import Trainer
from mtlkit.train.watch.monitor import GradientMonitor
from mtlkit.train.watch.sharing_monitor import SharingMonitor

__all__ = ["Callback", "GradientMonitor", "History", "Objective", "SharingMonitor", "Trainer"]
