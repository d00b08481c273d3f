# SPDX-License-Identifier: MIT
"""The training loop: epochs of steps, validation, logs, checkpoints; stop and resume."""

import contextlib
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import nn, random, set_num_threads
from .._files import replacing
from ..checkpoints import load_training_state, save, save_training_state
from ..data import DataLoader, RunningMean, stack, topk_accuracy
from ..logs import CSVLogger, TensorBoardLogger
from ..nn import functional as F
from ..nn.utils import clip_grad_norm_, clip_grad_value_
from ..optim import EMA
from . import building
from .display import Bar, duration, progress_bar
from .recipe import Recipe
from .signals import Signals
from .validation import evaluate

__all__ = ["NonFiniteLoss", "Trainer", "TrainingInterrupted"]

LAST, BEST = "last.safetensors", "best.safetensors"


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped a training; its state is saved if it has a folder."""


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite, and the recipe has ``stop_on_nan``."""


class Trainer:
    """Trains a model by a recipe.

    Parameters
    ----------
    model : Module
        From images (N, C, H, W) to logits (N, K). It is trained in place; in eval mode afterwards.
    train : Dataset
        See `lucid_c.data`; labels are class indices, or class probabilities.
    val : Dataset, optional
        For validation after each epoch.
    recipe : Recipe, optional
        The numbers; default: the published ones.
    folder : str or path, optional
        Where ``last.safetensors`` (the whole state), ``best.safetensors`` (the weights of the
        epoch with the highest ``val_top1``), ``log.csv``, event files for TensorBoard,
        ``classes.txt`` and ``curves.png`` go. Without a folder nothing is written.
    transforms : (callable, callable), optional
        From the image of a dataset to an array (C, H, W), for training and for validation; None
        for no transform. Default: those of the recipe and of the model's ``config``, for pictures.
    classes : sequence of str, optional
        Names of the classes; a run can be resumed with the same classes only.
    report : callable, optional
        Called with one line of text after each epoch; default: `print`.
    progress : bool, optional
        Whether to show a progress bar (needs tqdm); default: on a terminal.

    Attributes
    ----------
    epoch, step : int
        How many epochs and steps are done.
    history : list of dict
        The figures of each epoch: ``epoch`` (from 0), ``lr`` (at its end), ``train_loss``,
        ``train_top1``, ``val_loss``, ``val_top1``, ``val_top5``, ``images_per_second``,
        ``epoch_seconds``. Accuracies are from 0 to 1.
    best : dict or None
        ``epoch`` and ``top1`` of the best epoch.

    Notes
    -----
    The last batch of an epoch is left out if it is not full. Weights, running statistics, the
    order of the images, augmentation and dropout of a run that was stopped and resumed are the
    same bits as those of one that was not, for any number of threads and workers.

    Examples
    --------
    >>> trainer = Trainer(model, train, val, Recipe(epochs=20), "run")  # doctest: +SKIP
    >>> history = trainer.fit()  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        train: Any,
        val: Any = None,
        recipe: Recipe | None = None,
        folder: str | os.PathLike[str] | None = None,
        *,
        transforms: tuple[Callable | None, Callable | None] | None = None,
        classes: Sequence[str] | None = None,
        report: Callable[[str], None] = print,
        progress: bool | None = None,
    ) -> None:
        self.model = model
        self.recipe = recipe = Recipe() if recipe is None else recipe
        self.folder = None if folder is None else os.fspath(folder)
        self.classes = None if classes is None else list(classes)
        self.report, self.progress = report, progress
        if recipe.plot:
            from . import plot  # noqa: F401 - to know now whether it can be imported
        if transforms is None:
            transforms = building.make_transforms(model, recipe)
        self.loader = self._loader(train, recipe.batch_size, transforms[0], training=True)
        self.val_loader = None
        if val is not None:
            size = recipe.val_batch or recipe.batch_size
            self.val_loader = self._loader(val, size, transforms[1], training=False)
        self.steps_per_epoch = math.ceil(len(self.loader) / recipe.accumulate)
        self._frozen = building.freeze(model, recipe.freeze)
        self.optimizer = building.make_optimizer(model, recipe)
        self.schedule = building.make_schedule(self.optimizer, recipe, self.steps_per_epoch)
        self.ema = None if recipe.ema is None else EMA(model, recipe.ema, recipe.ema_warmup)
        if recipe.threads is not None:
            set_num_threads(recipe.threads)
        self.epoch = self.step = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self._loss, self._top1 = RunningMean(), RunningMean()
        self._signals = Signals()
        self._warned = -1  # the epoch of the last warning about the loss
        self._logger: TensorBoardLogger | None = None
        self._resumed = False
        self._whole = True  # not in the middle of `_update`
        self._saved_at = time.monotonic()
        self._mark()

    def _loader(self, data: Any, size: int, transform: Any, training: bool) -> DataLoader:
        recipe = self.recipe
        collate: Any = stack
        if training and (recipe.mixup or recipe.cutmix):
            collate = building.Mix(self._num_classes(), recipe.mixup, recipe.cutmix)
        return DataLoader(
            data,
            size,
            shuffle=training,
            drop_last=training,
            transform=transform,
            workers=recipe.workers,
            worker_kind=recipe.worker_kind,
            seed=recipe.seed,
            prefetch=recipe.prefetch,
            on_error="skip" if recipe.skip_unreadable else "raise",
            collate=collate,
        )

    def _num_classes(self) -> int:
        head = getattr(self.model, "fc", None)
        count = getattr(head, "out_features", None) or getattr(self.model, "num_classes", None)
        if count is None:
            raise ValueError("mixup and cutmix need a model with an attribute num_classes")
        return count

    # --- the loop

    def fit(self, overwrite: bool = False) -> list[dict[str, Any]]:
        """Train until the last epoch of the recipe.

        Parameters
        ----------
        overwrite : bool, optional
            Whether a run that is in the folder already may be replaced.

        Returns
        -------
        list of dict
            `history`.

        Raises
        ------
        TrainingInterrupted
            After Ctrl-C or SIGTERM; the state after the last whole step is saved.
        NonFiniteLoss
            If the loss is not finite and the recipe has ``stop_on_nan``.
        FileExistsError
            If the folder has a run already; see `resume`.
        OSError
            If the last checkpoint cannot be written; earlier ones that cannot are a warning.
        """
        if not (self._resumed or overwrite) and self._path(LAST, exists=True):
            raise FileExistsError(
                f"there is a run in {self.folder!r} already; resume it, or choose another folder"
            )
        with contextlib.ExitStack() as stack, self._signals:
            try:
                with self._signals.held():
                    self._open_logs(stack)
                while self.epoch < self.recipe.epochs:
                    self._run_epoch()
            except BaseException as error:
                with self._signals.held():
                    self._leave(error)
                raise
            finally:
                self.model.eval()
        return self.history

    def _run_epoch(self) -> None:
        recipe = self.recipe
        self.loader.set_epoch(self.epoch)
        self._set_drop_block(recipe.drop_block_at(self.epoch))
        self.model.train()
        for module in self._frozen:
            module.training = False
        title = f"epoch {self.epoch + 1}/{recipe.epochs}"
        first, start = self._mark_at["loader"]["batch"], time.monotonic()
        with (
            contextlib.closing(iter(self.loader)) as batches,
            progress_bar(title, len(self.loader), first, self.progress) as bar,
        ):
            while figures := self._compute(batches):
                with self._signals.held():
                    self._update(figures)
                    bar.step(sum(images for *_, images in figures), len(figures))
                    bar.note(lambda: self._status(bar))
                    if time.monotonic() - self._saved_at > 60 * recipe.save_minutes:
                        self._save_or_warn()
        val = self._validate(title)
        with self._signals.held():
            self._finish_epoch(val, bar.rate, time.monotonic() - start)

    def _compute(self, batches: Any) -> list[tuple[float, float, int]]:
        """Compute the gradients of one step; loss, accuracy and images of each batch."""
        left = len(self.loader) - self._mark_at["loader"]["batch"]
        count = min(self.recipe.accumulate, left)
        figures = []
        self.optimizer.zero_grad()
        for _ in range(count):
            if (batch := next(batches, None)) is None:
                break
            images, labels = batch
            logits = self.model(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
            value = loss.item()
            if not math.isfinite(value):
                self._not_finite(value)
            loss.backward(np.float32(1 / count))
            (top1,) = topk_accuracy(logits.detach().numpy(), labels, (1,))
            figures.append((value, top1, len(images)))
        return figures

    def _not_finite(self, value: float) -> None:
        text = f"the loss is {value} in step {self.step + 1} (epoch {self.epoch + 1})"
        if self.recipe.stop_on_nan:
            raise NonFiniteLoss(text)
        if self._warned != self.epoch:  # once in an epoch
            self._warned = self.epoch
            warnings.warn(text, stacklevel=2)

    def _update(self, figures: list[tuple[float, float, int]]) -> None:
        """One step of the optimizer and of all that counts steps."""
        recipe, self._whole = self.recipe, False
        lr = self.optimizer.param_groups[0]["lr"]
        if recipe.clip_value is not None:
            clip_grad_value_(self.model.parameters(), recipe.clip_value)
        if recipe.clip_norm is not None:
            clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        if self.ema is not None:
            self.ema.update()
        self.step += 1
        for loss, top1, images in figures:
            self._loss.update(loss, images)
            self._top1.update(top1, images)
        self._mark()
        self._whole = True
        if self.step % recipe.log_every == 0:
            self._log_events({"train/loss": figures[-1][0], "train/lr": lr}, self.step)

    def _validate(self, title: str) -> dict[str, float]:
        if self.val_loader is None:
            return {}
        with progress_bar(f"{title}, validation", len(self.val_loader), 0, self.progress) as bar:
            if self.ema is None:
                return evaluate(self.model, self.val_loader, bar.step)
            with self._signals.held():
                self.ema.apply()
            try:
                return evaluate(self.model, self.val_loader, bar.step)
            finally:
                with self._signals.held():
                    self.ema.restore()

    def _finish_epoch(self, val: dict[str, float], rate: float, seconds: float) -> None:
        row = {
            "epoch": self.epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": self._loss.value,
            "train_top1": self._top1.value,
        }
        row |= {f"val_{name}": val[name] for name in ("loss", "top1", "top5") if val}
        row |= {"images_per_second": rate, "epoch_seconds": seconds}
        self.history.append(row)
        better = val and (self.best is None or val["top1"] > self.best["top1"])
        if better:
            self.best = {"epoch": self.epoch, "top1": val["top1"]}
        self.epoch += 1
        self._loss.reset()
        self._top1.reset()
        self.loader.set_epoch(self.epoch)
        self._mark()
        left = (self.recipe.epochs - self.epoch) * seconds
        self.report(_line(row, self.recipe.epochs, left))
        self._log_epoch(row)
        if better:
            self._quietly(BEST, self._save_best)
        if self.epoch == self.recipe.epochs:
            self.save()
        else:
            self._save_or_warn()

    def _set_drop_block(self, rate: float) -> None:
        for module in list(self.model.modules()):
            for name, child in list(module.named_children()):
                if type(child) is nn.DropBlock2d:
                    setattr(module, name, nn.DropBlock2d(rate, child.block_size))

    def _status(self, bar: Bar) -> str:
        done = self.step / (self.steps_per_epoch * self.recipe.epochs)
        images = len(self.loader) * self.recipe.batch_size * self.recipe.epochs * (1 - done)
        return (
            f"loss {self._loss.value:.3f}, top-1 {100 * self._top1.value:.1f} %, "
            f"{bar.rate:.1f} images/s, {duration(images / bar.rate)} left in all"
        )

    # --- stop and resume

    def _mark(self) -> None:
        """Note what a forward changes, to be able to go back to the end of the last step."""
        place = self.loader.state_dict()
        if place["epoch"] != self.epoch:  # the loader is at the end of the epoch, and has gone on
            place |= {"epoch": self.epoch, "batch": len(self.loader)}
        self._mark_at = {
            "buffers": {name: buffer.numpy() for name, buffer in self.model.named_buffers()},
            "random": random.get_state(),
            "loader": place,
        }

    def _roll_back(self) -> None:
        """Undo what has been done since `_mark`."""
        if self.ema is not None:
            with contextlib.suppress(RuntimeError):  # not applied
                self.ema.restore()
        self.optimizer.zero_grad()
        self.model.load_state_dict(self._mark_at["buffers"], strict=False)
        random.set_state(self._mark_at["random"])
        self.loader.load_state_dict(self._mark_at["loader"])

    def _leave(self, error: BaseException) -> None:
        """Save what can be saved when the loop ends by an error; raise it if it is Ctrl-C."""
        if isinstance(error, NonFiniteLoss | OSError) and self.epoch == self.recipe.epochs:
            return
        if not self._whole:
            error.add_note("a step was half done: the earlier checkpoint is the last one")
            return
        self._roll_back()
        where = f"after step {self.step} (epoch {min(self.epoch + 1, self.recipe.epochs)})"
        if isinstance(error, KeyboardInterrupt):
            self.save()
            raise TrainingInterrupted(f"interrupted {where}") from error
        if self.folder is not None and not isinstance(error, NonFiniteLoss):
            try:
                self.save()
                error.add_note(f"the state {where} is saved in {self._path(LAST)}")
            except OSError as problem:
                error.add_note(f"the state {where} could not be saved: {problem}")

    def save(self) -> None:
        """Write the whole state to ``last.safetensors`` in the folder, if there is one."""
        if self.folder is None:
            return
        os.makedirs(self.folder, exist_ok=True)
        parts = self._parts() | {"loader": self._mark_at["loader"]}
        parts["progress"] = {
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "best": self.best,
            "means": [[mean.total, mean.weight] for mean in (self._loss, self._top1)],
        }
        parts |= {"recipe": self.recipe.to_dict(), "classes": self.classes}
        try:
            save_training_state(self._path(LAST), **parts)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), self._path(LAST)) from error
        self._saved_at = time.monotonic()

    def _parts(self) -> dict[str, Any]:
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "random": random,
            "loader": self.loader,
        }
        return parts if self.ema is None else parts | {"ema": self.ema}

    def resume(self) -> None:
        """Go on with the run in the folder: `fit` continues after its last checkpoint.

        Raises
        ------
        FileNotFoundError
            If there is no run in the folder.
        ValueError
            If it has another recipe (options that do not change the result may differ), other
            classes, other data or another model; nothing is changed then.
        """
        path = self._path(LAST, exists=True)
        if path is None:
            raise FileNotFoundError(f"there is no run to resume in {self.folder!r}")
        state = load_training_state(path)
        missing = {"recipe", "progress", "classes", *self._parts()} - {*state}
        saved = Recipe.from_dict(state.get("recipe", {}), path)
        if wrong := self.recipe.differences(saved):
            was, now = getattr(saved, wrong[0]), getattr(self.recipe, wrong[0])
            raise ValueError(
                f"{path}: the run has {wrong[0]} {was!r}, not {now!r}"
                + (f" (and other {', '.join(wrong[1:])})" if wrong[1:] else "")
            )
        if missing:
            raise ValueError(f"{path}: not the state of a Trainer, since it has no {min(missing)}")
        if state["classes"] != self.classes:
            raise ValueError(f"{path}: the run has {_difference(state['classes'], self.classes)}")
        load_training_state(path, **self._parts())
        progress = state["progress"]
        self.epoch, self.step = progress["epoch"], progress["step"]
        self.history, self.best = progress["history"], progress["best"]
        for mean, (total, weight) in zip((self._loss, self._top1), progress["means"], strict=True):
            mean.total, mean.weight = total, weight
        self._resumed = True
        self._mark()

    # --- files

    def _path(self, name: str, exists: bool = False) -> str | None:
        path = None if self.folder is None else os.path.join(self.folder, name)
        return path if path is None or not exists or os.path.exists(path) else None

    def _save_or_warn(self) -> None:
        self._quietly(LAST, self.save)
        self._saved_at = time.monotonic()  # not again after every step if the disk is full

    def _quietly(self, name: str, action: Callable[[], None]) -> None:
        """Write a file that the training can do without; a failure is a warning."""
        try:
            action()
        except OSError as error:
            warnings.warn(
                f"{name} could not be written, an earlier one is kept: {error}", stacklevel=2
            )

    def _save_best(self) -> None:
        if self.folder is not None:
            weights = self.model.state_dict() if self.ema is None else self.ema.weights()
            save(self._path(BEST), weights)

    def _open_logs(self, stack: contextlib.ExitStack) -> None:
        """Begin the files in the folder; a run that goes on writes its log anew."""
        self._logger = None
        if self.folder is None:
            self._resumed = True
            return
        if self._resumed:
            os.makedirs(self.folder, exist_ok=True)
        else:
            self.save()  # a folder that cannot be written is known now, and a kill can be resumed
        self._resumed = True
        if self.classes is not None:
            with (
                replacing(self._path("classes.txt")) as temporary,
                open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file,
            ):
                file.writelines(f"{name}\n" for name in self.classes)
        if self.recipe.tensorboard:
            self._logger = stack.enter_context(TensorBoardLogger(self.folder))
        self._csv = stack.enter_context(CSVLogger(self._path("log.csv")))
        for row in self.history:
            self._csv.log({k: v for k, v in row.items() if k != "epoch"}, row["epoch"] + 1)

    def _log_epoch(self, row: dict[str, Any]) -> None:
        if self.folder is None:
            return
        figures = {name: value for name, value in row.items() if name != "epoch"}
        self._quietly("log.csv", lambda: self._csv.log(figures, row["epoch"] + 1))
        self._log_events({f"epoch/{k}": v for k, v in figures.items()}, row["epoch"] + 1)
        if self.recipe.plot:
            from .plot import save_plot

            title = str(self.recipe.model or type(self.model).__name__)
            self._quietly(
                "curves.png", lambda: save_plot(self.history, self._path("curves.png"), title)
            )

    def _log_events(self, values: dict[str, float], step: int) -> None:
        if self._logger is not None:
            self._quietly("the event file", lambda: self._logger.log(values, step))


def _line(row: dict[str, Any], epochs: int, left: float) -> str:
    """The figures of an epoch in one line."""
    text = f"epoch {row['epoch'] + 1}/{epochs}: loss {row['train_loss']:.4f}, "
    text += f"top-1 {100 * row['train_top1']:.2f} %"
    if "val_loss" in row:
        text += f"; validation loss {row['val_loss']:.4f}, top-1 {100 * row['val_top1']:.2f} %, "
        text += f"top-5 {100 * row['val_top5']:.2f} %"
    text += f"; {row['images_per_second']:.1f} images/s"
    return text + (f", {duration(left)} left" if left else "")


def _difference(saved: list[str] | None, given: list[str] | None) -> str:
    """How the classes of a run differ from those of the data."""
    saved, given = saved or [], given or []
    if len(saved) != len(given):
        return f"{len(saved)} classes, not {len(given)}"
    place = next(i for i, (a, b) in enumerate(zip(saved, given, strict=True)) if a != b)
    return f"class {place} {saved[place]!r}, not {given[place]!r}"
