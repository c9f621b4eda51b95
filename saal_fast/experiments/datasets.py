"""Small image data sets that lie on this machine already; nothing is ever downloaded.

`load` reads Fashion-MNIST (the smallest data set of the SAAL paper's §4.1) where it lies, or scikit-learn's
digits, which come with that package.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch

from .._utils.paths import home_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

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
        name: which data set this is.
        source: where it was read, in words or as a path.
        images: float32 [N, C, H, W], of mean 0 and standard deviation 1 over the training pixels.
        labels: int64 [N], indices into `classes`.
        classes: the class names.
        mean: the pixel mean taken off, on the scale from 0 to 1.
        std: the standard deviation divided by, on the same scale.
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
    """Read a data set.

    Args:
        name: "fashion-mnist", "digits" (scikit-learn's 1,797 images of 8×8 pixels), or "auto": Fashion-MNIST
            where it lies, else digits.
        root: the folder to look for Fashion-MNIST in, either torchvision's (`root/FashionMNIST/raw`) or one
            that holds the idx files themselves, compressed or not. By default `./data`, then Debian's
            `/usr/share/datasets/fashion-mnist`, where "auto" looks after a given root too. Digits need none.
        part: "train" or "test". Digits come in one part, which is called "train".

    Raises:
        ValueError: an unknown name or part, digits' "test", or a file that is not what it should be.
        NotADirectoryError: `root` is not a folder.
        FileNotFoundError: Fashion-MNIST was asked for and lies in none of the folders looked at.
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
    folder = next((f for f in folders if all(_find(f, stem) for stem in _stems(part))), None)
    if folder is not None:
        return _load_fashion_mnist(folder, part)
    if name == "auto":
        return _load_digits(part)
    raise FileNotFoundError(
        f"Fashion-MNIST ({' and '.join(_stems(part))}, .gz or not) lies in none of these folders: "
        f"{', '.join(str(f) for f in folders)}. Give its folder as root, or install Debian's package: "
        "apt-get install dataset-fashion-mnist"
    )


def balanced(labels: torch.Tensor, classes: int, count: int) -> torch.Tensor:
    """As many samples of every class, or one more of the first classes.

    Args:
        labels: int64 [N], in the order samples are taken from.
        classes: how many there are.
        count: how many samples to take.

    Returns:
        A mask [N] of the first `count // classes` samples of every class, one more of the first classes.

    Raises:
        ValueError: a class has fewer.
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
    from torchvision.datasets import mnist  # noqa: PLC0415 - an optional dependency

    images_stem, labels_stem = _stems(part)
    images = _read_idx(folder, images_stem, mnist.read_image_file)
    labels = _read_idx(folder, labels_stem, mnist.read_label_file)
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


def _find(folder: Path, stem: str) -> Path | None:
    """The file of that name in `folder`, as it is or compressed; None where there is neither."""
    return next((p for p in (folder / stem, folder / f"{stem}.gz") if p.is_file()), None)


def _read_idx(folder: Path, stem: str, read: Callable[[str], torch.Tensor]) -> torch.Tensor:
    """Read an idx file by torchvision's `read`, which opens only uncompressed ones."""
    path = _find(folder, stem)
    if path is None:
        raise FileNotFoundError(f"{folder / stem} is gone")
    try:
        if path.suffix != ".gz":
            return read(str(path))
        with tempfile.TemporaryDirectory() as scratch:
            plain = Path(scratch, stem)
            with gzip.open(path) as packed, plain.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
            return read(str(plain))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from error
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a whole idx file of the expected kind") from error
