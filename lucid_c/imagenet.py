# SPDX-License-Identifier: MIT
"""The 1000 classes of ImageNet-1k, and the best classes of a network's output."""

import functools

import numpy as np

NUM_CLASSES = 1000


@functools.cache
def _columns():
    """The WordNet ids and the names, by class index."""
    import csv
    from importlib.resources import files

    path = files("lucid_c").joinpath("assets", "imagenet_classes.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(row["wordnet_id"] for row in rows), tuple(row["name"] for row in rows)


def class_names():
    """The names of the classes, by class index.

    Returns
    -------
    list of str
        1000 names. Two of them occur twice: "crane" (bird, machine) and "maillot".
    """
    return list(_columns()[1])


def wordnet_ids():
    """The WordNet ids of the classes (``"n01440764"``), by class index; all differ.

    Returns
    -------
    list of str
    """
    return list(_columns()[0])


def class_name(index):
    """The name of one class.

    Parameters
    ----------
    index : int
        From 0 to 999.

    Returns
    -------
    str

    Raises
    ------
    IndexError
        If there is no such class.
    """
    if not 0 <= index < NUM_CLASSES:
        raise IndexError(f"class index {index} is not in 0 to {NUM_CLASSES - 1}")
    return _columns()[1][index]


def topk(logits, k=5, names=None):
    """The most probable classes of each image.

    Parameters
    ----------
    logits : array_like
        Shape (N, classes), or (classes,) for one image.
    k : int
        How many classes; all of them where there are fewer.
    names : sequence of str, optional
        One name per class. By default ImageNet's names where there are 1000 classes, else the
        indices as text.

    Returns
    -------
    list of list of (int, str, float)
        For each image (index, name, probability), the most probable class first, equal ones by
        index. The probabilities are the softmax over all classes, in float64. NaN logits come
        last, and make the probabilities of their image NaN; infinite ones share 1.
    """
    logits = np.asarray(logits)
    if logits.dtype.kind not in "fiu":
        raise TypeError(f"logits must be real numbers, not {logits.dtype}")
    if logits.ndim not in (1, 2) or logits.shape[-1] == 0:
        raise ValueError(f"logits must have shape (N, classes) or (classes,), not {logits.shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    classes = logits.shape[-1]
    if names is None:
        names = _columns()[1] if classes == NUM_CLASSES else range(classes)
    elif len(names) != classes:
        raise ValueError(f"{len(names)} names for {classes} classes")
    result = []
    for row in np.atleast_2d(logits).astype(np.float64):
        best = np.argsort(-row, kind="stable")[:k].tolist()
        probabilities = _softmax(row)
        result.append([(i, str(names[i]), float(probabilities[i])) for i in best])
    return result


def _softmax(row):
    largest = row.max()  # NaN if there is one
    if largest == np.inf:
        weights = (row == np.inf).astype(np.float64)
    elif np.isfinite(largest):
        weights = np.exp(row - largest)
    else:
        return np.full_like(row, np.nan)
    return weights / weights.sum()
