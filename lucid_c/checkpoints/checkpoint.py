# SPDX-License-Identifier: MIT
"""Open a checkpoint of any known format as a mapping of names to entries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .entry import Entry, SharedFile
from .placeholder import Placeholder
from .safetensors_file import read_safetensors
from .state_dict import find_state_dict, strip_prefixes

# The readers of other formats than safetensors are imported when such a file is opened.
if TYPE_CHECKING:
    from .zip_file import ZipArchive

_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_HUB = "hf-hub:"
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


class Checkpoint(Mapping[str, Entry]):
    """An open checkpoint: its weights by name, read only when asked for.

    Made by `open_checkpoint`. Use it in a ``with`` statement, or call `close`.

    Attributes
    ----------
    path : str
        The file.
    format : str
        ``"safetensors"``, ``"torch"`` (zip), ``"torch-legacy"``, ``"pickle"`` or ``"npz"``.
    metadata : dict of str to str
        Texts in the header of a safetensors file.
    tree : object
        Everything in the file as plain containers, with an `Entry` for each tensor and a
        `Placeholder` for each unknown object.
    unreadable : dict of str to Placeholder
        Names among the weights whose value depends on an unknown global.
    payload : int
        How many bytes of data the file can hold, decompressed.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.format = ""
        self.metadata: dict[str, str] = {}
        self.tree: Any = None
        self.unreadable: dict[str, Placeholder] = {}
        self._entries: dict[str, Entry] = {}
        self._archive: ZipArchive | None = None
        self._file = SharedFile(path)
        self.payload = self._file.size

    def _read_tree(self) -> None:
        """Find out the format by the first bytes, and read all but the tensors' values."""
        file = self._file
        head = file.read_at(0, 512)
        if head[:4] == b"PK\x03\x04":
            from .zip_file import ZipArchive

            self._archive = ZipArchive(file)
            self.payload = max(self.payload, self._archive.payload)
            self._read_archive(self._archive)
        elif self._is_safetensors(head):
            self.format = "safetensors"
            self.tree, self.metadata = read_safetensors(file)
        elif head[:2] in _PICKLES:
            from .torch_file import read_pickle

            self.tree, is_torch = read_pickle(file)
            self.format = "torch-legacy" if is_torch else "pickle"
        else:
            raise ValueError(_describe_unknown(head))

    def _is_safetensors(self, head: bytes) -> bool:
        if head[:2] not in _PICKLES:
            return head[8:9] == b"{" or self.path.endswith(".safetensors")
        # the length of the header may begin like a pickle
        length = int.from_bytes(head[:8], "little")
        return head[8:9] == b"{" and length <= self._file.size - 8

    def _read_archive(self, archive: ZipArchive) -> None:
        pickles = [name for name in archive.members if ("/" + name).endswith("/data.pkl")]
        if len(pickles) == 1:
            from .torch_file import read_torch_zip

            self.format = "torch"
            self.tree = read_torch_zip(archive, pickles[0].removesuffix("data.pkl"))
        elif not pickles and any(name.endswith(".npy") for name in archive.members):
            from .npz_file import read_npz

            self.format = "npz"
            self.tree = read_npz(archive)
        else:
            raise ValueError("the zip archive is neither a torch.save nor an .npz file")

    def _select(self, use_ema: bool = False) -> None:
        """Make the weights in `tree` the entries of this mapping."""
        if "training_state" in self.metadata:
            found = self._part("ema.weights." if use_ema else "model.")
        elif self.metadata.get("producer") == "lucid_c" and not use_ema:
            found = self.tree  # our own file: every name is as its model wants it
        else:
            found = strip_prefixes(find_state_dict(self.tree, use_ema))
        self._entries = {k: v for k, v in found.items() if isinstance(v, Entry)}
        self.unreadable = {k: v for k, v in found.items() if isinstance(v, Placeholder)}

    def _part(self, prefix: str) -> dict[str, Entry]:
        """Return the tensors of one part of a training state (see `save_training_state`)."""
        found = {k.removeprefix(prefix): v for k, v in self.tree.items() if k.startswith(prefix)}
        if not found:
            raise ValueError(f"the training state has no weights under {prefix[:-1]!r}")
        return found

    def __getitem__(self, name: str) -> Entry:
        if name in self.unreadable:
            raise ValueError(f"{self.path}: {depends_on(name, self.unreadable[name])}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __repr__(self) -> str:
        return f"<Checkpoint {self.path!r}: {self.format}, {len(self)} tensors>"

    def close(self) -> None:
        """Close the file; entries cannot be read any more."""
        if self._archive is not None:
            self._archive.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def depends_on(name: str, unknown: Placeholder) -> str:
    """Say why the value of `name` cannot be had."""
    return f"{name!r} depends on {unknown.name}, which is not built"


def _describe_unknown(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if head[257:262] == b"ustar":
        return "written by PyTorch before 0.1.10 (tar); load and save it again with PyTorch 1.x"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; fetch it with git lfs pull"
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "a web page, not a checkpoint; the download went wrong"
    return "not a safetensors, torch.save or .npz file"


def open_tree(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a file and read its `tree`, without choosing the weights in it."""
    path = resolve(path)
    try:
        checkpoint = Checkpoint(path)
        try:
            checkpoint._read_tree()
        except BaseException:
            checkpoint.close()
            raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return checkpoint


def open_checkpoint(path: str | os.PathLike[str], use_ema: bool = False) -> Checkpoint:
    """Open a checkpoint; its tensors are read one by one, when asked for.

    Parameters
    ----------
    path : str or os.PathLike
        A ``.safetensors`` file, a file of ``torch.save`` (``.pth``, ``.pt``, ``.pth.tar``, ...;
        zip or legacy form) or an ``.npz`` file, recognised by its content; or what `resolve`
        takes.
    use_ema : bool, optional
        Take the averaged weights of a training checkpoint, not those under ``state_dict`` or
        ``model``.

    Returns
    -------
    Checkpoint
        Mapping of names to entries. Prefixes such as ``module.`` that all names share are gone.

    Raises
    ------
    ValueError
        If the file is not a checkpoint, or is truncated, broken or hostile.

    Examples
    --------
    >>> with open_checkpoint("resnet50.pth") as checkpoint:  # doctest: +SKIP
    ...     print(checkpoint["conv1.weight"].shape)
    (64, 3, 7, 7)
    """
    checkpoint = open_tree(path)
    try:
        checkpoint._select(use_ema)
    except ValueError as error:
        checkpoint.close()
        raise ValueError(f"{checkpoint.path}: {error}") from None
    return checkpoint


def resolve(path_or_url: str | os.PathLike[str]) -> str:
    """Return the path of a checkpoint, after downloading it where that is asked for.

    Parameters
    ----------
    path_or_url : str or os.PathLike
        A path, or ``hf-hub:owner/name[@revision][/file]`` for a file on the Hugging Face Hub.

    Returns
    -------
    str
        Path of a file on this machine.
    """
    text = os.fspath(path_or_url)
    if not text.startswith(_HUB):
        if text.startswith(("http://", "https://")):
            raise ValueError(f"{text}: download the file first, or use {_HUB}owner/name/file")
        return text
    owner, _, rest = text.removeprefix(_HUB).partition("/")
    name, _, file = rest.partition("/")
    name, _, revision = name.partition("@")
    if not owner or not name:
        raise ValueError(f"{text}: expected {_HUB}owner/name[@revision][/file]")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import EntryNotFoundError
    except ImportError:
        raise ImportError(f"{text} needs huggingface_hub: pip install 'lucid_c[weights]'") from None
    for candidate in (file,) if file else _HUB_FILES:
        try:
            return hf_hub_download(f"{owner}/{name}", candidate, revision=revision or None)
        except EntryNotFoundError:
            continue
    raise FileNotFoundError(f"{text}: no such file on the hub")
