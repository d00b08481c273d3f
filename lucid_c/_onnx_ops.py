"""Every op of a recording as standard ONNX operators.

A writer function takes the graph and a node and returns the name of the result. Shapes are those of
the recording; a size that follows the batch size is written so that any batch size works.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .onnx_export import Graph, Node

Writer = Callable[["Graph", "Node"], str]

_LAST = np.iinfo(np.int64).max  # where a slice ends that goes on to the end
_UNARY = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "neg": "Neg",
    "abs": "Abs",
    "tanh": "Tanh",
}
_BINARY = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "maximum": "Max",
    "minimum": "Min",
    "pow": "Pow",
}
_REDUCE = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin"}


def conv2d(g: "Graph", node: "Node") -> str:
    a = node.attr
    top, bottom, left, right = a["pad"]
    return g.add(
        "Conv",
        node.inputs,
        kernel_shape=list(g.shape(node.ins[1])[2:]),
        strides=a["stride"],
        pads=[top, left, bottom, right],
        dilations=a["dilation"],
        group=a["groups"],
    )


def linear(g: "Graph", node: "Node") -> str:
    x, w, *bias = node.inputs
    if len(g.shape(node.ins[0])) == 2:
        return g.add("Gemm", [x, w, *bias], transB=1)
    y = g.add("MatMul", [x, g.add("Transpose", [w], perm=[1, 0])])
    return g.add("Add", [y, *bias]) if bias else y


def matmul(g: "Graph", node: "Node") -> str:
    return g.add("MatMul", node.inputs)


def batch_norm(g: "Graph", node: "Node") -> str:
    x, *rest = node.inputs
    if not node.attr["affine"]:
        channels = g.shape(node.ins[0])[1]
        rest = [g.floats(np.ones(channels)), g.floats(np.zeros(channels)), *rest]
    return g.add("BatchNormalization", [x, *rest], epsilon=node.attr["eps"])


def unary(g: "Graph", node: "Node") -> str:
    kind, lo, hi = node.attr["kind"], node.attr["lo"], node.attr["hi"]
    if kind != "clamp":
        return g.add(_UNARY[kind], node.inputs)
    (x,) = node.inputs
    if lo <= hi:
        low = g.floats(lo) if lo > -math.inf else ""
        return g.add("Clip", [x, low, g.floats(hi)] if hi < math.inf else [x, low])
    return g.add("Min", [g.add("Max", [x, g.floats(lo)]), g.floats(hi)])


def binary(g: "Graph", node: "Node") -> str:
    return g.add(_BINARY[node.attr["kind"]], node.inputs)


def softmax(g: "Graph", node: "Node") -> str:
    kind = "LogSoftmax" if node.attr["log"] else "Softmax"
    if g.shape(node.ins[0]):
        return g.add(kind, node.inputs, axis=node.attr["axis"])
    vector = g.add("Reshape", [*node.inputs, g.ints([1])])
    return g.add("Reshape", [g.add(kind, [vector], axis=0), g.ints([])])


def _plane(g: "Graph", node: "Node") -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width of a pool's input and output."""
    x, y = g.sizes(node.ins[0])[2:], g.sizes(node.outs[0])[2:]
    if not all(isinstance(n, int) for n in (*x, *y)):
        raise node.cannot("the height or width follows the batch size")
    return tuple(x), tuple(y)


def pool2d(g: "Graph", node: "Node") -> str:
    (x,) = node.inputs
    a = node.attr
    (h, w), (oh, ow) = _plane(g, node)
    before, kernel, stride = a["pad"], a["kernel"], a["stride"]
    reach = [d * (k - 1) + 1 for d, k in zip(a["dilation"], kernel, strict=True)]
    after = []  # what the windows reach, which with ceil_mode is more than the padding
    for size, out, p, s, r in zip((h, w), (oh, ow), before, stride, reach, strict=True):
        after.append(max(p, (out - 1) * s + r - size - p))
    more = any(e > p for e, p in zip(after, before, strict=True))
    pads = [*before, *after]
    where = {"kernel_shape": kernel, "strides": stride}
    if a["kind"] == "max":
        if a["pad_with_zeros"]:
            x, pads = _padded(g, x, pads), [0, 0, 0, 0]
        return g.add("MaxPool", [x], pads=pads, dilations=a["dilation"], **where)
    if not a["divisor"] and not (more and a["count_include_pad"]):
        whole = int(a["count_include_pad"])
        return g.add("AveragePool", [x], pads=pads, count_include_pad=whole, **where)
    # Sums of windows, then a divisor of its own for every output.
    mean = g.add("AveragePool", [_padded(g, x, pads)], pads=[0, 0, 0, 0], **where)
    counts = [
        _counts(out, s, k, size + 2 * p)
        for size, out, p, s, k in zip((h, w), (oh, ow), before, stride, kernel, strict=True)
    ]
    divisor = np.full((oh, ow), a["divisor"]) if a["divisor"] else np.outer(*counts)
    return g.add("Mul", [mean, g.floats(kernel[0] * kernel[1] / divisor)])


def _padded(g: "Graph", x: str, pads: Sequence[int]) -> str:
    if not any(pads):
        return x
    top, left, bottom, right = pads
    return g.add("Pad", [x, g.ints([0, 0, top, left, 0, 0, bottom, right]), g.floats(0.0)])


def _counts(out: int, stride: int, kernel: int, size: int) -> np.ndarray:
    """How many elements of the padded axis each window has."""
    first = np.arange(out) * stride
    return np.minimum(first + kernel, size) - first


def adaptive_pool2d(g: "Graph", node: "Node") -> str:
    (x,) = node.inputs
    largest = node.attr["kind"] == "max"
    sizes, outs = _plane(g, node)
    if outs == (1, 1):
        return g.add("GlobalMaxPool" if largest else "GlobalAveragePool", [x])
    if not any(size % out for size, out in zip(sizes, outs, strict=True)):
        kernel = [size // out for size, out in zip(sizes, outs, strict=True)]
        return g.add(
            "MaxPool" if largest else "AveragePool", [x], kernel_shape=kernel, strides=kernel
        )
    windows = [
        [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
        for size, out in zip(sizes, outs, strict=True)
    ]
    if largest:
        for axis, bounds in zip((2, 3), windows, strict=True):
            parts = [_slice(g, x, [begin], [end], [axis]) for begin, end in bounds]
            x = g.add(
                "Concat", [_reduce(g, "ReduceMax", p, [axis], True) for p in parts], axis=axis
            )
        return x
    rows, columns = (_averages(size, bounds) for size, bounds in zip(sizes, windows, strict=True))
    return g.add("MatMul", [g.floats(rows), g.add("MatMul", [x, g.floats(columns.T)])])


def _averages(size: int, bounds: Sequence[tuple[int, int]]) -> np.ndarray:
    """The matrix whose product with an axis gives the means of windows."""
    matrix = np.zeros((len(bounds), size))
    for row, (begin, end) in zip(matrix, bounds, strict=True):
        row[begin:end] = 1 / (end - begin)
    return matrix


def _reduce(g: "Graph", kind: str, x: str, axes: Sequence[int], keepdims: bool) -> str:
    if kind == "ReduceSum" or g.opset >= 18:
        return g.add(kind, [x, g.ints(axes)], keepdims=int(keepdims))
    return g.add(kind, [x], axes=list(axes), keepdims=int(keepdims))


def reduce(g: "Graph", node: "Node") -> str:
    (x,) = node.inputs
    kind, axes, keepdim = node.attr["kind"], node.attr["axes"], node.attr["keepdim"]
    rank = len(g.shape(node.ins[0]))
    if kind != "argmax":
        return _reduce(g, _REDUCE[kind], x, axes, keepdim) if axes else g.add("Identity", [x])
    if len(axes) == 1:
        return g.add("ArgMax", [x], axis=axes[0], keepdims=int(keepdim))
    flat = g.add("Reshape", [x, g.ints([-1])])
    first = g.add("ArgMax", [flat], axis=0, keepdims=0)
    return g.add("Reshape", [first, g.ints([1] * rank)]) if keepdim else first


def reshape(g: "Graph", node: "Node") -> str:
    sizes = g.sizes(node.outs[0])
    follow = [i for i, n in enumerate(sizes) if not isinstance(n, int)]
    if len(follow) == 1:
        sizes[follow[0]] = -1
        follow = []
    return g.add("Reshape", [*node.inputs, g.dims(sizes) if follow else g.ints(sizes)])


def expand(g: "Graph", node: "Node") -> str:
    given, wanted = g.sizes(node.ins[0]), g.sizes(node.outs[0])
    given = [1] * (len(wanted) - len(given)) + given
    # 1 leaves a size as it is
    sizes = [1 if a == b else b for a, b in zip(given, wanted, strict=True)]
    return g.add("Expand", [*node.inputs, g.dims(sizes)])


def permute(g: "Graph", node: "Node") -> str:
    return g.add("Transpose", node.inputs, perm=node.attr["axes"])


def cat(g: "Graph", node: "Node") -> str:
    return g.add("Concat", node.inputs, axis=node.attr["axis"])


def pad(g: "Graph", node: "Node") -> str:
    pads = [*node.attr["before"], *node.attr["after"]]
    (x,) = node.inputs
    return g.add("Pad", [x, g.ints(pads), g.floats(node.attr["value"])])


def _slice(
    g: "Graph",
    x: str,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int],
    steps: Sequence[int] | None = None,
) -> str:
    inputs = [x, g.ints(starts), g.ints(ends), g.ints(axes)]
    return g.add("Slice", inputs if steps is None else [*inputs, g.ints(steps)])


def _place(node: "Node", here: int, size: int, there: int, other_size: int) -> int:
    """A position that is the same in both recordings: from the start or from the end."""
    if here == there:
        return here
    if here - size == there - other_size:
        return here - size if here < size else _LAST
    raise node.cannot("the slice depends on the batch size")


def slice_(g: "Graph", node: "Node") -> str:
    a, b = node.attr, node.other
    rows = []
    sizes = zip(g.shape(node.ins[0]), g.other_shape(node.ins[0]), strict=True)
    for axis, (size, other) in enumerate(sizes):
        step = a["step"][axis]
        start, count = a["start"][axis], a["count"][axis]
        start2, count2 = b["start"][axis], b["count"][axis]
        if step != b["step"][axis]:
            raise node.cannot("the slice depends on the batch size")
        if (start, step, count) == (0, 1, size) and (start2, count2) == (0, other):
            continue
        first = _place(node, start, size, start2, other)
        end, end2 = start + step * count, start2 + step * count2
        if step > 0:
            last = _place(node, min(end, size), size, min(end2, other), other)
        elif (end < 0) != (end2 < 0):
            raise node.cannot("the slice depends on the batch size")
        else:
            last = -_LAST if end < 0 else _place(node, end, size, end2, other)
        rows.append((first, last, axis, step))
    if not rows:
        return g.add("Identity", node.inputs)
    return _slice(g, *node.inputs, *map(list, zip(*rows, strict=True)))


def _by_radix(g: "Graph", x: str, radix: int, channels: int, *plane: int) -> str:
    """(N, R * C, ...) -> (N, R, C, ...)"""
    return g.add("Reshape", [x, g.ints([0, radix, channels, *plane])])


def split_gap(g: "Graph", node: "Node") -> str:
    _, channels, *_ = g.shape(node.outs[0])
    mean = g.add("GlobalAveragePool", node.inputs)
    parts = _by_radix(g, mean, node.attr["radix"], channels, 1, 1)
    return _reduce(g, "ReduceSum", parts, [1], False)


def split_softmax(g: "Graph", node: "Node") -> str:
    (x,) = node.inputs
    radix, groups = node.attr["radix"], node.attr["cardinality"]
    channels = g.shape(node.ins[0])[1]
    if radix == 1:
        return g.add("Sigmoid", [x])
    if node.attr["plain_view"]:
        view = g.add("Reshape", [x, g.ints([0, radix, groups, -1])])
    else:
        view = g.add("Reshape", [x, g.ints([0, groups, radix, -1])])
        view = g.add("Transpose", [view], perm=[0, 2, 1, 3])
    shares = g.add("Softmax", [view], axis=1)
    return g.add("Reshape", [shares, g.ints([0, channels, 1, 1])])


def split_apply(g: "Graph", node: "Node") -> str:
    _, channels, *plane = g.shape(node.outs[0])
    weighted = g.add("Mul", node.inputs)
    parts = _by_radix(g, weighted, node.attr["radix"], channels, *plane)
    return _reduce(g, "ReduceSum", parts, [1], False)


WRITERS: dict[str, Writer] = {
    "conv2d": conv2d,
    "linear": linear,
    "matmul": matmul,
    "batch_norm": batch_norm,
    "unary": unary,
    "binary": binary,
    "softmax": softmax,
    "pool2d": pool2d,
    "adaptive_pool2d": adaptive_pool2d,
    "reduce": reduce,
    "reshape": reshape,
    "expand": expand,
    "permute": permute,
    "cat": cat,
    "pad": pad,
    "slice": slice_,
    "split_gap": split_gap,
    "split_softmax": split_softmax,
    "split_apply": split_apply,
}

# Ops whose attributes may differ between recordings of two batch sizes.
FOLLOWS_BATCH = {"slice"}


def element_type(dtype: str) -> Any:
    """ONNX's number for an element type."""
    from onnx import TensorProto

    return TensorProto.INT64 if dtype == "int64" else TensorProto.FLOAT
