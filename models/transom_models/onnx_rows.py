"""An exported graph to one whose rows have the same bits wherever they stand in a batch, and nothing said in passing.

ONNX Runtime adds up a row from the first address that its vectors can load; with 127 numbers a row each row begins
elsewhere between two such addresses and is added up in another order. So what is summed is filled up with zeros to
whole vectors. Needs the package onnx.
"""

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

VECTOR = 16  # numbers; 64 bytes is the longest vector and the alignment of every buffer


def steady(data: bytes) -> bytes:
    """The model with the sums along rows filled up to VECTOR, without comments and the shapes in between."""
    model = onnx.load_from_string(data)
    shapes = _shapes(model)
    constants = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += _filled(node, shapes, constants) if node.op_type in ("ReduceSum", "ReduceMean") else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def _shapes(model: ModelProto) -> dict[str, list[int]]:
    """Of everything whose shape is known, in a batch of two."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    inferred = shape_inference.infer_shapes(fixed, data_prop=True)
    found = {}
    for info in (*inferred.graph.value_info, *inferred.graph.input):
        dims = info.type.tensor_type.shape.dim
        if all(d.HasField("dim_value") for d in dims) and info.type.tensor_type.elem_type == TensorProto.FLOAT:
            found[info.name] = [d.dim_value for d in dims]
    return found


def _filled(node: NodeProto, shapes: dict[str, list[int]], constants: dict[str, NodeProto]) -> list[NodeProto]:
    shape, axes = shapes.get(node.input[0]), _axes(node, constants)
    if shape is None or axes is None or len(axes) != 1:
        return [node]
    axis = axes[0] % len(shape)
    size, missing = shape[axis], -shape[axis] % VECTOR
    if axis == 0 or not missing or any(length > 1 for length in shape[axis + 1 :]):  # then whole columns are added up
        return [node]
    name, keep = node.output[0], next((a.i for a in node.attribute if a.name == "keepdims"), 1)
    ends = [0] * (2 * len(shape))
    ends[len(shape) + axis] = missing
    made = [
        helper.make_node("Constant", [], [f"{name}_ends"], value=_whole(ends)),
        helper.make_node("Pad", [node.input[0], f"{name}_ends"], [f"{name}_filled"]),
        helper.make_node("Constant", [], [f"{name}_axis"], value=_whole([axis])),
    ]
    total = f"{name}_total" if node.op_type == "ReduceMean" else name
    made.append(helper.make_node("ReduceSum", [f"{name}_filled", f"{name}_axis"], [total], keepdims=keep))
    if node.op_type == "ReduceMean":
        count = helper.make_tensor("", TensorProto.FLOAT, [], [float(size)])
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
