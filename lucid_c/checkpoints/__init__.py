# SPDX-License-Identifier: MIT
"""Read and write checkpoints: safetensors, files of ``torch.save``, and ``.npz``.

No code in a file ever runs, and nothing is allocated on the word of a file alone: a broken or
hostile file gives a `ValueError`.
"""

from .checkpoint import Checkpoint, open_checkpoint, resolve
from .entry import Entry
from .keys import KeyMap, map_keys
from .loading import LoadResult, load, load_into
from .placeholder import Placeholder
from .safetensors_file import save
from .training_state import load_training_state, save_training_state

__all__ = [
    "Checkpoint",
    "Entry",
    "KeyMap",
    "LoadResult",
    "Placeholder",
    "load",
    "load_into",
    "load_training_state",
    "map_keys",
    "open_checkpoint",
    "resolve",
    "save",
    "save_training_state",
]
