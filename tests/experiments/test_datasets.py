import gzip

import pytest
import torch

from saal_fast.experiments import datasets as data
from saal_fast.experiments.datasets import load

STEMS = {part: (f"{p}-images-idx3-ubyte", f"{p}-labels-idx1-ubyte") for part, p in data.FASHION_PREFIX.items()}


def idx(array: torch.Tensor) -> bytes:
    shape = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.to(torch.uint8).numpy().tobytes()


def pixels_of(part, count=20):
    return torch.randint(0, 256, (count, 28, 28), generator=torch.Generator().manual_seed(len(part)))


def write(folder, part="train", compressed=False, images=None, labels=None):
    images = pixels_of(part) if images is None else images
    labels = torch.arange(20) % 10 if labels is None else labels
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in zip(STEMS[part], (images, labels), strict=True):
        if compressed:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / stem).write_bytes(idx(array))


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No Fashion-MNIST in the usual folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "debian")
    return tmp_path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("layout", ["", "FashionMNIST/raw"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_fashion_mnist_is_read_from_root(tmp_path, part, layout, compressed):
    write(tmp_path / layout, part, compressed)
    loaded = load("fashion-mnist", tmp_path, part)
    assert loaded.images.shape == (20, 1, 28, 28)
    assert loaded.images.dtype == torch.float32
    assert loaded.labels.tolist() == [*range(10), *range(10)]
    assert loaded.labels.dtype == torch.int64
    assert loaded.source == str(tmp_path / layout)
    chosen = torch.tensor([7, 3])
    torch.testing.assert_close(loaded.pixels(chosen)[:, 0] * 255, pixels_of(part)[chosen].float())


@pytest.mark.parametrize("folder", ["data/FashionMNIST/raw", "data", "debian"])
def test_fashion_mnist_is_read_where_it_usually_lies(nowhere, folder):
    write(nowhere / folder, compressed=True)
    for name in ("fashion-mnist", "auto"):
        loaded = load(name)
        assert (loaded.name, len(loaded)) == ("fashion-mnist", 20)


def test_auto_falls_back_to_digits(nowhere):
    assert load("auto").name == "digits"


def test_auto_needs_images_and_labels(nowhere):
    write(nowhere)
    (nowhere / STEMS["train"][1]).unlink()
    assert load("auto", nowhere).name == "digits"


def test_digits_are_whole_and_normalised():
    digits = load("digits")
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert abs(digits.images.mean()) < 1e-3
    assert abs(digits.images.std() - 1) < 1e-3
    shown = digits.pixels(torch.arange(1797))
    assert (shown.min(), shown.max()) == (0, 1)


@pytest.mark.skipif(not data.DEBIAN_FOLDER.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_debian_package():
    train, test = load("fashion-mnist"), load("fashion-mnist", part="test")
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels.bincount().tolist() == [6000] * 10
    assert abs(train.images.mean()) < 1e-3
    assert abs(train.images.std() - 1) < 1e-3


def test_missing_names_every_place_and_the_package(nowhere):
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist") as caught:
        load("fashion-mnist")
    for place in ("data/FashionMNIST/raw", "data", str(nowhere / "debian")):
        assert f" {place}" in str(caught.value)
    with pytest.raises(FileNotFoundError) as caught:
        load("fashion-mnist", nowhere)
    assert str(nowhere / "FashionMNIST" / "raw") in str(caught.value)
    assert f" {nowhere}." in str(caught.value)


@pytest.mark.parametrize("root", ["absent", "file"])
def test_root_must_be_a_folder(tmp_path, root):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=root):
        load("fashion-mnist", tmp_path / root)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "other kind"])
def test_corrupt_files_are_named(tmp_path, damage, which, compressed):
    write(tmp_path, compressed=compressed)
    path = tmp_path / (STEMS["train"][which] + (".gz" if compressed else ""))
    other = tmp_path / (STEMS["train"][1 - which] + (".gz" if compressed else ""))
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "cut": content[: len(content) * 2 // 3],
        "noise": b"no such thing as an idx file",
        "other kind": other.read_bytes(),
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(ValueError, match="whole") as caught:
        load("auto", tmp_path)
    assert str(path) in str(caught.value)


def test_images_and_labels_must_match(tmp_path):
    write(tmp_path, labels=torch.arange(10))
    with pytest.raises(ValueError, match="20 images of the train part, but 10 labels"):
        load("fashion-mnist", tmp_path)


def test_labels_must_be_among_the_classes(tmp_path):
    write(tmp_path, labels=torch.arange(20))
    with pytest.raises(ValueError, match="19, expected 0 to 9"):
        load("fashion-mnist", tmp_path)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="expected one of auto, digits, fashion-mnist"):
        load("mnist")
    with pytest.raises(ValueError, match="expected one of train, test"):
        load("digits", part="validation")
    with pytest.raises(ValueError, match="hold some of it out"):
        load("digits", part="test")


def test_a_root_may_begin_with_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        load("fashion-mnist", "~")
    with pytest.raises(NotADirectoryError, match=str(tmp_path / "none")):
        load("fashion-mnist", "~/none")
