import hashlib
import pickle
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision import datasets

from saal_fast.experiments import datasets as plain
from saal_fast.experiments.paper.splits import load_split


def pixels(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A small CIFAR of either kind, in the files torchvision reads, with the checksums it then expects."""

    def write(name, count=20, labels=None):
        kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
        key = "labels" if name == "cifar10" else "fine_labels"
        classes = 10 if name == "cifar10" else 100
        folder = tmp_path / kind.base_folder
        folder.mkdir()
        files = {}
        for part, names in (("train_list", ["data_batch_1", "data_batch_2"]), ("test_list", ["test_batch"])):
            listed = []
            for number, file in enumerate(names):
                images = pixels(count, len(files))
                given = [(number + i) % classes for i in range(count)] if labels is None else labels
                (folder / file).write_bytes(pickle.dumps({"data": images.reshape(count, -1), key: given}))
                listed.append([file, md5(folder / file)])
                files[file] = images
            monkeypatch.setattr(kind, part, listed)
        meta = folder / kind.meta["filename"]
        meta.write_bytes(pickle.dumps({kind.meta["key"]: [str(i) for i in range(classes)]}))
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(meta)})
        return tmp_path, files

    return write


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    from scipy.io import savemat  # noqa: PLC0415 - what torchvision reads it with

    parts, lists = {}, {}
    for number, part in enumerate(("train", "test")):
        images = pixels(15, number)
        labels = np.arange(15) % 10 + 1  # the files call zero ten
        path = tmp_path / f"{part}_32x32.mat"
        savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": labels[:, None].astype(np.uint8)})
        parts[part] = images, labels % 10
        lists[part] = ["", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    return tmp_path, parts


def normalised(images, train):
    """In double precision, what mean 0 and deviation 1 over the training pixels of each channel means."""
    scaled, over = images / 255, train / 255
    std = over.std((0, 2, 3), keepdims=True, ddof=1)
    return torch.from_numpy((scaled - over.mean((0, 2, 3), keepdims=True)) / std).float()


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_is_read(cifar, name, classes):
    root, files = cifar(name)
    read = load_split(name, root)
    train = np.concatenate([files["data_batch_1"], files["data_batch_2"]])
    torch.testing.assert_close(read.images, normalised(train, train), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(read.test_images, normalised(files["test_batch"], train), rtol=1e-4, atol=1e-5)
    assert read.labels.tolist() == [i % classes for i in range(20)] + [(1 + i) % classes for i in range(20)]
    assert read.labels.dtype == torch.int64
    assert read.test_labels.tolist() == [i % classes for i in range(20)]
    assert (read.name, read.classes) == (name, classes)
    assert read.images.is_contiguous()


def test_svhn_is_read(svhn):
    root, parts = svhn
    read = load_split("svhn", root)
    train = parts["train"][0]
    torch.testing.assert_close(read.images, normalised(train, train), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(read.test_images, normalised(parts["test"][0], train), rtol=1e-4, atol=1e-5)
    assert read.labels.tolist() == parts["train"][1].tolist()
    assert read.test_labels.tolist() == parts["test"][1].tolist()


def test_labels_must_be_among_the_classes(cifar):
    root, _ = cifar("cifar10", labels=[77] * 20)
    with pytest.raises(ValueError, match="labels of cifar10 from 77 to 77"):
        load_split("cifar10", root)


@pytest.mark.parametrize("name", ["svhn", "cifar10", "cifar100"])
def test_what_is_missing_is_told_and_nothing_downloaded(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"the folder {tmp_path} does not hold {name}"):
        load_split(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("download", "word"), [(True, "download"), (False, "read")])
def test_a_download_that_fails_is_told(tmp_path, monkeypatch, download, word):
    def fail(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(datasets.CIFAR10, "__init__", fail)
    with pytest.raises(OSError, match=f"cannot {word} cifar10 in the folder {tmp_path}: .*no network"):
        load_split("cifar10", tmp_path, download=download)


def test_a_damaged_file_is_told(cifar):
    root, _ = cifar("cifar10")
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="as torchvision's"):
        load_split("cifar10", root)


def test_digits_are_split():
    read, whole = load_split("digits"), plain.load("digits")
    assert (len(read.labels), len(read.test_labels)) == (1438, 359)
    assert torch.equal(read.test_images, whole.images[4::5])
    assert torch.equal(read.test_labels, whole.labels[4::5])
    assert torch.equal(read.images[:5], whole.images[[0, 1, 2, 3, 5]])


@pytest.mark.skipif(not plain.DEBIAN_FOLDER.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_fashion_mnist_is_debians():
    read = load_split("fashion-mnist")
    assert read.images.shape == (60_000, 1, 28, 28)
    assert read.test_images.shape == (10_000, 1, 28, 28)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="expected one of fashion-mnist, svhn, cifar10, cifar100, digits"):
        load_split("mnist")
