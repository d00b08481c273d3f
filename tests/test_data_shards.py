# SPDX-License-Identifier: MIT
"""Pictures in tar files."""

import io
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from data_samples import encoded, noise
from lucid_c.data import DataLoader, TarShards
from lucid_c.data.augment import ToArray

pytest.importorskip("PIL")


def write(path, members, format=tarfile.PAX_FORMAT, mode="w"):
    with tarfile.open(path, mode, format=format) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            if data is None:
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def picture(seed, kind="PNG"):
    return encoded(noise(9, 11, seed), kind)


def pixels(dataset, index):
    return np.asarray(dataset[index][0])


def test_webdataset(tmp_path):
    one = write(
        tmp_path / "a-000.tar",
        {"x/001.png": picture(1), "x/001.cls": b"5", "x/002.cls": b" 7\n", "x/002.png": picture(2)},
    )
    two = write(
        tmp_path / "a-001.tar",
        {
            "001.json": b"{}",
            "001.PNG": picture(3),
            "001.mask.png": b"another thing of this sample",
            "001.cls": b"0",
            "._001.png": b"a leftover of another system",
        },
    )
    dataset = TarShards([one, two])
    assert len(dataset) == 3 and dataset.classes is None and dataset.class_to_idx is None
    assert dataset.targets.tolist() == [5, 7, 0] and dataset.targets.dtype == np.int64
    for index, seed in [(0, 1), (1, 2), (2, 3), (-3, 1)]:
        np.testing.assert_array_equal(pixels(dataset, index), noise(9, 11, seed))
        assert dataset[index][1] == dataset.targets[index] and type(dataset[index][1]) is int
    assert dataset.where(1) == f"{one}/x/002.png" and dataset.where(2) == f"{two}/001.PNG"
    with pytest.raises(IndexError):
        dataset[3]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_class_folders(tmp_path, format):
    long = "n" * (40 if format == tarfile.USTAR_FORMAT else 200)
    path = write(
        tmp_path / "train.tar",
        {
            "train/": None,
            f"train/{long}/a.b.png": picture(1),
            "train/cat/a.png": picture(2),
            "train/cat/a.jpg": picture(3, "JPEG"),
            "train/readme.txt": b"",
        },
        format,
    )
    dataset = TarShards(path)
    assert dataset.classes == ["cat", long] and dataset.class_to_idx == {"cat": 0, long: 1}
    assert dataset.targets.tolist() == [1, 0, 0]
    np.testing.assert_array_equal(pixels(dataset, 0), noise(9, 11, 1))
    np.testing.assert_array_equal(pixels(dataset, 1), noise(9, 11, 2))


def test_one_tar_per_class(tmp_path):
    paths = [
        write(tmp_path / f"{name}.tar", {"1.png": picture(i), "./2.png": picture(i + 10)})
        for i, name in enumerate(["n2", "n1"])
    ]
    dataset = TarShards(paths)
    assert dataset.classes == ["n1", "n2"] and dataset.targets.tolist() == [1, 1, 0, 0]
    np.testing.assert_array_equal(pixels(dataset, 3), noise(9, 11, 11))


def test_threads_and_pickles(tmp_path):
    members = {f"c/{i}.png": picture(i) for i in range(20)}
    dataset = TarShards(write(tmp_path / "t.tar", members))
    copy = pickle.loads(pickle.dumps(dataset))
    order = np.random.default_rng(0).integers(0, 20, 200).tolist()
    with ThreadPoolExecutor(8) as pool:
        for index, found in zip(order, pool.map(lambda i: pixels(copy, i), order), strict=True):
            np.testing.assert_array_equal(found, noise(9, 11, index))
    loader = DataLoader(dataset, 20, transform=ToArray())
    ((images, labels),) = loader
    np.testing.assert_array_equal(
        np.round(images * 255).astype(np.uint8),
        np.stack([noise(9, 11, i).transpose(2, 0, 1) for i in range(20)]),
    )
    assert not labels.any()


def test_a_damaged_picture_is_named(tmp_path):
    dataset = TarShards(write(tmp_path / "t.tar", {"c/1.png": b"nothing", "c/2.png": picture(2)}))
    with pytest.raises(ValueError, match=r"t\.tar/c/1\.png.*not an image"):
        dataset[0]
    assert dataset[1][1] == 0
    (tmp_path / "t.tar").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"t\.tar/c/2\.png.*shorter"):
        dataset[1]
    (tmp_path / "t.tar").unlink()
    with pytest.raises(FileNotFoundError):
        dataset[1]


@pytest.mark.parametrize(
    "members, text",
    [
        ({"1.png": b"", "2.png": b"", "1.cls": b"1"}, r"2\.png has no 2\.cls"),
        ({"1.png": b"", "1.cls": b"1", "2.cls": b"1"}, r"2\.cls has no picture"),
        ({"1.png": b"", "1.cls": b"cat"}, r"1\.cls.*class index, not b'cat'"),
        ({"1.png": b"", "1.cls": b"-1"}, "class index"),
        ({"1.png": b"", "1.cls": b""}, "class index"),
        ({"1.png": b"", "1.cls": b"9" * 100}, "class index"),
        ({"1.png": b"", "1.jpg": b"", "1.cls": b"1"}, "two pictures for '1'"),
        ({"1.cls": b"1", "1.CLS": b"2", "1.png": b""}, "1.CLS is there twice"),
    ],
)
def test_unpaired(tmp_path, members, text):
    with pytest.raises(ValueError, match=text):
        TarShards(write(tmp_path / "t.tar", members))


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.tar"):
        TarShards(tmp_path / "gone.tar")
    with pytest.raises(FileNotFoundError, match=r"no pictures in .*t\.tar.*\.jpg"):
        TarShards(write(tmp_path / "t.tar", {"a/b.txt": b"x"}))
    with pytest.raises(FileNotFoundError, match="no files"):
        TarShards([])
    with pytest.raises(ValueError, match="regular"):
        TarShards("/dev/null")
    zipped = write(tmp_path / "t.tar.gz", {"a/b.png": picture(1)}, mode="w:gz")
    for path, content in [(zipped, None), (tmp_path / "e.tar", b""), (tmp_path / "x.tar", b"x")]:
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match="not an uncompressed tar file"):
            TarShards(path)


def test_cut_off_and_damaged_files(tmp_path):
    """A file that ends early, or is overwritten in the middle, is never taken for a short one."""
    path = write(tmp_path / "t.tar", {f"c/{i}.png": picture(i) for i in range(4)})
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        third = tar.getmembers()[2]
    for end in (third.offset + 100, third.offset_data, third.offset_data + 5):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"t\.tar"):
            TarShards(path)
    bad = bytearray(data)
    bad[third.offset : third.offset + 50] = b"\xff" * 50
    path.write_bytes(bad)
    with pytest.raises(ValueError, match=f"damaged at byte {third.offset}"):
        TarShards(path)
    path.write_bytes(data[: third.offset])  # whole members, but no end mark: as tar reads it
    assert len(TarShards(path)) == 2
