# SPDX-License-Identifier: MIT
"""The trainer: it learns, follows its recipe, resumes to the same bits, and fails well."""

import csv
import errno
import math
import re
import signal
import sys
import threading
import warnings

import numpy as np
import pytest

import lucid_c
from lucid_c import nn, optim
from lucid_c.checkpoints import load, load_training_state
from lucid_c.data import ArrayDataset, DataLoader, SkippedSampleWarning
from lucid_c.models import ResNet
from lucid_c.models.blocks import BasicBlock
from lucid_c.nn import functional as F
from lucid_c.training import (
    NonFiniteLoss,
    Recipe,
    Trainer,
    TrainingInterrupted,
    building,
    display,
    evaluate,
    freeze,
    load_weights,
    trainer,
)

PLAIN = dict(
    mixup=0, label_smoothing=0, drop_block_rate=0, lr_batch=0, workers=0, tensorboard=False
)
RICH = dict(
    epochs=3, batch_size=4, accumulate=2, lr=0.05, lr_batch=0, ema=0.8, mixup=0.4, cutmix=0.5,
    drop_block_rate=0.3, clip_norm=4.0, nesterov=True, tensorboard=False, workers=1,
)  # fmt: skip
TIMES = ("images_per_second", "epoch_seconds")


def small_model(**options):
    lucid_c.random.seed(3)
    return ResNet(BasicBlock, [1, 1, 1, 1], 3, stem_width=8, channels=(8, 8, 16, 16), **options)


def coloured(count=20, seed=0):
    """Images of one bright channel, whose number is the class."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    x = (0.3 * rng.standard_normal((count, 3, 32, 32))).astype(np.float32)
    x[np.arange(count), y] += 1
    return ArrayDataset(x, y)


def make(folder=None, model=None, train=None, val=True, lines=None, **options):
    model = small_model() if model is None else model
    return Trainer(
        model,
        coloured() if train is None else train,
        coloured(9, seed=1) if val else None,
        Recipe(**options),
        folder,
        transforms=(None, None),
        classes=["r", "g", "b"],
        report=(lines if lines is not None else []).append,
        progress=False,
    )


def untimed(history):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in history]


def same_bits(one, two):
    assert one.keys() == two.keys()
    for name in one:
        assert one[name].tobytes() == two[name].tobytes(), name


def rich_model():
    return small_model(drop_rate=0.2, drop_block_rate=0.3, drop_path_rate=0.2)


def finished(trainer):
    """All that a run leaves, without times."""
    state = trainer.model.state_dict() | {f"ema.{k}": v for k, v in trainer.ema.weights().items()}
    return state, untimed(trainer.history), trainer.best, lucid_c.random.get_state()


@pytest.fixture(scope="module")
def uninterrupted():
    """A run of three epochs with everything that is random."""
    trainer = make(model=rich_model(), **RICH)
    trainer.fit()
    return finished(trainer)


def compare(trainer, expected):
    state, *rest = finished(trainer)
    same_bits(state, expected[0])
    assert rest == list(expected[1:])


# --- it trains ---------------------------------------------------------------------------------


def test_it_learns(tmp_path):
    lines = []
    trainer = make(tmp_path / "run", lines=lines, epochs=12, batch_size=5, lr=0.05, **PLAIN)
    history = trainer.fit()
    assert history is trainer.history and len(history) == 12 and trainer.step == 48
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert history[-1]["val_top1"] == 1.0 and history[-1]["val_top5"] == 1.0
    assert not any(module.training for module in trainer.model.modules())
    first = next(i for i, row in enumerate(history) if row["val_top1"] == 1.0)
    assert trainer.best == {"epoch": first, "top1": 1.0}
    assert len(lines) == 12 and lines[0].startswith("epoch 1/12: loss ") and "left" in lines[0]
    with open(tmp_path / "run" / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == [str(i) for i in range(1, 13)]
    assert [float(row["val_loss"]) for row in rows] == [row["val_loss"] for row in history]
    assert (tmp_path / "run" / "classes.txt").read_text() == "r\ng\nb\n"
    same_bits(load(tmp_path / "run" / "last.safetensors"), dict(trainer.model.state_dict()))


def test_steps_are_those_of_a_loop_by_hand():
    options = PLAIN | dict(epochs=4, batch_size=4, accumulate=2, lr=0.1, warmup_epochs=1)
    options |= dict(label_smoothing=0.1, weight_decay=0.01)
    trainer = make(train=coloured(20), val=False, **options)
    trainer.fit()

    model = small_model()
    decaying = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": others}, {"params": decaying, "weight_decay": 0.01}]
    sgd = optim.SGD(groups, 0.1, 0.9)
    loader = DataLoader(coloured(20), 4, shuffle=True, drop_last=True, workers=0)
    step, total, warmup = 0, 12, 3  # 5 batches are 3 steps, the last of one batch
    model.train()
    for _ in range(4):
        batches = list(loader)
        for pair in (batches[0:2], batches[2:4], batches[4:5]):
            if step < warmup:
                lr = 0.1 * (0.01 + 0.99 * step / warmup)
            else:
                lr = 0.1 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
            for group in sgd.param_groups:
                group["lr"] = lr
            sgd.zero_grad()
            for images, labels in pair:
                loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
                loss.backward(np.float32(1 / len(pair)))
            sgd.step()
            step += 1
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(
            trainer.model.state_dict()[name], value, 1e-5, 1e-6, err_msg=name
        )


def test_in_another_thread_than_the_main_one():
    trainer = make(val=False, epochs=1, batch_size=5, **PLAIN)
    worker = threading.Thread(target=trainer.fit)
    worker.start()
    worker.join()
    assert trainer.epoch == 1


def test_a_progress_bar(capsys):
    pytest.importorskip("tqdm")
    trainer = make(epochs=1, batch_size=5, **PLAIN)
    trainer.progress = True
    trainer.fit()
    err = capsys.readouterr().err
    assert "epoch 1/1" in err and "4/4" in err and "epoch 1/1, validation" in err
    assert re.search(r"loss \d\.\d+, top-1 \d+\.\d %, \d+\.\d images/s, .* left in all", err)


@pytest.mark.parametrize("extra,option", [("plots", "plot"), ("progress", "progress")])
def test_what_needs_an_extra_names_it(monkeypatch, extra, option):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.delitem(sys.modules, "lucid_c.training.plot", raising=False)
    monkeypatch.delattr(lucid_c.training, "plot", raising=False)
    with pytest.raises(ImportError, match=rf"lucid_c\[{extra}\]"):
        trainer = make(epochs=1, batch_size=5, plot=option == "plot", **PLAIN)
        trainer.progress = True
        trainer.fit()


@pytest.mark.parametrize("seconds,text", [(59.6, "1 min 0 s"), (3, "3 s"), (3700, "1 h 1 min"),
                                          (200_000, "2 d 7 h")])  # fmt: skip
def test_durations(seconds, text):
    assert display.duration(seconds) == text


@pytest.mark.parametrize("name", ["adamw", "lamb", "lars"])
def test_other_optimizers_learn(name):
    options = PLAIN | dict(epochs=3, batch_size=5, optimizer=name, lr=0.003, clip_value=1.0)
    if name == "lars":
        options["lr"] = 0.3
    history = make(val=False, **options).fit()
    assert history[-1]["train_loss"] < history[0]["train_loss"]


@pytest.mark.parametrize("schedule,rates", [("step", (1, 0.1, 0.1, 0.01)), ("constant", (1,) * 4)])
def test_schedules(schedule, rates):
    recipe = Recipe(schedule=schedule, lr_steps=[1, 3], lr=0.2, lr_batch=0, epochs=4)
    sgd = building.make_optimizer(small_model(), recipe)
    steps = building.make_schedule(sgd, recipe, 10)
    seen = []
    for _ in range(40):
        seen.append(sgd.param_groups[1]["lr"])
        steps.step()
    warmup = 4  # a tenth of four epochs
    np.testing.assert_allclose(seen[warmup::10], [0.2 * rate for rate in rates])
    np.testing.assert_allclose(seen[:warmup], 0.2 * (0.01 + 0.99 * np.arange(4) / 4))


def test_drop_block_grows_epoch_by_epoch():
    rates = []

    class Watched(Trainer):
        def _compute(self, batches):
            blocks = [m for m in self.model.modules() if isinstance(m, nn.DropBlock2d)]
            assert len(blocks) == 2 and all(block.training for block in blocks)
            rates.extend(block.p for block in blocks)
            return super()._compute(batches)

    recipe = Recipe(**PLAIN | dict(epochs=3, batch_size=20, drop_block_rate=0.3))
    model = small_model(drop_block_rate=0.3)
    Watched(model, coloured(), None, recipe, transforms=(None, None), report=str).fit()
    assert sorted(set(rates)) == pytest.approx([0.0, 0.15, 0.3]) and rates == sorted(rates)


def test_the_average_is_what_is_validated_and_kept(tmp_path):
    trainer = make(tmp_path, epochs=1, batch_size=5, ema=0.9, lr=0.05, **PLAIN)
    (row,) = trainer.fit()
    best = load(tmp_path / "best.safetensors")
    same_bits(best, trainer.ema.weights())
    other = small_model()
    other.load_state_dict(best)
    found = evaluate(other, DataLoader(coloured(9, seed=1), 4, workers=0))
    assert found["loss"] == pytest.approx(row["val_loss"], rel=1e-6)
    assert not np.array_equal(best["fc.weight"], trainer.model.state_dict()["fc.weight"])
    same_bits(load(tmp_path / "last.safetensors", use_ema=True), best)


def test_evaluation_against_numpy():
    model, data = small_model(), coloured(7)
    model.layer1.training = True
    found = evaluate(model, DataLoader(data, 3, workers=0))
    assert model.layer1.training and not model.layer2.training
    model.eval()
    logits = np.asarray(model(data.images), np.float64)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    assert found["loss"] == pytest.approx(-logits[np.arange(7), data.labels].mean(), rel=1e-5)
    assert found["top1"] == pytest.approx(np.mean(logits.argmax(1) == data.labels))
    assert found["top5"] == 1.0 and found["images"] == 7
    with pytest.raises(ValueError, match="no images"):
        evaluate(model, [])


# --- stop and resume -----------------------------------------------------------------------------


class Stops(ArrayDataset):
    """Raises, or sends a signal, when it has been read so many times."""

    def __init__(self, data, reads, action):
        super().__init__(data.images, data.labels)
        self.reads, self.action = reads, action

    def __getitem__(self, index):
        self.reads -= 1
        if self.reads == 0:
            self.action()
        return super().__getitem__(index)


def fail():
    raise KeyError("a sample")


@pytest.mark.parametrize("reads", [6, 21, 35, 48])
def test_resume_after_an_exception(tmp_path, uninterrupted, reads):
    """In the second of two forwards of a step, when running statistics have changed already."""
    options = RICH | dict(workers=0)
    first = make(tmp_path, rich_model(), Stops(coloured(), reads, fail), **options)
    with pytest.raises(KeyError, match="a sample") as failure:
        first.fit()
    assert "is saved in" in "".join(failure.value.__notes__)
    second = make(tmp_path, small_model(drop_rate=0.2, drop_block_rate=0.3, drop_path_rate=0.2),
                  **RICH)  # fmt: skip
    lucid_c.random.seed(99)
    second.resume()
    assert 0 <= second.step < 9
    second.fit()
    compare(second, uninterrupted)
    assert [row["step"] for row in csv.DictReader(open(tmp_path / "log.csv"))] == list("123")


@pytest.mark.parametrize("number,reads", [(signal.SIGINT, 27), (signal.SIGTERM, 11)])
def test_resume_after_a_signal(tmp_path, uninterrupted, threads, number, reads):
    before = signal.getsignal(number)
    data = Stops(coloured(), reads, lambda: signal.raise_signal(number))
    first = make(tmp_path, rich_model(), data, **RICH | dict(workers=0))
    threads(2)
    with pytest.raises(TrainingInterrupted, match=r"after step \d \(epoch \d\)"):
        first.fit()
    assert signal.getsignal(number) is before
    threads(1)
    second = make(tmp_path, rich_model(), **RICH | dict(workers=2, prefetch=1))
    second.resume()
    second.fit()
    compare(second, uninterrupted)
    # the first one may go on as well, since nothing of the step that was left remains
    if number == signal.SIGINT:
        state = load_training_state(tmp_path / "last.safetensors")
        assert state["progress"]["epoch"] == 3


def test_go_on_in_the_same_process(uninterrupted):
    data = Stops(coloured(), 30, lambda: signal.raise_signal(signal.SIGINT))
    trainer = make(None, rich_model(), data, **RICH | dict(workers=0))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    trainer.fit()
    compare(trainer, uninterrupted)


def test_resume_after_a_signal_in_validation(tmp_path, uninterrupted):
    first = make(tmp_path, rich_model(), **RICH | dict(workers=0))
    stops = Stops(coloured(9, seed=1), 5, lambda: signal.raise_signal(signal.SIGINT))
    first.val_loader.dataset = stops
    with pytest.raises(TrainingInterrupted):
        first.fit()
    assert first.epoch == 0 and first.step == 3
    second = make(tmp_path, rich_model(), **RICH)
    second.resume()
    second.fit()
    compare(second, uninterrupted)


def test_a_step_is_finished_before_a_signal_counts(tmp_path):
    class Slow(optim.SGD):
        def step(self, closure=None):
            signal.raise_signal(signal.SIGINT)
            return super().step(closure)

    trainer = make(tmp_path, epochs=2, batch_size=5, **PLAIN)
    trainer.optimizer.__class__ = Slow
    with pytest.raises(TrainingInterrupted, match="after step 1 "):
        trainer.fit()
    assert load_training_state(tmp_path / "last.safetensors")["progress"]["step"] == 1


def test_resume_behind_a_last_batch_that_cannot_be_read(tmp_path):
    """The loader comes to its end within a step; the checkpoint of that step is of this epoch."""
    options = PLAIN | dict(epochs=2, batch_size=4, accumulate=2, skip_unreadable=True)
    data = coloured(16)
    order = [*DataLoader(ArrayDataset(data.images, np.arange(16)), 4, shuffle=True, workers=0)]

    class Holes(ArrayDataset):
        def __getitem__(self, index):
            if index in order[3][1]:
                raise ValueError("a hole")
            return super().__getitem__(index)

    class Copies(ArrayDataset):
        def __getitem__(self, index):
            if not (tmp_path / "two").exists():
                (tmp_path / "two").mkdir()
                last = (tmp_path / "one" / "last.safetensors").read_bytes()
                (tmp_path / "two" / "last.safetensors").write_bytes(last)
            return super().__getitem__(index)

    data = Holes(data.images, data.labels)
    one = make(tmp_path / "one", train=data, save_minutes=1e-9, **options)
    one.val_loader.dataset = Copies(*vars(coloured(9, seed=1)).values())
    with pytest.warns(SkippedSampleWarning):
        one.fit()
    two = make(tmp_path / "two", train=data, **options)
    two.resume()
    assert (two.epoch, two.step, one.step) == (0, 2, 4)
    with pytest.warns(SkippedSampleWarning):
        two.fit()
    same_bits(dict(two.model.state_dict()), dict(one.model.state_dict()))
    assert untimed(two.history) == untimed(one.history)


def test_what_does_not_fit_is_not_resumed(tmp_path):
    options = PLAIN | dict(epochs=2, batch_size=5)
    make(tmp_path, **options).fit()
    with pytest.raises(FileExistsError, match="a run in"):
        make(tmp_path, **options).fit()

    def refused(match, error=ValueError, folder=tmp_path, **changes):
        other = make(folder, **options | changes)
        before = other.model.state_dict()
        with pytest.raises(error, match=match):
            other.resume()
        same_bits(dict(other.model.state_dict()), dict(before))
        assert other.step == 0

    refused("no run to resume", FileNotFoundError, tmp_path / "none")
    refused("epochs 2, not 3", epochs=3)
    refused(r"momentum 0.9, not 0.5 \(and other seed\)", momentum=0.5, seed=7)
    other = make(tmp_path, **options)
    other.classes = ["r", "g", "x"]
    with pytest.raises(ValueError, match="class 2 'b', not 'x'"):
        other.resume()
    other = make(tmp_path, train=coloured(25), **options)
    with pytest.raises(ValueError, match="length 20"):
        other.resume()
    other = make(tmp_path, model=small_model(final_norm=True), **options)
    with pytest.raises(ValueError, match="norm"):
        other.resume()
    (tmp_path / "last.safetensors").write_bytes(b"x" * 100)
    refused("last.safetensors")
    make(tmp_path, **options).fit(overwrite=True)
    fine = make(tmp_path, **options | dict(workers=1, save_minutes=1.0, val_batch=2))
    fine.resume()
    assert fine.step == 8 and len(fine.fit()) == 2


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_loss_that_is_not_finite(tmp_path):
    data = coloured()
    data.images[:] = np.nan
    options = PLAIN | dict(epochs=1, batch_size=5)
    with pytest.warns(UserWarning, match=r"the loss is nan in step 1 \(epoch 1\)") as seen:
        make(train=data, val=False, **options).fit()
    assert len([w for w in seen if "the loss" in str(w.message)]) == 1
    trainer = make(tmp_path, train=data, val=False, stop_on_nan=True, **options)
    with pytest.raises(NonFiniteLoss, match="nan in step 1"):
        trainer.fit()
    state = load_training_state(tmp_path / "last.safetensors")
    assert state["progress"]["step"] == 0  # of before the run, and usable
    same_bits(dict(state["model"]), dict(small_model().state_dict()))


def test_a_full_disk(tmp_path, monkeypatch):
    real, full = trainer.save_training_state, [False]

    def write(path, **parts):
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        real(path, **parts)

    monkeypatch.setattr(trainer, "save_training_state", write)
    run = make(tmp_path, epochs=3, batch_size=5, **PLAIN)
    run.report = lambda line: full.__setitem__(0, True)  # after the first epoch
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(OSError, match="No space"):
            run.fit()
    assert sum("earlier one is kept" in str(w.message) for w in seen) == 2
    assert len(run.history) == 3  # it went on until the end
    assert load_training_state(tmp_path / "last.safetensors")["progress"]["step"] == 0
    full[0] = False
    run.save()
    assert load_training_state(tmp_path / "last.safetensors")["progress"]["step"] == 12


def test_one_value_per_channel_is_an_error():
    data = ArrayDataset(np.zeros((2, 3, 32, 32), np.float32), [0, 1])
    with pytest.raises((ValueError, RuntimeError), match="more than 1 value per channel"):
        make(train=data, val=False, epochs=1, batch_size=1, **PLAIN).fit()


def test_a_dataset_shorter_than_a_batch():
    with pytest.raises(ValueError, match="no batch: 20 samples, batch_size 21"):
        make(batch_size=21)


def test_labels_beyond_the_classes():
    data = coloured()
    data.labels[3] = 3
    with pytest.raises(ValueError, match="class"):
        make(train=data, epochs=1, batch_size=20).fit()
    with pytest.raises(ValueError, match="class"):
        make(train=data, epochs=1, batch_size=20, **PLAIN).fit()


# --- fine-tuning ---------------------------------------------------------------------------------


def test_freeze():
    model = small_model()
    before = {k: v.copy() for k, v in model.state_dict().items()}
    frozen = ("conv1", "bn1", "layer1", "layer2.0.conv1.weight")
    make(model=model, val=False, epochs=1, batch_size=5, freeze=frozen, **PLAIN).fit()
    for name, value in model.state_dict().items():
        fixed = name.startswith(("conv1.", "bn1.", "layer1.", "layer2.0.conv1."))
        assert np.array_equal(value, before[name]) == fixed, name
    assert not model.conv1.weight.requires_grad


@pytest.mark.parametrize("names,match", [(["layer"], "under 'layer'.*layer1"), (["fc.weigh"], "fc"),
                                         (["conv1", "bn1", "layer1", "layer2", "layer3", "layer4",
                                           "fc"], "no parameter is left")])  # fmt: skip
def test_freezing_what_is_not_there(names, match):
    model = small_model()
    with pytest.raises(ValueError, match=match):
        freeze(model, names)
    assert all(p.requires_grad for p in model.parameters())


def test_a_classifier_of_another_size(tmp_path):
    options = dict(stem_width=8, channels=(8, 8, 16, 16))
    model = lucid_c.create_model("resnet_18", 7, **options)
    model.save(tmp_path / "w.safetensors")
    lines = []
    same = load_weights("resnet_18", tmp_path / "w.safetensors", 7, lines.append, **options)
    assert same.num_classes == 7 and not lines
    same_bits(dict(same.state_dict()), dict(model.state_dict()))
    other = load_weights("resnet_18", tmp_path / "w.safetensors", 3, lines.append, **options)
    assert "has 7 classes; a new one with 3" in lines[0]
    x = np.zeros((1, 3, 32, 32), np.float32)
    assert other(x).shape == (1, 3) and other.num_classes == 3
    for name, value in model.state_dict().items():
        if not name.startswith("fc."):
            assert np.array_equal(other.state_dict()[name], value)


# --- what models drop ----------------------------------------------------------------------------

NAMES = ["resnet_18", "resnet_50", "resnet_200", "resnest_14", "resnext_50_32x4d"]


@pytest.mark.parametrize("name", NAMES)
def test_dropping_does_not_change_the_weights_names(name):
    options = dict(num_classes=3, init=False)
    plain = lucid_c.create_model(name, **options)
    model = lucid_c.create_model(name, drop_block_rate=0.1, drop_path_rate=0.2, **options)
    assert list(model.state_dict()) == list(plain.state_dict())
    blocks = [n for n, m in model.named_modules() if isinstance(m, nn.DropBlock2d)]
    assert {n.partition(".")[0] for n in blocks} == {"layer3", "layer4"}
    assert {model.get_submodule(n).block_size for n in blocks} == {3}
    per_block = 2 if name.startswith("resnest") else 1
    assert len(blocks) == per_block * (len(model.layer3) + len(model.layer4))
    paths = [b.drop_path.drop_prob for s in model.layers for b in s if hasattr(b, "drop_path")]
    total = sum(len(stage) for stage in model.layers)
    np.testing.assert_allclose(paths, 0.2 * np.arange(1, total) / (total - 1))


@pytest.mark.parametrize("name", ["resnet_18", "resnest_14"])
def test_dropping_in_training_and_not_in_eval(name):
    options = dict(num_classes=3, channels=(16, 16, 16, 16))
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    plain = lucid_c.create_model(name, **options)
    for rates in ({"drop_block_rate": 0.3}, {"drop_path_rate": 1.0}):
        model = lucid_c.create_model(name, **options, **rates)
        model.load_state_dict(plain.state_dict())
        assert np.array_equal(model(x), plain(x))
        model.train()
        trained = model(x).detach().numpy()
        for module in list(model.modules()):
            for child, drop in list(module.named_children()):
                if isinstance(drop, nn.DropBlock2d | nn.DropPath):
                    setattr(module, child, nn.Identity())
        model.load_state_dict(plain.state_dict())
        model.train()
        assert not np.allclose(trained, model(x).detach().numpy(), atol=1e-4)


def test_a_branch_that_is_always_left_out():
    """With rate 1 the last block is ReLU of its shortcut."""
    model = small_model(drop_path_rate=1.0)
    block = model.layer4[0].train()
    x = lucid_c.random.randn(2, 16, 6, 6)
    got = block(x).detach().numpy()
    block.downsample.train()
    np.testing.assert_allclose(got, np.maximum(block.downsample(x).detach().numpy(), 0), atol=1e-6)


@pytest.mark.parametrize("option", ["drop_block_rate", "drop_path_rate"])
def test_rates_that_cannot_be(option):
    for wrong in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            lucid_c.create_model("resnet_18", **{option: wrong})
    with pytest.raises(TypeError):
        lucid_c.create_model("resnet_18", **{option: "x"})

    class Own(nn.Module):
        expansion = 1

    with pytest.raises(ValueError, match=option):
        ResNet(Own, [1, 1, 1, 1], **{option: 0.1})
