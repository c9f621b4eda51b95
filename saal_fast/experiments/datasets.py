"""Small image data sets that this machine already has; nothing is downloaded.

`load` reads Fashion-MNIST (the smallest data set of the paper's Section 4.1) from its idx files, or scikit-learn's digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch

from .._utils.paths import home_of
from .idx import read_idx

if TYPE_CHECKING:
    import os

DataName = Literal["auto", "digits", "fashion-mnist"]
Part = Literal["train", "test"]

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
FASHION_PREFIX = {"train": "train", "test": "t10k"}
# Mean and standard deviation of the training pixels, on the scale from 0 to 1.
FASHION_MEAN, FASHION_STD = 0.2860, 0.3530
DIGITS_MEAN, DIGITS_STD = 0.3053, 0.3760


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled images, normalised for a network.

    Attributes:
        name: name of the data set.
        source: the folder or package it was read from.
        images: float32 [N, C, H, W], with mean 0 and standard deviation 1 over the training pixels.
        labels: int64 [N], indices into `classes`.
        classes: the class names.
        mean: the pixel mean that was subtracted, on the scale from 0 to 1.
        std: the standard deviation that was divided by, on the same scale.
    """

    name: str
    source: str
    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    mean: float
    std: float

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: torch.Tensor) -> torch.Tensor:
        """The images at `indices` before normalising: float32 [len(indices), C, H, W] in [0, 1]."""
        return (self.images[indices] * self.std + self.mean).clamp_(0, 1)


def load(name: DataName = "auto", root: str | os.PathLike[str] | None = None, part: Part = "train") -> ImageData:
    """Reads a data set.

    Args:
        name: "fashion-mnist", "digits" (scikit-learn's 1,797 images of 8×8 pixels), or "auto": Fashion-MNIST if it is
            found, else digits.
        root: folder of Fashion-MNIST: torchvision's (`root/FashionMNIST/raw`), or the folder of the idx files,
            compressed or not. None looks in `./data`, then in Debian's `/usr/share/datasets/fashion-mnist`; "auto" looks
            there after `root` too. Digits need no root.
        part: "train" or "test". Digits have only the part "train".

    Raises:
        ValueError: unknown name or part, "test" of digits, or a damaged file.
        NotADirectoryError: `root` is not a folder.
        FileNotFoundError: "fashion-mnist" is in none of the folders.
    """
    if name not in get_args(DataName):
        raise ValueError(f"unknown data set {name!r}: expected one of {', '.join(get_args(DataName))}")
    if part not in get_args(Part):
        raise ValueError(f"unknown part {part!r}: expected one of {', '.join(get_args(Part))}")
    if name == "digits":
        return _load_digits(part)
    folders = _fashion_folders(root)
    if name == "auto" and root is not None:
        folders += _fashion_folders(None)
    folder = next((f for f in folders if len(_paths(f, part)) == len(_stems(part))), None)
    if folder is not None:
        return _load_fashion_mnist(folder, part)
    if name == "auto":
        return _load_digits(part)
    raise FileNotFoundError(
        f"Fashion-MNIST ({' and '.join(_stems(part))}, .gz or not) is in none of these folders: "
        f"{', '.join(str(f) for f in folders)}. Give its folder as root, or install Debian's package: "
        "apt-get install dataset-fashion-mnist"
    )


def balanced(labels: torch.Tensor, classes: int, count: int) -> torch.Tensor:
    """Chooses samples so that the classes' counts differ by at most one.

    Args:
        labels: int64 [N]; earlier samples are chosen first.
        classes: number of classes.
        count: number of samples to choose.

    Returns:
        A mask [N] of the first `count // classes` samples of every class, one more of the first classes.

    Raises:
        ValueError: a class has too few samples.
    """
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(classes):
        wanted = count // classes + (label < count % classes)
        members = (labels == label).nonzero().flatten()
        if wanted > len(members):
            raise ValueError(f"labels is {count}, which asks for {wanted} of class {label}, but there are {len(members)}")
        chosen[members[:wanted]] = True
    return chosen


def _load_digits(part: Part) -> ImageData:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - an optional dependency

    if part == "test":
        raise ValueError("digits come in one part, 'train': hold some of it out yourself")
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().div_(16).sub_(DIGITS_MEAN).div_(DIGITS_STD)
    return ImageData(
        name="digits",
        source="scikit-learn",
        images=images.unsqueeze(1),
        labels=torch.from_numpy(digits.target).long(),
        classes=tuple(str(digit) for digit in range(10)),
        mean=DIGITS_MEAN,
        std=DIGITS_STD,
    )


def _load_fashion_mnist(folder: Path, part: Part) -> ImageData:
    images_path, labels_path = _paths(folder, part)
    images, labels = torch.tensor(read_idx(images_path, 3)), torch.tensor(read_idx(labels_path, 1)).long()
    if len(images) != len(labels):
        raise ValueError(f"{folder} holds {len(images)} images of the {part} part, but {len(labels)} labels")
    if len(labels) and int(labels.max()) >= len(FASHION_CLASSES):
        raise ValueError(f"{folder}: a label of the {part} part is {int(labels.max())}, expected 0 to 9")
    return ImageData(
        name="fashion-mnist",
        source=str(folder),
        images=images.unsqueeze(1).float().div_(255).sub_(FASHION_MEAN).div_(FASHION_STD),
        labels=labels,
        classes=FASHION_CLASSES,
        mean=FASHION_MEAN,
        std=FASHION_STD,
    )


def _fashion_folders(root: str | os.PathLike[str] | None) -> list[Path]:
    if root is None:
        return [Path("data/FashionMNIST/raw"), Path("data"), DEBIAN_FOLDER]
    root = home_of(root)
    if not root.is_dir():
        raise NotADirectoryError(f"the data root is not a folder: {root}")
    return [root / "FashionMNIST" / "raw", root]


def _stems(part: Part) -> tuple[str, str]:
    prefix = FASHION_PREFIX[part]
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def _paths(folder: Path, part: Part) -> list[Path]:
    """The files of a part in `folder`: images, then labels, each plain or compressed; fewer where one is missing."""
    candidates = ((folder / stem, folder / f"{stem}.gz") for stem in _stems(part))
    found = (next((path for path in pair if path.is_file()), None) for pair in candidates)
    return [path for path in found if path is not None]
