"""Training, evaluation and prediction: the uniform loop over any model that a spec describes."""

from mtlkit.train.callback import Callback
from mtlkit.train.history import History
from mtlkit.train.monitor import GradientMonitor
from mtlkit.train.sharing_monitor import SharingMonitor
from mtlkit.train.trainer import Trainer

__all__ = ["Callback", "GradientMonitor", "History", "SharingMonitor", "Trainer"]
