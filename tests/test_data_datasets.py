# SPDX-License-Identifier: MIT
"""Arrays, folders of pictures, parts of datasets."""

import os
import pickle

import numpy as np
import pytest

from data_samples import Numbers, encoded, noise
from lucid_c.data import ArrayDataset, Dataset, ImageFolder, Subset, random_split


def labels_of(dataset):
    return [dataset[i][1] for i in range(len(dataset))]


# --- arrays ---


def test_array_dataset():
    images = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    dataset = ArrayDataset(images, [3, 1, 2, 0])
    assert isinstance(dataset, Dataset) and len(dataset) == 4
    image, label = dataset[2]
    np.testing.assert_array_equal(image, images[2])
    assert label == 2 and type(label) is int and dataset[-1][1] == 0
    soft = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(ArrayDataset(images, soft)[3][1], soft[3])
    for index in (4, -5):
        with pytest.raises(IndexError, match=f"{index} .*4 samples"):
            dataset[index]
    with pytest.raises(TypeError):
        dataset[1.0]


@pytest.mark.parametrize(
    "images, labels, error, text",
    [
        (np.zeros((3, 2)), [1, 2], ValueError, "3 images, but 2 labels"),
        (np.zeros(()), [1], ValueError, r"\(\)"),
        (np.zeros((2, 2)), np.zeros((2, 2, 2)), ValueError, r"\(2, 2, 2\)"),
        (np.zeros((2, 2)), [1.0, 2.0], TypeError, "float64"),
        (np.zeros((2, 2)), ["a", "b"], TypeError, "<U1"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), TypeError, r"int64 of shape \(2, 2\)"),
    ],
)
def test_bad_arrays(images, labels, error, text):
    with pytest.raises(error, match=text):
        ArrayDataset(images, labels)


# --- folders ---


@pytest.fixture
def folder(tmp_path):
    """Two classes; names sort otherwise than they are made, and one is nested."""
    pytest.importorskip("PIL")
    root = tmp_path / "root"
    for i, name in enumerate(["b/2.png", "b/10.PNG", "a/z/1.JPG", "a/q.jpeg", "b/notes.txt"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        kind = "PNG" if "png" in name.lower() else "JPEG"
        (root / name).write_bytes(encoded(noise(8 + i, 9, i), kind))
    (root / "loose.png").write_bytes(b"not in a class")
    return root


def test_image_folder(folder):
    dataset = ImageFolder(folder)
    assert dataset.classes == ["a", "b"] and dataset.class_to_idx == {"a": 0, "b": 1}
    names = [os.path.relpath(path, folder) for path, _ in dataset.samples]
    assert names == ["a/q.jpeg", "a/z/1.JPG", "b/10.PNG", "b/2.png"]
    assert dataset.targets == labels_of(dataset) == [0, 0, 1, 1] and len(dataset) == 4
    image, label = dataset[3]
    assert image.mode == "RGB" and label == 1
    np.testing.assert_array_equal(np.asarray(image), noise(8, 9, 0))
    assert dataset.where(-1) == str(folder / "b" / "2.png")
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.samples == dataset.samples and np.array_equal(copy[2][0], dataset[2][0])


def test_extensions(folder):
    dataset = ImageFolder(folder, (".PNG", "jpg"), allow_empty=True)
    assert [os.path.basename(path) for path, _ in dataset.samples] == ["1.JPG", "10.PNG", "2.png"]
    for extensions, error in [(".png", TypeError), ([], ValueError), ([1], TypeError)]:
        with pytest.raises(error, match="extensions"):
            ImageFolder(folder, extensions)


def test_links_are_followed_once(folder):
    (folder / "a" / "loop").symlink_to(folder / "a", target_is_directory=True)
    (folder / "c").symlink_to(folder / "b", target_is_directory=True)
    dataset = ImageFolder(folder)
    assert dataset.targets == [0, 0, 1, 1, 2, 2]


def test_empty_and_missing_folders(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="loose"):
        ImageFolder(folder / "loose.png")
    with pytest.raises(FileNotFoundError, match="no class folders"):
        ImageFolder(folder / "a" / "z")
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"1 of the 3 class folders.*\(empty\).*\.jpg"):
        ImageFolder(folder)
    dataset = ImageFolder(folder, allow_empty=True)
    assert dataset.classes == ["a", "b", "empty"] and len(dataset) == 4
    with pytest.raises(FileNotFoundError, match="3 of the 3"):
        ImageFolder(folder, [".webp"], allow_empty=True)


def test_unreadable_files(folder):
    (folder / "a" / "q.jpeg").write_bytes(b"no picture")
    good = (folder / "b" / "2.png").read_bytes()
    (folder / "b" / "2.png").write_bytes(good[: len(good) // 2])
    (folder / "b" / "3.png").symlink_to("gone.png")
    dataset = ImageFolder(folder)
    with pytest.raises(ValueError, match=r"q\.jpeg.*not an image"):
        dataset[0]
    with pytest.raises(ValueError, match=r"2\.png.*not an image"):
        dataset[3]
    with pytest.raises(FileNotFoundError, match=r"3\.png"):
        dataset[4]
    assert dataset[1][1] == 0


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "class").mkdir()
    picture = image.fromarray(noise(12, 15))
    if mode == "I;16":
        picture = image.fromarray(np.arange(180, dtype=np.uint16).reshape(12, 15))
    else:
        picture = picture.convert(mode)
    path = tmp_path / "class" / f"picture.{'jpg' if mode == 'CMYK' else 'png'}"
    picture.save(path)
    loaded, _ = ImageFolder(tmp_path)[0]
    assert loaded.mode == "RGB" and loaded.size == (15, 12)
    with image.open(path) as expected:
        np.testing.assert_array_equal(np.asarray(loaded), np.asarray(expected.convert("RGB")))


# --- parts ---


def test_subset():
    dataset = Numbers(10)
    part = Subset(dataset, np.array([7, 2, -1]))
    assert len(part) == 3 and labels_of(part) == [7, 2, 9]
    assert part.where(0) == "number-7"
    assert labels_of(Subset(part, [1, 0])) == [2, 7] and Subset(part, [1]).where(0) == "number-2"
    assert len(Subset(dataset, [])) == 0
    for indices, error in [([10], IndexError), ([-11], IndexError), ([0.5], TypeError)]:
        with pytest.raises(error):
            Subset(dataset, indices)


def test_random_split():
    dataset = Numbers(100)
    first, second = random_split(dataset, [70, 30], seed=3)
    assert (len(first), len(second)) == (70, 30)
    assert sorted(labels_of(first) + labels_of(second)) == list(range(100))
    assert labels_of(first) != sorted(labels_of(first))
    again = random_split(dataset, [70, 30], seed=3)[0]
    other = random_split(dataset, [70, 30], seed=4)[0]
    assert labels_of(again) == labels_of(first) != labels_of(other)
    thirds = random_split(dataset, [1 / 3, 1 / 3, 1 / 3])
    assert [len(part) for part in thirds] == [34, 33, 33]
    assert [len(part) for part in random_split(dataset, [100, 0])] == [100, 0]


@pytest.mark.parametrize("lengths", [[50, 49], [0.5, 0.4], [-1, 101], []])
def test_bad_lengths(lengths):
    with pytest.raises(ValueError):
        random_split(Numbers(100), lengths)


def test_random_split_agrees_with_pytorch_on_lengths():
    torch_data = pytest.importorskip("torch.utils.data")
    for total, shares in [(10, [0.55, 0.45]), (11, [0.3, 0.3, 0.4]), (7, [0.5, 0.25, 0.25])]:
        theirs = torch_data.random_split(range(total), shares)
        ours = random_split(Numbers(total), shares)
        assert [len(part) for part in ours] == [len(part) for part in theirs]
