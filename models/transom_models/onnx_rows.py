"""An exported graph to one whose rows have the same bits wherever they stand in a batch, and nothing said in passing.

ONNX Runtime adds up a row from the first address that its vectors can load; with 127 numbers a row each row begins
elsewhere between two such addresses and is added up in another order. So what is summed is filled up with zeros to
whole vectors. Needs the packages onnx and onnxruntime.
"""

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper

SUMS = ("ReduceSum", "ReduceMean")
VECTOR = 16  # numbers; 64 bytes is the longest vector and the alignment of every buffer


def steady(data: bytes) -> bytes:
    """The model with the sums along rows filled up to VECTOR, without comments and the shapes in between."""
    model = onnx.load_from_string(data)
    shapes = _shapes(model)
    constants = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += _filled(node, shapes, constants) if node.op_type in SUMS else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def _shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Of what is summed, in a batch of two windows: looked at, because the exporter does not always know."""
    names = sorted({n.input[0] for n in model.graph.node if n.op_type in SUMS} - {i.name for i in model.graph.input})
    open_model = ModelProto()
    open_model.CopyFrom(model)
    open_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(open_model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    zeros = {i.name: np.zeros((2, *i.shape[1:]), np.float32) for i in session.get_inputs()}
    given = session.run(names, zeros) if names else []
    return {name: array.shape for name, array in zip(names, given, strict=True) if array.dtype == np.float32}


def _filled(node: NodeProto, shapes: dict[str, tuple[int, ...]], constants: dict[str, NodeProto]) -> list[NodeProto]:
    shape, axes = shapes.get(node.input[0]), _axes(node, constants)
    if shape is None or not axes:
        return [node]
    axes = sorted(axis % len(shape) for axis in axes)
    last = axes[-1]
    missing = -shape[last] % VECTOR
    if axes[0] == 0 or not missing or any(length > 1 for length in shape[last + 1 :]):  # then columns are added up
        return [node]
    name, keep = node.output[0], next((a.i for a in node.attribute if a.name == "keepdims"), 1)
    ends = [0] * (2 * len(shape))
    ends[len(shape) + last] = missing
    made = [
        helper.make_node("Constant", [], [f"{name}_ends"], value=_whole(ends)),
        helper.make_node("Pad", [node.input[0], f"{name}_ends"], [f"{name}_filled"]),
        helper.make_node("Constant", [], [f"{name}_axis"], value=_whole(axes)),
    ]
    total = f"{name}_total" if node.op_type == "ReduceMean" else name
    made.append(helper.make_node("ReduceSum", [f"{name}_filled", f"{name}_axis"], [total], keepdims=keep))
    if node.op_type == "ReduceMean":
        count = helper.make_tensor("", TensorProto.FLOAT, [], [float(np.prod([shape[axis] for axis in axes]))])
        made.append(helper.make_node("Constant", [], [f"{name}_count"], value=count))
        made.append(helper.make_node("Div", [total, f"{name}_count"], [name]))
    return made


def _axes(node: NodeProto, constants: dict[str, NodeProto]) -> list[int] | None:
    """An attribute of ReduceMean, an input of ReduceSum (opset 13 to 17)."""
    if len(node.input) > 1:
        constant = constants.get(node.input[1])
        return None if constant is None else onnx.numpy_helper.to_array(constant.attribute[0].t).tolist()
    return next((list(a.ints) for a in node.attribute if a.name == "axes"), None)


def _whole(values: list[int]) -> TensorProto:
    return helper.make_tensor("", TensorProto.INT64, [len(values)], values)
