"""The data sets of the experiments, each in a part to learn from and a part to test on."""

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


@dataclass(frozen=True, eq=False)
class Images:
    """A data set in two parts; pixels have mean 0 and standard deviation 1 over the first part, for each channel.

    Attributes:
        name: which.
        images: to learn from, float32 [N, C, H, W].
        labels: theirs, int64 [N].
        test_images: float32 [M, C, H, W].
        test_labels: int64 [M].
        classes: how many.
    """

    name: str
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int


def dataset(name: DatasetName, root: str | os.PathLike[str] | None = None, *, download: bool = False) -> Images:
    """Reads a data set.

    Args:
        name: "fashion-mnist" is read by `experiments.datasets.load` (Debian's package included); "svhn" (without its extra
            part), "cifar10" and "cifar100" by torchvision; "digits" are scikit-learn's, every fifth to test on.
        root: the folder it lies in; None for the usual ones, "data" of those that torchvision reads.
        download: let torchvision download what is missing. Nothing is downloaded otherwise.

    Raises:
        ValueError: an unknown name, or files that are not what they should be.
        FileNotFoundError: it does not lie there.
        OSError: it cannot be read, or downloaded.
    """
    if name not in get_args(DatasetName):
        raise ValueError(f"unknown data set {name!r}: expected one of {', '.join(get_args(DatasetName))}")
    if name == "digits":
        whole = load("digits")
        test = torch.arange(len(whole)) % 5 == 4
        return Images(name, whole.images[~test], whole.labels[~test], whole.images[test], whole.labels[test], CLASSES[name])
    if name == "fashion-mnist":
        train, held_out = load(name, root, "train"), load(name, root, "test")
        return Images(name, train.images, train.labels, held_out.images, held_out.labels, CLASSES[name])
    folder = home_of("data" if root is None else root)
    (pixels, labels), (test_pixels, test_labels) = (_torchvision(name, folder, part, download) for part in (True, False))
    mean, std = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
    for images in (pixels, test_pixels):
        images.sub_(mean).div_(std)
    return Images(name, pixels, labels, test_pixels, test_labels, CLASSES[name])


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
            f"{name} does not lie whole in the folder {folder}, as torchvision's {kind.__name__} keeps it: give its folder "
            "as the data root, or let it be downloaded"
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
