# SPDX-License-Identifier: MIT
"""The evaluation transform: stored pixels of real photos, an oracle in NumPy, bad files."""

import io
import pickle
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from lucid_c import transforms  # noqa: E402
from lucid_c.models import _cards as cards  # noqa: E402
from lucid_c.transforms import EvalTransform, create_transform, preprocess  # noqa: E402

PHOTOS = (
    "n01443537_goldfish",
    "n01514668_cock",
    "n01748264_Indian_cobra",
    "n01871265_tusker",
    "n02692877_airship",
    "n02951585_can_opener",
    "n04238763_slide_rule",
    "n04254680_soccer_ball",
)


def noise(height, width, seed=0):
    """Pixels so different from their neighbours that a shift by one shows everywhere."""
    rng = np.random.default_rng((seed, height, width))
    return rng.integers(50, 206, (height, width, 3), dtype=np.uint8)


# --- the oracle: antialiased resampling as two matrix products, sizes in exact arithmetic ---


def triangle(x):
    return np.maximum(1 - np.abs(x), 0)


def cubic(x):
    x = np.abs(x)
    return np.where(
        x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0)
    )


def resampling(n_in, n_out, kernel):
    scale = n_in / n_out
    centre = (np.arange(n_out)[:, None] + 0.5) * scale
    weights = kernel((np.arange(n_in) + 0.5 - centre) / max(scale, 1.0))
    return weights / weights.sum(axis=1, keepdims=True)


def oracle(pixels, size, crop, interpolation):
    kernel = {"bilinear": triangle, "bicubic": cubic}[interpolation]
    height, width = pixels.shape[:2]
    short = int(size / Fraction(str(crop)))
    if width < height:
        new = (short * height // width, short)
    else:
        new = (short, short * width // height)
    x = np.einsum(
        "hi,ijc,wj->hwc",
        resampling(height, new[0], kernel),
        pixels.astype(float),
        resampling(width, new[1], kernel),
        optimize=True,
    )
    for axis in (0, 1):
        extra = x.shape[axis] - size
        if extra >= 0:  # half the surplus; of two halves the even one
            start = extra // 2 + (extra % 4 == 3)
            x = np.take(x, range(start, start + size), axis)
        else:
            before = -extra // 2
            widths = [(0, 0)] * 3
            widths[axis] = (before, -extra - before)
            x = np.pad(x, widths)
    return np.clip(x, 0, 255)


def worst(actual, expected):
    assert actual.dtype == np.uint8 and actual.shape == expected.shape
    return float(np.abs(actual.astype(float) - expected).max())


SIZES = [
    (64, 64),
    (70, 93),
    (93, 70),
    (65, 64),
    (80, 203),
    (203, 80),
    (201, 80),
    (99, 320),
    (31, 23),
    (2, 9),
    (1, 1),
    (150, 151),
]
CONFIGS = [
    (56, 0.875, "bilinear"),
    (56, 0.875, "bicubic"),
    (40, 0.909, "bicubic"),
    (52, 0.928, "bilinear"),
    (33, 1.0, "bicubic"),
    (57, 1.25, "bilinear"),
    (41, 1.25, "bicubic"),
    (64, 0.3, "bilinear"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_against_oracle(shape, config):
    picture = noise(*shape)
    pixels = EvalTransform(*config).pixels(picture)
    assert worst(pixels, oracle(picture, *config)) <= 1.51  # Pillow rounds between its passes


@pytest.mark.parametrize("config", CONFIGS[:4], ids=str)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_thin_route_against_oracle(shape, config, monkeypatch):
    monkeypatch.setattr(transforms, "MAX_WHOLE", 0)
    picture = noise(*shape)
    pixels = EvalTransform(*config).pixels(picture)
    assert worst(pixels, oracle(picture, *config)) <= 1.51


@pytest.mark.parametrize("name", ["resnet_50", "resnest_101", "resnest_200", "resnest_269"])
def test_card_sizes_against_oracle(name):
    card = cards.find_card(name)
    picture = noise(389, 500)
    expected = oracle(picture, card.image_size, card.crop, card.interpolation)
    assert worst(create_transform(name).pixels(picture), expected) <= 1.51


def test_oracle_notices_a_shift_a_flip_and_another_filter():
    picture = noise(70, 93)
    right = oracle(picture, 56, 0.875, "bilinear")
    for wrong in (
        oracle(picture, 56, 0.875, "bicubic"),
        oracle(picture, 56, 0.889, "bilinear"),
        np.roll(right, 1, 0),
        np.roll(right, 1, 1),
        right[:, ::-1],
        right[..., ::-1],
    ):
        assert np.abs(right - wrong).max() > 10


@pytest.mark.parametrize("shape", [(1, 100_000, 3), (100_000, 1, 3)])
def test_absurdly_thin(shape):
    picture = np.zeros(shape, np.uint8)
    middle = np.moveaxis(picture, np.argmax(shape), 0)
    middle[49_995:50_005] = 200
    assert (EvalTransform().pixels(picture) == 200).all()


# --- real photos ---


@pytest.mark.parametrize("photo", PHOTOS)
def test_stored_pixels(photo, outside_data):
    stored = np.load(outside_data / "images" / "preprocessed.npz")
    keys = [k for k in stored if k.startswith(photo + "/")]
    assert keys
    for key in keys:
        size, crop, interpolation = key.split("/")[1].split("_")
        transform = EvalTransform(int(size), float(crop), interpolation)
        path = outside_data / "images" / f"{photo}.jpg"
        pixels = transform.pixels(path)
        assert worst(pixels, stored[key]) <= 1, key
        expected = (stored[key] / 255.0 - cards.IMAGENET_MEAN) / cards.IMAGENET_STD
        error = np.abs(transform(path) - expected.transpose(2, 0, 1))
        assert error.max() <= 1.001 / 255 / min(cards.IMAGENET_STD)


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_sample_photos(name):
    picture = pytest.importorskip("sklearn.datasets").load_sample_image(name)
    assert picture.shape == (427, 640, 3)
    picture = 50 + picture // 2  # Pillow clips between its passes, the oracle only at the end
    for config in [(224, 0.875, "bilinear"), (224, 0.875, "bicubic")]:
        pixels = EvalTransform(*config).pixels(picture)
        assert worst(pixels, oracle(picture, *config)) <= 1.51


# --- normalisation, batches ---


def test_normalisation():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    picture = noise(80, 100)
    transform = EvalTransform(56, mean=mean, std=std)
    x = transform(picture)
    assert x.shape == (3, 56, 56) and x.dtype == np.float32 and x.flags.c_contiguous
    expected = (transform.pixels(picture) / 255.0 - mean) / std
    np.testing.assert_allclose(x, expected.transpose(2, 0, 1), rtol=0, atol=1e-6)


def test_every_level_is_normalised():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    x = EvalTransform(16, 1.0)(ramp)
    for channel, (m, s) in enumerate(zip(cards.IMAGENET_MEAN, cards.IMAGENET_STD, strict=True)):
        np.testing.assert_allclose(x[channel].ravel(), (np.arange(256) / 255 - m) / s, atol=1e-6)


def test_batch():
    pictures = [noise(80, 100, 1), noise(100, 80, 2), Image.fromarray(noise(60, 60, 3))]
    transform = EvalTransform(56)
    x = preprocess(pictures, transform)
    assert x.shape == (3, 3, 56, 56) and x.dtype == np.float32
    for image, row in zip(pictures, x, strict=True):
        np.testing.assert_array_equal(row, transform(image))
    np.testing.assert_array_equal(preprocess(iter(pictures), transform), x)
    np.testing.assert_array_equal(preprocess(pictures[1], transform), x[1:2])
    np.testing.assert_array_equal(preprocess(saved(pictures[2]), transform), x[2:])
    np.testing.assert_array_equal(preprocess(np.stack(pictures[:1] * 2), transform), x[[0, 0]])
    assert preprocess([], "resnest_269").shape == (0, 3, 416, 416)


# --- what an image may be ---


def saved(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file


def test_sources_agree(tmp_path):
    picture = noise(70, 90)
    image = Image.fromarray(picture)
    path = tmp_path / "picture \u00e9.png"
    image.save(path)
    transform = EvalTransform(56)
    expected = transform(picture)
    twice = np.repeat(np.repeat(picture, 2, 0), 2, 1)
    read_only = np.asarray(image)
    assert not read_only.flags.writeable
    for source in (
        str(path),
        path,
        image,
        saved(image),
        picture[::-1].copy()[::-1],
        read_only,
        np.asfortranarray(picture),
        twice[::2, ::2],
        np.dstack([picture, picture[:, :, 0]]),
    ):
        np.testing.assert_array_equal(transform(source), expected)
    with Image.open(path) as lazy:
        np.testing.assert_array_equal(transform(lazy), expected)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(transform(file), expected)
        assert not file.closed
    grey = transform.pixels(picture[:, :, 1])
    np.testing.assert_array_equal(grey, transform.pixels(picture[:, :, [1, 1, 1]]))


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"]


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("mode", MODES)
def test_modes(mode):
    picture = Image.fromarray(noise(60, 60))
    if mode in ("I", "I;16", "F"):
        levels = np.linspace(0, 300, 3600).reshape(60, 60)
        dtype = {"I": np.int32, "I;16": np.uint16, "F": np.float32}[mode]
        picture = Image.fromarray(levels.astype(dtype))
    elif mode == "PA":
        picture = picture.convert("P").convert("PA")
    else:
        picture = picture.convert(mode)
    if mode == "P":
        picture.info["transparency"] = bytes(range(256))
    assert picture.mode == mode
    pixels = EvalTransform(60, 1.0).pixels(picture)
    np.testing.assert_array_equal(pixels, np.asarray(picture.convert("RGB")))
    assert pixels.std() > 5


def test_exif_orientation_is_ignored():
    picture = Image.fromarray(noise(48, 80))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(picture, "JPEG", exif=exif, quality=95)
    plain = saved(picture, "JPEG", quality=95)
    assert Image.open(turned).getexif()[0x0112] == 6
    transform = EvalTransform(56)
    np.testing.assert_array_equal(transform(turned), transform(plain))


def test_first_frame():
    frames = [Image.fromarray(noise(30, 40, seed)).convert("P") for seed in (1, 2)]
    file = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    transform = EvalTransform(20)
    np.testing.assert_array_equal(transform(file), transform(frames[0]))


# --- bad files, bad arguments ---


def test_missing_and_unreadable_files(tmp_path):
    transform = EvalTransform()
    with pytest.raises(FileNotFoundError, match="no such.jpg"):
        transform(tmp_path / "no such.jpg")
    with pytest.raises(OSError, match="folder"):
        (tmp_path / "folder").mkdir()
        transform(tmp_path / "folder")
    for name, content in {"text.jpg": b"hello", "empty.png": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.*not an image"):
            transform(str(tmp_path / name))
    with pytest.raises(ValueError, match="file object is not an image"):
        transform(io.BytesIO(b"hello"))


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what it finds in there
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP"])
def test_damaged_files(kind, tmp_path):
    """Cut off, or with some bytes changed: an array or a ValueError that names the file."""
    good = saved(Image.fromarray(noise(20, 30)), kind).getvalue()
    transform = EvalTransform(16)
    assert transform(io.BytesIO(good)).shape == (3, 16, 16)
    path = tmp_path / "damaged"
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match="damaged"):
        transform(path)
    rng = np.random.default_rng(5)
    for _ in range(60):
        bad = np.frombuffer(good, np.uint8).copy()
        bad[rng.integers(0, min(len(bad), 200), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(bad[: rng.integers(1, len(bad) + 1)].tobytes())
        try:
            assert transform(path).shape == (3, 16, 16)
        except ValueError as error:
            assert "damaged" in str(error)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("L", (100, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(ValueError, match="bomb.png.*too many pixels.*10000"):
        EvalTransform()(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8000)  # Pillow itself only warns here
    assert EvalTransform(16)(path).shape == (3, 16, 16)


@pytest.mark.parametrize(
    "image, error, text",
    [
        (np.zeros((5, 5, 3), np.float32), TypeError, "float32"),
        (np.zeros((5, 5), bool), TypeError, "bool"),
        (np.zeros((5, 5, 2), np.uint8), ValueError, r"\(5, 5, 2\)"),
        (np.zeros((1, 5, 5, 3), np.uint8), ValueError, r"\(1, 5, 5, 3\)"),
        (np.zeros((5, 0, 3), np.uint8), ValueError, r"\(5, 0, 3\)"),
        (Image.new("RGB", (0, 7)), ValueError, "0x7"),
        (b"x.jpg", TypeError, "bytes"),
        (None, TypeError, "NoneType"),
        (["x.jpg"], TypeError, "list"),
    ],
)
def test_bad_images(image, error, text):
    with pytest.raises(error, match=text):
        EvalTransform()(image)


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"image_size": 0}, ValueError, "image_size must"),
        ({"image_size": 10**6}, ValueError, "image_size must"),
        ({"image_size": 224.0}, TypeError, "float"),
        ({"crop": 0}, ValueError, "crop 0"),
        ({"crop": -1.0}, ValueError, "crop -1"),
        ({"crop": float("nan")}, ValueError, "crop nan"),
        ({"crop": 1e-9}, ValueError, "crop 1e-09"),
        ({"crop": 225.0}, ValueError, "crop 225"),
        ({"interpolation": "cubic"}, ValueError, "'cubic'.*bicubic"),
        ({"mean": (0.5,)}, ValueError, "mean"),
        ({"mean": (0.5, 0.5, float("inf"))}, ValueError, "mean"),
        ({"std": (1, 1, 0)}, ValueError, "std"),
        ({"size": 224}, TypeError, "'size'.*image_size"),
    ],
)
def test_bad_arguments(options, error, text):
    with pytest.raises(error, match=text):
        create_transform("resnet_50", **options)


# --- from a model ---


def test_create_transform():
    expected = EvalTransform(320, 0.909, "bicubic")
    card = cards.CARDS["resnest_200"]
    config = {f: getattr(card, f) for f in transforms.FIELDS} | {"name": card.name}
    for source in (
        "resnest_200",
        "resnest200e",
        card,
        config,
        SimpleNamespace(config=card),
        SimpleNamespace(config=config),
        SimpleNamespace(**config),
        expected,
    ):
        assert create_transform(source) == transforms.from_config(source) == expected
    changed = create_transform("resnest_200", image_size=288, crop=1, std=[1, 1, 1])
    assert changed == EvalTransform(288, 1.0, "bicubic", std=(1.0, 1.0, 1.0))
    assert pickle.loads(pickle.dumps(changed)) == changed
    assert "image_size=288" in repr(changed)
    with pytest.raises(ValueError, match="resnest_20o.*did you mean"):
        create_transform("resnest_20o")
    for source in (object(), None, SimpleNamespace(config=None), {}):
        with pytest.raises(TypeError, match="EvalTransform"):
            create_transform(source)


def test_pillow_is_optional_and_imported_late(run_python):
    done = run_python("""
        import sys
        from lucid_c.transforms import EvalTransform, create_transform
        assert "PIL" not in sys.modules
        transform = create_transform("resnest_50")
        assert "PIL" not in sys.modules
        sys.modules["PIL"] = None
        try:
            transform("cat.jpg")
        except ImportError as error:
            print(error)
    """)
    assert "pip install lucid_c[images]" in done.stdout
