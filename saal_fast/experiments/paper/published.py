"""Table 1 as the paper prints it: test accuracy in percent, mean ± standard deviation of three repeats."""

from __future__ import annotations

_DATASETS = ("fashion-mnist", "svhn", "cifar10", "cifar100")
_ADAM = {
    "random": ("81.2 ± 0.5", "72.4 ± 0.9", "50.7 ± 1.5", "43.3 ± 0.3"),
    "entropy": ("81.5 ± 1.4", "73.1 ± 1.0", "51.9 ± 1.8", "44.4 ± 0.7"),
    "coreset": ("83.8 ± 0.7", "75.3 ± 5.8", "51.7 ± 1.0", "44.4 ± 0.5"),
    "ll4al": ("83.5 ± 1.8", "75.1 ± 1.7", "51.7 ± 0.4", "43.9 ± 0.3"),
    "vaal": ("83.4 ± 0.1", "73.4 ± 1.3", "52.0 ± 0.9", "44.8 ± 0.3"),
    "badge": ("85.4 ± 0.6", "74.9 ± 1.1", "52.3 ± 2.2", "45.7 ± 0.6"),
    "saal": ("85.8 ± 0.8", "76.8 ± 0.7", "54.4 ± 0.9", "47.6 ± 0.9"),
}
_SAM = {
    "random": ("83.7 ± 0.3", "78.1 ± 1.1", "52.6 ± 2.8", "44.0 ± 0.7"),
    "entropy": ("84.1 ± 0.2", "77.5 ± 3.2", "54.6 ± 0.4", "44.1 ± 1.0"),
    "coreset": ("84.4 ± 0.6", "78.9 ± 1.3", "53.9 ± 1.3", "47.6 ± 1.4"),
    "ll4al": ("83.2 ± 1.4", "72.2 ± 0.2", "50.2 ± 1.1", "35.7 ± .01"),
    "vaal": ("84.1 ± 0.6", "77.1 ± 0.8", "53.1 ± 0.9", "45.5 ± 0.4"),
    "badge": ("86.2 ± 0.2", "78.8 ± 0.9", "56.8 ± 1.9", "47.4 ± 0.7"),
    "saal": ("86.3 ± 0.5", "78.8 ± 1.0", "57.0 ± 1.1", "48.4 ± 0.9"),
}
TABLE1: dict[tuple[str, str, str], str] = {
    (optimizer, dataset, strategy): row[column]
    for optimizer, rows in {"adam": _ADAM, "sam": _SAM}.items()
    for strategy, row in rows.items()
    for column, dataset in enumerate(_DATASETS)
}
"""The printed figure for each optimizer, data set and strategy.

The table does not say after which round; the text suggests the last. The text speaks of SAAL with and without k-means++
diversity; the table has one row "SAAL" and does not say which of the two it is.
"""


def table1(optimizer: str, dataset: str, strategy: str) -> str:
    """The paper's figure as printed, or a dash; "saal" and "saal-kmeans++" share the figure of the row SAAL."""
    row = "saal" if strategy == "saal-kmeans++" else strategy
    return TABLE1.get((optimizer, dataset, row), "–")
