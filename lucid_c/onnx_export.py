"""ONNX files from a model's recording."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from ._files import replacing
from ._inputs import check_model, check_shape, eval_mode
from ._onnx_ops import FOLLOWS_BATCH, WRITERS, element_type

if TYPE_CHECKING:
    from .nn import Module

__all__ = ["export"]

FIRST_OPSET = 13
# A protobuf message ends at 2 GiB; what is not weights needs some room.
LARGEST_MODEL = (1 << 31) - (16 << 20)
LEAST_EXTERNAL = 1024  # bytes of an array that goes into the file of weights


@dataclass(frozen=True)
class Follows:
    """A size that is so many times the batch size; None: that depends on it in some other way."""

    times: int | None


@dataclass(frozen=True)
class Value:
    """A value of a recording."""

    kind: str  # "param", "constant", "computed"
    shape: tuple[int, ...]
    dtype: str
    key: int | None  # of a parameter
    array: np.ndarray | None


class Node:
    """A node of a recording; ``other`` has the attributes at another batch size."""

    def __init__(self, row: tuple, other: tuple, names: dict[int, str]) -> None:
        self.op, self.scope, self.attr, self.ins, self.outs = row
        self.other = other[2]
        self.inputs = [names.get(v, "") for v in self.ins]

    def cannot(self, why: str) -> ValueError:
        """Say which op of which module has no form in ONNX."""
        where = f"module {self.scope!r}" if self.scope else "the model itself"
        return ValueError(f"{self.op} of {where} cannot be written as ONNX: {why}")


class Recording:
    """What a call on an input of a shape consists of."""

    def __init__(self, model: "Module", shape: Sequence[int]) -> None:
        try:
            rows = _core.record(model, shape)
        except RuntimeError as error:
            if "no contents" not in str(error):
                raise
            raise ValueError(
                "the model cannot be exported: its forward reads the numbers of a tensor, so that "
                "what it computes depends on the input"
            ) from error
        self.nodes: list[tuple] = rows["nodes"]
        self.values = [Value(*row) for row in rows["values"]]
        self.input, self.output = rows["input"], rows["output"]

    def wanted(self) -> list[int]:
        """The nodes that the output needs."""
        needed, nodes = {self.output}, []
        for i in range(len(self.nodes) - 1, -1, -1):
            *_, ins, outs = self.nodes[i]
            if any(v in needed and self.values[v].kind == "computed" for v in outs):
                needed.update(ins)
                nodes.append(i)
        return nodes[::-1]


class Graph:
    """An ONNX graph under construction; `add` appends a node and returns its result's name."""

    def __init__(
        self, recordings: tuple[Recording, Recording], batches: tuple[int, int], opset: int
    ):
        from onnx import helper

        self._helper = helper
        self._main, self._other = recordings
        self._batches = batches
        self.opset = opset
        self.nodes: list[Any] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.scope = ""
        self._used: Counter[str] = Counter()
        self._constants: dict[tuple, str] = {}
        self._batch = ""
        self.input, self.result = "input", "output"  # names

    def shape(self, v: int) -> tuple[int, ...]:
        """The shape of a value at the first batch size."""
        return self._main.values[v].shape

    def other_shape(self, v: int) -> tuple[int, ...]:
        """The shape of a value at the second batch size."""
        return self._other.values[v].shape

    def sizes(self, v: int) -> list[int | Follows]:
        """The shape, with `Follows` where a size depends on the batch size."""
        return [self._size(*pair) for pair in zip(self.shape(v), self.other_shape(v), strict=True)]

    def _size(self, here: int, there: int) -> int | Follows:
        if here == there:
            return here
        times, rest = divmod(here, self._batches[0])
        return Follows(None if rest or there != times * self._batches[1] else times)

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node with one output."""
        path = "/".join(["", *self.scope.split("."), kind] if self.scope else ["", kind])
        name = f"{path}_{self._used[path]}" if self._used[path] else path
        self._used[path] += 1
        result = f"{name}_output"
        node = self._helper.make_node(kind, list(inputs), [result], name=name, **attributes)
        self.nodes.append(node)
        return result

    def _constant(self, array: np.ndarray) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"/constant_{len(self._constants)}"
            self.initializers[self._constants[key]] = array
        return self._constants[key]

    def ints(self, values: Sequence[int]) -> str:
        """A constant vector of int64."""
        return self._constant(np.array(values, np.int64))

    def floats(self, values: ArrayLike) -> str:
        """A constant of float32."""
        return self._constant(np.array(values, np.float32))

    def dims(self, sizes: Sequence[int | Follows]) -> str:
        """A vector of sizes, computed where some follow the batch size."""
        if all(isinstance(n, int) for n in sizes):
            return self.ints(sizes)
        if not self._batch:
            shape = self.add("Shape", [self.input])
            self._batch = self.add("Slice", [shape, self.ints([0]), self.ints([1])])
        parts = []
        for n in sizes:
            if isinstance(n, int):
                parts.append(self.ints([n]))
            elif n.times is None:
                raise _refuse(f"a size depends on the batch size ({self._batches[0]} here)")
            elif n.times == 1:
                parts.append(self._batch)
            else:
                parts.append(self.add("Mul", [self._batch, self.ints([n.times])]))
        return self.add("Concat", parts, axis=0)

    def _info(self, name: str, v: int) -> Any:
        sizes = []
        for n in self.sizes(v):
            times = n.times if isinstance(n, Follows) else None
            sizes.append(n if isinstance(n, int) else None if times is None else f"{times}*batch")
        sizes = ["batch" if n == "1*batch" else n for n in sizes]
        kind = element_type(self._main.values[v].dtype)
        return self._helper.make_tensor_value_info(name, kind, sizes)

    def outline(self) -> tuple:
        """What two graphs that compute the same have in common."""
        nodes = [node.SerializeToString(deterministic=True) for node in self.nodes]
        infos = [info.SerializeToString(deterministic=True) for info in self.infos]
        return nodes, infos, set(self._constants)

    def write(self, state: dict[int, str]) -> None:
        """Append all nodes, with input and output; ``state``: names by parameter."""
        main, other = self._main, self._other
        taken = set(state.values())
        self.input, self.result = (_free(name, taken) for name in (self.input, self.result))
        names = {main.input: self.input}
        wanted = main.wanted()
        for v in {v for i in wanted for v in main.nodes[i][3]} | {main.output}:
            value = main.values[v]
            if v == main.input or value.kind == "computed":
                continue
            if value.kind == "param":
                names[v] = state.get(value.key, f"/parameter_{v}")
                self.initializers[names[v]] = value.array
            elif not _same(value.array, other.values[v].array):
                raise _refuse("its forward uses an array that depends on the batch size")
            else:
                names[v] = self._constant(value.array)
        for i in wanted:
            node = Node(main.nodes[i], other.nodes[i], names)
            self.scope = node.scope
            if node.op not in WRITERS or node.attr is None:
                raise node.cannot("there is no such operator")
            if node.attr != node.other and node.op not in FOLLOWS_BATCH:
                raise node.cannot("what it does depends on the batch size; " + _FIXED)
            names[node.outs[0]] = WRITERS[node.op](self, node)
        self.scope = ""
        last = self._helper.make_node(
            "Identity", [names[main.output]], [self.result], name="/output"
        )
        self.nodes.append(last)
        self.infos = (self._info(self.input, main.input), self._info(self.result, main.output))


def _free(name: str, taken: set[str]) -> str:
    """The name, or a longer one if a parameter has it."""
    while name in taken:
        name += "_"
    return name


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is not None and b is not None and np.array_equal(a, b, equal_nan=True)


_FIXED = "dynamic_batch=False fixes the batch size"


def _refuse(why: str) -> ValueError:
    return ValueError(f"the model cannot be exported with a dynamic batch: {why}; {_FIXED}")


def _outline(recording: Recording) -> tuple:
    """What has to be the same for every batch size."""
    nodes = [(op, scope, ins, outs) for op, scope, _, ins, outs in recording.nodes]
    values = [(value.kind, len(value.shape), value.key) for value in recording.values]
    return nodes, values, recording.output


def _build(model: "Module", shape: tuple[int, ...], dynamic: bool, opset: int) -> Graph:
    """Write the graph. For a dynamic batch it is found from recordings at two batch sizes, and has
    to come out the same with another second one."""
    state: dict[int, str] = {}
    for name, tensor in model._named_state():
        state.setdefault(tensor._key(), name)
    main = Recording(model, shape)
    graphs = []
    for more in (1, 7) if dynamic else (0,):
        other = Recording(model, (shape[0] + more, *shape[1:])) if more else main
        if _outline(main) != _outline(other):
            raise _refuse("its forward does something else for another number of images")
        graph = Graph((main, other), (shape[0], shape[0] + more), opset)
        graph.write(state)
        graphs.append(graph)
    if any(graph.outline() != graphs[0].outline() for graph in graphs):
        raise _refuse("what it does depends on the batch size")
    return graphs[0]


def _default_shape(model: "Module") -> tuple[int, ...]:
    config = model.__dict__.get("config")
    configs = (_core.module_config(m) for m in model.modules() if m._class_name == "Conv2d")
    channels = next(configs, {}).get("in_channels")
    if not isinstance(config, dict) or "image_size" not in config or channels is None:
        raise ValueError(
            "this model has no input size of its own; give input_shape=(1, channels, height, width)"
        )
    return 1, channels, config["image_size"], config["image_size"]


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "ONNX files need the onnx package, which cannot be imported "
            f"({error}); install it with: pip install lucid_c[onnx]"
        ) from error
    return onnx


def export(
    model: "Module",
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | None = None,
    dynamic_batch: bool = True,
    opset: int = 17,
    external_data: bool | None = None,
) -> None:
    """Write a model as an ONNX file; see `lucid_c.nn.Module.export_onnx`."""
    onnx = _onnx()
    check_model(model)
    path = os.fspath(path)
    newest = onnx.defs.onnx_opset_version()
    if isinstance(opset, bool) or not isinstance(opset, int):
        raise TypeError(f"opset must be an int, not {opset!r}")
    if not FIRST_OPSET <= opset <= newest:
        raise ValueError(f"opset must be {FIRST_OPSET} to {newest}, not {opset}")
    shape = (
        _default_shape(model) if input_shape is None else check_shape(input_shape, "input_shape")
    )
    with eval_mode(model):
        graph = _build(model, shape, dynamic_batch, opset)
    _save(onnx, _model(onnx, graph), graph, path, external_data)


def _model(onnx: Any, graph: Graph) -> Any:
    """The file's contents, but for the initializers."""
    from . import __version__

    body = onnx.helper.make_graph(graph.nodes, "lucid_c", *([info] for info in graph.infos))
    opsets = [onnx.helper.make_opsetid("", graph.opset)]
    return onnx.helper.make_model(
        body,
        opset_imports=opsets,
        ir_version=onnx.helper.find_min_ir_version_for(opsets),
        producer_name="lucid_c",
        producer_version=__version__,
    )


def _save(onnx: Any, model: Any, graph: Graph, path: str, external: bool | None) -> None:
    arrays = graph.initializers
    total = sum(array.nbytes for array in arrays.values())
    if external is None:
        external = total > LARGEST_MODEL
    elif not external and total > LARGEST_MODEL:
        raise ValueError(
            f"the weights take {total:,} bytes, and an ONNX file ends at 2 GiB; with "
            "external_data=True they go into a file of their own"
        )
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    if not external:
        with replacing(path) as temporary:
            onnx.save_model(model, temporary)
        return
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    work = tempfile.mkdtemp(prefix=f".{name[:100]}.", suffix=".tmp", dir=folder or None)
    try:
        onnx.save_model(
            model,
            os.path.join(work, name),
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=f"{name}.data",
            size_threshold=LEAST_EXTERNAL,
        )
        for each in (f"{name}.data", name):  # the model last: it is what readers open
            if os.path.exists(os.path.join(work, each)):
                with replacing(os.path.join(folder, each)) as temporary:
                    os.replace(os.path.join(work, each), temporary)
    finally:
        shutil.rmtree(work, ignore_errors=True)
