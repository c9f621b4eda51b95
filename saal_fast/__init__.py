"""saal_fast: sharpness-aware active learning (SAAL) at the speed of inference.

scores = saal_fast.score(model, pool, rho=0.05)   # the loss of each sample under the worst push of the weights
picks = saal_fast.select(model, pool, k=10)       # which samples to label next
learner = saal_fast.ActiveLearner(MyModel, pool, initial=20, folder="run")  # ask(), tell(indices, labels), resumable
"""

from . import strategies
from ._config import show_config
from .engines import EngineError
from .kmeans import kmeans_plusplus
from .learning import ActiveLearner, run
from .models.state import keep_statistics
from .optim import SAM
from .scoring import Explanation, NonFiniteError, Scores, SelfCheckError, explain, score
from .selection import select
from .tasks import Classification, Task

__version__ = "0.1.0"

__all__ = [
    "SAM",
    "ActiveLearner",
    "Classification",
    "EngineError",
    "Explanation",
    "NonFiniteError",
    "Scores",
    "SelfCheckError",
    "Task",
    "explain",
    "keep_statistics",
    "kmeans_plusplus",
    "run",
    "score",
    "select",
    "show_config",
    "strategies",
]
