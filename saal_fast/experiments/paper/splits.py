"""The experiments' data sets, each with a training part and a test part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from ..._utils.paths import home_of
from ..datasets import load

if TYPE_CHECKING:
    import os
    from pathlib import Path

DatasetName = Literal["fashion-mnist", "svhn", "cifar10", "cifar100", "digits"]
CLASSES: dict[str, int] = {"fashion-mnist": 10, "svhn": 10, "cifar10": 10, "cifar100": 100, "digits": 10}
"""Number of classes of each data set."""


@dataclass(frozen=True, eq=False)
class Split:
    """A data set in two parts. In each channel the training pixels have mean 0 and standard deviation 1.

    Attributes:
        name: name of the data set.
        images: training images, float32 [N, C, H, W].
        labels: training labels, int64 [N].
        test_images: float32 [M, C, H, W].
        test_labels: int64 [M].
        classes: number of classes.
    """

    name: str
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int


def load_split(name: DatasetName, root: str | os.PathLike[str] | None = None, *, download: bool = False) -> Split:
    """Reads both parts of a data set.

    Args:
        name: "fashion-mnist" and "digits" are read by `experiments.datasets.load`; every fifth digit is for testing.
            torchvision reads "svhn" (without its extra part), "cifar10" and "cifar100".
        root: folder of the data set; None for the usual folders, or for "data" where torchvision reads.
        download: lets torchvision download what is missing. Nothing is downloaded otherwise.

    Raises:
        ValueError: unknown name, or damaged files.
        FileNotFoundError: the folder does not hold the data set.
        OSError: the data set cannot be read or downloaded.
    """
    if name not in get_args(DatasetName):
        raise ValueError(f"unknown data set {name!r}: expected one of {', '.join(get_args(DatasetName))}")
    if name == "digits":
        digits = load("digits")
        test = torch.arange(len(digits)) % 5 == 4
        parts = (digits.images[~test], digits.labels[~test], digits.images[test], digits.labels[test])
        return Split(name, *parts, CLASSES[name])
    if name == "fashion-mnist":
        train, held_out = load(name, root, "train"), load(name, root, "test")
        return Split(name, train.images, train.labels, held_out.images, held_out.labels, CLASSES[name])
    folder = home_of("data" if root is None else root)
    (pixels, labels), (test_pixels, test_labels) = (_torchvision(name, folder, part, download) for part in (True, False))
    mean, std = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
    for images in (pixels, test_pixels):
        images.sub_(mean).div_(std)
    return Split(name, pixels, labels, test_pixels, test_labels, CLASSES[name])


def _torchvision(name: str, folder: Path, train: bool, download: bool) -> tuple[Tensor, Tensor]:
    """Pixels [N, 3, 32, 32] in [0, 1] and labels [N] of one part."""
    from torchvision import datasets  # noqa: PLC0415 - an optional dependency

    part: dict[str, Any]
    if name == "svhn":
        kind, part = datasets.SVHN, {"split": "train" if train else "test"}
    else:
        kind, part = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name], {"train": train}
    try:
        read = kind(folder, download=download, **part)
    except (RuntimeError, FileNotFoundError) as error:
        if "not found" not in str(error).lower() and not isinstance(error, FileNotFoundError):
            raise
        raise FileNotFoundError(
            f"the folder {folder} does not hold {name} as torchvision's {kind.__name__} keeps it, or not all of it: give "
            "the data set's folder as the data root, or let it be downloaded"
        ) from error
    except OSError as error:
        raise OSError(f"cannot {'download' if download else 'read'} {name} in the folder {folder}: {error}") from error
    pixels = torch.from_numpy(read.data)
    if name != "svhn":
        pixels = pixels.permute(0, 3, 1, 2)
    labels = torch.as_tensor(read.labels if name == "svhn" else read.targets, dtype=torch.int64)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < CLASSES[name]:
        raise ValueError(f"{folder}: labels of {name} from {int(labels.min())} to {int(labels.max())}, expected classes")
    return pixels.contiguous().float().div_(255), labels
