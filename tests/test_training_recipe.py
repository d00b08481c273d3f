# SPDX-License-Identifier: MIT
"""The recipe: its defaults are the published ones, and what cannot be is refused by name."""

import dataclasses

import numpy as np
import pytest

from lucid_c import create_model
from lucid_c.data.augment import AutoAugment, RandomResizedCrop
from lucid_c.training import Recipe, building, open_source, read_toml


def test_defaults_are_the_published_recipe():
    recipe = Recipe()
    assert (recipe.optimizer, recipe.momentum, recipe.decay) == ("sgd", 0.9, 1e-4)
    assert (recipe.epochs, recipe.label_smoothing, recipe.mixup) == (270, 0.1, 0.2)
    assert (recipe.schedule, recipe.warmup, recipe.auto_augment) == ("cosine", 5, "imagenet")
    assert recipe.zero_last_gamma and recipe.ema is None and recipe.clip_norm is None
    assert recipe.dropout_of("resnest_50") == 0 and recipe.dropout_of("resnest_200") == 0.2
    assert Recipe(batch_size=32, accumulate=8).peak_lr == pytest.approx(0.1)
    assert recipe.peak_lr == pytest.approx(0.1 * 64 / 256)
    assert Recipe(lr=0.3, lr_batch=0).peak_lr == 0.3
    assert recipe.drop_block_at(0) == 0 and recipe.drop_block_at(269) == pytest.approx(0.1)
    assert Recipe(epochs=1).drop_block_at(0) == 0 and Recipe(epochs=20).warmup == 2


def test_what_the_defaults_build():
    recipe = Recipe(model="resnest_14")
    model = building.build_model(recipe, 10)
    assert model.num_classes == 10 and not hasattr(model, "drop")
    assert model.layer4[0].drop_block.p == 0.1 and not np.any(model.layer1[0].bn3.weight.numpy())
    groups = building.make_optimizer(model, recipe).param_groups
    assert [group["weight_decay"] for group in groups] == [0, 1e-4]
    assert {p.ndim for p in groups[0]["params"]} == {1}
    train, val = building.make_transforms(model, recipe)
    assert [type(step).__name__ for step in train.transforms] == [
        "ToImage", "AutoAugment", "RandomResizedCrop", "RandomHorizontalFlip", "ColorJitter",
        "ToArray", "Lighting", "Normalize",
    ]  # fmt: skip
    assert val.image_size == 224 and val.crop == 0.875


def test_image_options():
    recipe = Recipe(image_size=96, crop=1.0, interpolation="bicubic", auto_augment="none",
                    color_jitter=0, lighting=0, flip=0, crop_scale=0.5, erasing=0.1)  # fmt: skip
    train, val = building.make_transforms("resnest_14", recipe)
    crop = next(step for step in train.transforms if isinstance(step, RandomResizedCrop))
    assert (crop.size, crop.scale, crop.interpolation) == (96, (0.5, 1.0), "bicubic")
    assert not any(isinstance(step, AutoAugment) for step in train.transforms)
    assert [type(s).__name__ for s in train.transforms][-1] == "RandomErasing"
    assert (val.image_size, val.crop, val.interpolation) == (96, 1.0, "bicubic")


def test_a_large_model_has_dropout():
    recipe = Recipe(model="resnest_50", drop_rate=0.3, drop_path_rate=0.1)
    model = building.build_model(recipe, 2)
    assert model.drop.p == 0.3 and model.layer4[2].drop_path.drop_prob == pytest.approx(0.1)


@pytest.mark.parametrize(
    "error,match,options",
    [
        (ValueError, "epochs must be at least 1, not 0", {"epochs": 0}),
        (TypeError, "epochs must be an integer, not 2.5", {"epochs": 2.5}),
        (TypeError, "batch_size must be an integer, not True", {"batch_size": True}),
        (TypeError, "lr must be a number, not '1'", {"lr": "1"}),
        (ValueError, "lr must be at least 0, not nan", {"lr": float("nan")}),
        (ValueError, "label_smoothing must be from 0 to 1, not 2", {"label_smoothing": 2}),
        (ValueError, "clip_norm must be above 0", {"clip_norm": 0}),
        (ValueError, "optimizer must be sgd or adamw or lamb or lars", {"optimizer": "adam"}),
        (TypeError, "freeze must be a list, not 'layer1'", {"freeze": "layer1"}),
        (TypeError, "lr_steps must be an integer", {"lr_steps": [1, "x"]}),
        (TypeError, "ema_warmup must be true or false", {"ema_warmup": 1}),
        (TypeError, "epochs must be an integer, not None", {"epochs": None}),
        (
            ValueError,
            "warmup_epochs must be less than epochs, 3",
            {"warmup_epochs": 3, "epochs": 3},
        ),
        (ValueError, "nesterov needs", {"nesterov": True, "optimizer": "lamb"}),
        (ValueError, "seed must be less", {"seed": 1 << 64}),
        (ValueError, "worker_kind must be thread or process", {"worker_kind": "fibre"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_cannot_be(error, match, options):
    with pytest.raises(error, match=match):
        Recipe(**options)


def test_as_a_dict_and_back():
    recipe = Recipe(freeze=["layer1"], lr_steps=[2], epochs=np.int64(7), lr=np.float32(0.5))
    options = recipe.to_dict()
    assert options["freeze"] == ["layer1"] and type(options["epochs"]) is int
    assert Recipe.from_dict(options) == recipe
    assert recipe.differences(dataclasses.replace(recipe, workers=7, threads=3)) == []
    assert recipe.differences(dataclasses.replace(recipe, seed=7, lr=0.4)) == ["lr", "seed"]
    with pytest.raises(ValueError, match="'epoch'; did you mean 'epochs'"):
        Recipe.from_dict({"epoch": 3})


def test_toml(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('batch-size = 32\nlr = 1\nfreeze = ["conv1"]\nema = 0.99\nnesterov = true\n')
    options = read_toml(file)
    recipe = Recipe.from_dict(options)
    assert (recipe.batch_size, recipe.lr, recipe.freeze) == (32, 1.0, ("conv1",))
    assert recipe.nesterov and recipe.ema == 0.99
    for text, match in (
        ("a = ", "recipe.toml"),
        ("[recipe]\nlr = 1\n", "table"),
        ("\xff", "utf-8"),
    ):
        file.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match=match):
            read_toml(file)
    with pytest.raises(FileNotFoundError):
        read_toml(tmp_path / "none.toml")


def test_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        open_source(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no class folders"):
        open_source(tmp_path)
    with pytest.raises(FileNotFoundError, match="no tar files"):
        open_source(tmp_path, "tar")
    with pytest.raises(ValueError, match="folder or tar"):
        open_source(tmp_path, "zip")


def test_no_model_is_named():
    with pytest.raises(ValueError, match="no model is given"):
        building.build_model(Recipe(), 3)
    with pytest.raises(ValueError, match="resnet_18"):
        building.build_model(Recipe(model="resnet_19"), 3)


def test_mixing_takes_one_of_both():
    rng = np.random.default_rng(0)
    samples = [(rng.standard_normal((3, 8, 8)).astype(np.float32), i % 2) for i in range(6)]
    images = np.stack([image for image, _ in samples])
    kinds = set()
    for _ in range(20):
        x, y = building.Mix(3, 1.0, 1.0)(samples, rng)
        assert y.shape == (6, 3) and np.allclose(y.sum(1), 1) and not y[:, 2].any()
        kinds.add(np.isin(x, images).all())  # CutMix copies, mixup averages
    assert kinds == {True, False}


def test_recomputing_blocks():
    model = building.build_model(Recipe(model="resnet_18", recompute=True), 2)
    assert all(block.recompute for block in model.layer3)
    assert create_model("resnet_18", 2).layer3[0].recompute is False
