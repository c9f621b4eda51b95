"""The active learning loop (Algorithm 1): train, ask, tell; each phase is on disk when it is over."""

from .evaluate import Accuracy
from .history import read, rewind
from .labelled import Labelled
from .learner import ActiveLearner
from .ledger import Round
from .locks import LockedError
from .phases import Train
from .simulation import run
from .store import DamagedRecordError
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
