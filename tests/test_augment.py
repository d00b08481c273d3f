# SPDX-License-Identifier: MIT
"""Training transforms, against formulas in NumPy and PyTorch and statistics of many draws."""

import colorsys
import io
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from data_samples import encoded, noise
from lucid_c.data.augment import (
    AutoAugment,
    ColorJitter,
    Compose,
    Lighting,
    Normalize,
    RandAugment,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    ToArray,
    ToImage,
    train_transform,
)
from lucid_c.models._cards import CARDS

Image = pytest.importorskip("PIL.Image")
PIXELS = noise(40, 50, 1, smooth=True) // 2 + noise(40, 50, 2) // 2


def rng(seed=0):
    return np.random.default_rng(seed)


def picture(pixels=PIXELS):
    return Image.fromarray(pixels)


# --- crop ---


def torch_box(height, width, scale, ratio, draws):
    """torchvision's RandomResizedCrop.get_params, on PyTorch's random numbers."""
    torch = draws
    area = height * width
    log_ratio = torch.log(torch.tensor(ratio))
    for _ in range(10):
        target = area * torch.empty(1).uniform_(*scale).item()
        aspect = torch.exp(torch.empty(1).uniform_(*log_ratio.tolist())).item()
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            i = torch.randint(0, height - h + 1, (1,)).item()
            j = torch.randint(0, width - w + 1, (1,)).item()
            return j, i, w, h
    return None


def test_boxes_are_distributed_as_in_pytorch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    crop, generator, count = RandomResizedCrop(224), rng(), 4000
    ours = np.array([crop.box(500, 375, generator) for _ in range(count)])
    theirs = [torch_box(375, 500, (0.08, 1.0), (3 / 4, 4 / 3), torch) for _ in range(count)]
    theirs = np.array([box for box in theirs if box is not None])
    assert len(theirs) > 0.99 * count
    for mine, their in zip(ours.T, theirs.T, strict=True):  # Kolmogorov-Smirnov, p about 1e-4
        values = np.unique(np.concatenate([mine, their]))
        gaps = [np.mean(mine <= value) - np.mean(their <= value) for value in values]
        assert np.abs(gaps).max() < 2.2 * math.sqrt(2 / count)
    left, top, width, height = ours.T
    assert left.min() >= 0 and top.min() >= 0 and width.min() > 0 and height.min() > 0
    assert (left + width).max() <= 500 and (top + height).max() <= 375


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_crop_resizes_what_it_cuts_out(interpolation):
    crop = RandomResizedCrop(24, interpolation=interpolation)
    for seed in range(5):
        left, top, width, height = crop.box(50, 40, rng(seed))
        cut = picture(PIXELS[top : top + height, left : left + width].copy())
        expected = cut.resize((24, 24), getattr(Image.Resampling, interpolation.upper()))
        np.testing.assert_array_equal(crop(picture(), rng(seed)), expected)


@pytest.mark.parametrize(
    "size, box",
    [
        ((1000, 10), (493, 0, 13, 10)),
        ((10, 1000), (0, 493, 10, 13)),
        ((1, 1), (0, 0, 1, 1)),
        ((100, 1), (49, 0, 1, 1)),
    ],
)
def test_fallback_of_crop(size, box):
    """Nothing fits: the largest box in the centre that is within the ratios."""
    assert RandomResizedCrop(8, scale=(1.0, 1.0)).box(*size, rng()) == box


def test_scale_and_ratio():
    crop = RandomResizedCrop(8, scale=(0.25, 0.25), ratio=(2, 2))
    boxes = {crop.box(1000, 1000, rng(seed))[2:] for seed in range(20)}
    assert boxes == {(707, 354)}


# --- flip and colour ---


def test_flip():
    np.testing.assert_array_equal(RandomHorizontalFlip(1)(picture(), rng()), PIXELS[:, ::-1])
    np.testing.assert_array_equal(RandomHorizontalFlip(0)(picture(), rng()), PIXELS)
    generator, flip = rng(), RandomHorizontalFlip(0.3)
    two = picture(np.array([[[0] * 3, [255] * 3]], np.uint8))
    flipped = [np.asarray(flip(two, generator))[0, 0, 0] == 255 for _ in range(3000)]
    assert abs(np.mean(flipped) - 0.3) < 0.03


GREY = PIXELS @ np.array([299, 587, 114]) / 1000
ENDS = {
    "brightness": np.zeros(PIXELS.shape),
    "contrast": np.full(PIXELS.shape, round(GREY.mean())),
    "saturation": np.repeat(GREY[..., None], 3, 2),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 3.0])
def test_jitter_is_a_blend(name, factor):
    found = ColorJitter(**{name: (factor, factor)})(picture(), rng())
    expected = np.clip(PIXELS * factor + ENDS[name] * (1 - factor), 0, 255)
    assert np.abs(np.asarray(found) - expected).max() <= 1 + 0.5 * abs(1 - factor)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.25, 1 / 3])
def test_hue(turn):
    """As colorsys has it; Pillow's HSV has 256 levels each."""
    colours = np.array([[[200, 30, 40], [10, 180, 60], [90, 80, 220], [128, 128, 128]]], np.uint8)
    found = np.asarray(ColorJitter(hue=(turn, turn))(picture(colours), rng()))
    for before, after in zip(colours[0] / 255, found[0], strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before)
        expected = 255 * np.array(colorsys.hsv_to_rgb((h + turn) % 1, s, v))
        assert np.abs(after - expected).max() <= 10


def test_jitter_draws_factors_and_orders():
    """One pixel under brightness and contrast: contrast leaves one colour as it is."""
    one = picture(np.full((1, 1, 3), 100, np.uint8))
    generator, jitter = rng(), ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)
    levels = np.array([np.asarray(jitter(one, generator))[0, 0, 0] for _ in range(2000)])
    assert levels.min() in range(60, 64) and levels.max() in range(137, 141)
    assert abs(levels.mean() - 99.5) < 1.5 and abs(levels.std() - 80 / 12**0.5) < 1

    half = picture(np.array([[[40] * 3, [160] * 3]], np.uint8))
    both = ColorJitter(brightness=(2, 2), contrast=(0, 0))  # mean 100: 200, or 200 only clipped
    seen = {np.asarray(both(half, rng(seed)))[0, 0, 0] for seed in range(20)}
    # brightness first: 80 and 255, mean 167.5 -> 168; contrast first: 100, then 200
    assert seen == {168, 200}


def test_jitter_leaves_out_what_is_zero():
    jitter = ColorJitter(0, None, 0.0, 0)
    np.testing.assert_array_equal(jitter(picture(), rng()), PIXELS)
    assert ColorJitter(3).brightness == (0, 4) and ColorJitter(hue=0.1).hue == (-0.1, 0.1)


# --- arrays ---


def test_to_array_and_normalize():
    x = ToArray()(picture())
    assert x.dtype == np.float32 and x.shape == (3, 40, 50) and x.flags.c_contiguous
    np.testing.assert_allclose(x, PIXELS.transpose(2, 0, 1) / 255, rtol=1e-6)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    before = x.copy()
    y = Normalize(mean, std)(x)
    np.testing.assert_array_equal(x, before)
    expected = (PIXELS / 255.0 - mean) / std
    np.testing.assert_allclose(y, expected.transpose(2, 0, 1), atol=1e-6)
    assert y.dtype == np.float32
    torch = pytest.importorskip("torch")
    theirs = torch.from_numpy(PIXELS.copy()).permute(2, 0, 1).float().div(255)
    np.testing.assert_array_equal(x, theirs.numpy())


def test_lighting():
    """The shift is the same for all pixels, with covariance V diag((alpha d)^2) V'."""
    vectors = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-3)
    x, generator, lighting = ToArray()(picture()), rng(), Lighting(0.5)
    shifts = []
    for _ in range(3000):
        change = lighting(x, generator) - x
        if len(shifts) < 5:
            assert np.ptp(change, axis=(1, 2)).max() < 1e-6
        shifts.append(change[:, 0, 0])
    shifts = np.array(shifts)
    assert np.abs(shifts.mean(0)).max() < 0.005
    expected = vectors @ np.diag((0.5 * np.array([0.2175, 0.0188, 0.0045])) ** 2) @ vectors.T
    np.testing.assert_allclose(np.cov(shifts.T), expected, atol=3e-4)
    np.testing.assert_array_equal(Lighting(0)(x, rng()), x)


def test_erasing():
    x = np.ones((3, 60, 80), np.float32)
    erase, generator = RandomErasing(1, value=5), rng()
    shares, shapes, places = [], [], []
    for _ in range(2000):
        y = erase(x, generator)
        hit = y[0] == 5
        rows, columns = np.nonzero(hit)
        h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert h * w == hit.sum() and ((y == 1) | (y == 5)).all()
        assert (y == y[:1]).all()
        shares.append(h * w / hit.size)
        shapes.append(math.log(h / w))
        places.append((rows.min() / max(60 - h, 1), columns.min() / max(80 - w, 1)))
    assert (x == 1).all()
    assert 0.015 < min(shares) < 0.03 and 0.31 < max(shares) < 0.35
    assert abs(np.mean(shares) - 0.175) < 0.01  # uniform, hardly a box is too large
    assert abs(np.mean(shapes)) < 0.08 and abs(max(shapes) - math.log(3.3)) < 0.2
    np.testing.assert_allclose(np.mean(places, axis=0), 0.5, atol=0.03)

    generator = rng()
    changed = [RandomErasing(0.25)(x, generator) is not x for _ in range(2000)]
    assert abs(np.mean(changed) - 0.25) < 0.03
    y = RandomErasing(1, value="random")(np.zeros((3, 300, 300), np.float32), rng())
    drawn = y[y != 0]
    assert abs(drawn.mean()) < 0.05 and abs(drawn.std() - 1) < 0.05
    tiny = np.ones((3, 1, 1), np.float32)
    np.testing.assert_array_equal(RandomErasing(1)(tiny, rng()), tiny)


# --- the recipe ---


def test_train_transform_is_its_steps():
    transform = train_transform("resnest_200", image_size=64, erasing=0.5)
    kinds = [type(step) for step in transform.transforms]
    assert kinds == [
        ToImage,
        AutoAugment,
        RandomResizedCrop,
        RandomHorizontalFlip,
        ColorJitter,
        ToArray,
        Lighting,
        Normalize,
        RandomErasing,
    ]
    crop, jitter = transform.transforms[2], transform.transforms[4]
    assert (crop.size, crop.interpolation, crop.scale) == (64, "bicubic", (0.08, 1))
    assert jitter.brightness == jitter.contrast == jitter.saturation == (0.6, 1.4)
    for seed in range(5):
        generator, expected = rng(seed), PIXELS
        for step in transform.transforms:
            expected = step(expected, generator)
        np.testing.assert_array_equal(transform(PIXELS, rng(seed)), expected)


def test_train_transform_has_the_card_of_the_model():
    for name in ("resnet_18", "resnest_101", "resnest_269", "resnest_50_4s2x40d"):
        card = CARDS[name]
        for source in (name, card, SimpleNamespace(config=card)):
            steps = train_transform(source).transforms
            crop, normalize = steps[2], steps[-1]
            assert (crop.size, crop.interpolation) == (card.image_size, card.interpolation)
            assert (normalize.mean, normalize.std) == (card.mean, card.std)
    config = {"image_size": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3, "crop": 0.9}
    plain = train_transform(config, auto_augment=None, flip=0, color_jitter=None, lighting=0)
    assert [type(step).__name__ for step in plain.transforms] == [
        "ToImage",
        "RandomResizedCrop",
        "ToArray",
        "Normalize",
    ]
    white = plain(np.full((40, 40, 3), 255, np.uint8), rng())
    np.testing.assert_allclose(white, 2.0, atol=1e-6)
    rand = train_transform("resnet_18", auto_augment="rand").transforms[1]
    own = RandAugment(1, 3)
    assert type(rand) is RandAugment
    assert train_transform("resnet_18", auto_augment=own).transforms[1] is own


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize(
    "source",
    ["tiny", "thin", "huge", "L", "1", "LA", "P", "RGBA", "CMYK", "exif", "array", "I;16"],
)
def test_what_a_picture_may_be(source):
    transform = train_transform("resnet_18", image_size=32)
    image = picture()
    if source in ("tiny", "thin", "huge"):
        shape = {"tiny": (1, 1, 3), "thin": (2, 900, 3), "huge": (1500, 2000, 3)}[source]
        image = picture(np.full(shape, 77, np.uint8))
    elif source == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6
        file = encoded(image, "JPEG", exif=exif, quality=95)
        plain = encoded(image, "JPEG", quality=95)
        np.testing.assert_array_equal(
            transform(io.BytesIO(file), rng(1)), transform(io.BytesIO(plain), rng(1))
        )
        return
    elif source == "array":
        np.testing.assert_array_equal(transform(PIXELS, rng(1)), transform(image, rng(1)))
        return
    elif source == "I;16":
        image = picture(np.arange(2000, dtype=np.uint16).reshape(40, 50))
    else:
        image = image.convert(source)
    for seed in range(12):
        x = transform(image, rng(seed))
        assert x.shape == (3, 32, 32) and x.dtype == np.float32 and np.isfinite(x).all()
    np.testing.assert_array_equal(transform(image, rng(1)), transform(image.convert("RGB"), rng(1)))


def test_equal_generators_give_equal_results_and_copies():
    transform = train_transform("resnet_18", image_size=24, erasing=1.0)
    copy = pickle.loads(pickle.dumps(transform))
    assert repr(copy) == repr(transform)
    results = set()
    for seed in range(10):
        x = transform(PIXELS, rng(seed))
        np.testing.assert_array_equal(x, copy(PIXELS, rng(seed)))
        results.add(x.tobytes())
    assert len(results) == 10


def test_a_repr_can_be_evaluated():
    import lucid_c.data.augment as augment

    transform = train_transform("resnest_50", erasing=0.1)
    assert repr(eval(repr(transform), vars(augment))) == repr(transform)
    assert repr(Compose([])) == "Compose([])"


# --- bad arguments ---


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: RandomResizedCrop(0), ValueError, "size"),
        (lambda: RandomResizedCrop((224, 224)), TypeError, "size"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 1.5)), ValueError, "scale"),
        (lambda: RandomResizedCrop(8, scale=(1, 0.5)), ValueError, "scale"),
        (lambda: RandomResizedCrop(8, scale=0.5), TypeError, "scale"),
        (lambda: RandomResizedCrop(8, ratio=(0, 1)), ValueError, "ratio"),
        (lambda: RandomResizedCrop(8, interpolation="cubic"), ValueError, "'cubic'"),
        (lambda: RandomHorizontalFlip(1.5), ValueError, "p must"),
        (lambda: ColorJitter(-1), ValueError, "brightness"),
        (lambda: ColorJitter(contrast="much"), TypeError, "contrast"),
        (lambda: ColorJitter(saturation=(2, 1)), ValueError, "saturation"),
        (lambda: ColorJitter(hue=0.6), ValueError, "hue"),
        (lambda: Lighting(float("nan")), ValueError, "alpha"),
        (lambda: Normalize((0,) * 3, (1, 1, 0)), ValueError, "std"),
        (lambda: Normalize((0,) * 3, (1, 1)), ValueError, "3, 2"),
        (lambda: RandomErasing(2), ValueError, "p must"),
        (lambda: RandomErasing(value="noise"), TypeError, "value"),
        (lambda: Compose([3]), TypeError, "callable"),
        (lambda: train_transform("resnet_5"), ValueError, "resnet_5"),
        (lambda: train_transform("resnet_18", image_size=-1), ValueError, "image_size"),
        (lambda: train_transform("resnet_18", auto_augment="all"), ValueError, "'all'"),
        (lambda: train_transform(object()), TypeError, "object"),
    ],
)
def test_bad_arguments(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_wrong_inputs():
    for transform in (
        RandomResizedCrop(8),
        RandomHorizontalFlip(),
        ColorJitter(0.1),
        ToArray(),
    ):
        with pytest.raises(TypeError, match=f"{type(transform).__name__} takes a Pillow image"):
            transform(PIXELS, rng())
        with pytest.raises(ValueError, match="mode RGB, not CMYK"):
            transform(Image.new("CMYK", (9, 9)), rng())
    for transform in (Lighting(), Normalize(), RandomErasing(1)):
        for x in (picture(), PIXELS, np.zeros((3, 4), np.float32), np.zeros((3, 4, 5))):
            with pytest.raises(TypeError, match=f"{type(transform).__name__} takes a float32"):
                transform(x, rng())
    with pytest.raises(ValueError, match="4 channels"):
        Normalize()(np.zeros((4, 5, 6), np.float32))
    with pytest.raises(ValueError, match="0x3"):
        ToImage()(Image.new("RGB", (0, 3)))
    with pytest.raises(ValueError, match="not an image"):
        train_transform("resnet_18")(io.BytesIO(b"nothing"), rng())


def test_pillow_is_optional_and_imported_late(run_python):
    done = run_python("""
        import sys
        import numpy as np
        from lucid_c.data import ArrayDataset, DataLoader, TarShards
        from lucid_c.data.augment import train_transform
        transform = train_transform("resnet_50", image_size=32)
        for images, _ in DataLoader(ArrayDataset(np.zeros((4, 3), np.float32), range(4)), 2):
            assert images.shape == (2, 3)
        assert not {"PIL", "multiprocessing"} & set(sys.modules)
        sys.modules["PIL"] = None
        try:
            transform(np.zeros((9, 9, 3), np.uint8), np.random.default_rng(0))
        except ImportError as error:
            print(error)
    """)
    assert "pip install lucid_c[images]" in done.stdout
