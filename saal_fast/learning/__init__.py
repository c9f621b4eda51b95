"""The active learning loop (Algorithm 1): training, asking and telling, each phase on disk when it is over."""

from .evaluate import Accuracy
from .learner import ActiveLearner, run
from .ledger import Round, read, rewind
from .phases import Train
from .rows import Labelled
from .store import DamagedRecordError, LockedError
from .train import Training

__all__ = [
    "Accuracy",
    "ActiveLearner",
    "DamagedRecordError",
    "Labelled",
    "LockedError",
    "Round",
    "Train",
    "Training",
    "read",
    "rewind",
    "run",
]
