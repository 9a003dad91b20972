"""An ONNX file's bytes against the lists of fields and operators that a model may use. Nothing is run.

Bytes come in; what the file says of itself, or a ModelError that names the place, goes out. Only what stands in
onnx.proto under the numbers below passes: a field that is not listed is refused, and with it data in other files,
functions, training, and operators of other domains.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from transom.errors import ModelError
from transom.runtimes import protobuf
from transom.runtimes.files import AGAIN, FOREIGN

UNSAFE = "it was not written by `transom convert`: do not use it"

MANIFEST_KEY = "transom_manifest"  # of the model's metadata

MAX_DEPTH = 4  # of graphs within graphs: the branches of If
MAX_NODES = 100_000
MAX_RANK = 8

DOMAINS = ("", "ai.onnx")

_OPERATORS = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu Clip
Compress Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear
Det Div DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND
Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Hardmax
Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
LpNormalization LpPool MatMul MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonZero Not
OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape ReverseSequence Round
ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth
Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
# Not there: Loop and Scan (a graph that need not end), Random*, Multinomial and Bernoulli, sequences, strings, images.
OPERATORS = frozenset(_OPERATORS.split())

# Element types of a tensor: float, (u)int8 to 64, bool, float16, double. No strings.
_TYPES = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13})

# Fields of each message of onnx.proto that are read or that say nothing.
_MODEL = {1: "ir_version", 2: "producer_name", 3: "producer_version", 4: "domain", 5: "model_version", 6: "doc_string",
          7: "graph", 8: "opset_import", 14: "metadata_props"}  # fmt: skip
_GRAPH = {1: "node", 2: "name", 5: "initializer", 10: "doc_string", 11: "input", 12: "output", 13: "value_info"}
_NODE = {1: "input", 2: "output", 3: "name", 4: "op_type", 5: "attribute", 6: "doc_string", 7: "domain"}
_ATTRIBUTE = {1: "name", 2: "f", 3: "i", 4: "s", 5: "t", 6: "g", 7: "floats", 8: "ints", 9: "strings", 13: "doc_string",
              20: "type"}  # fmt: skip
_TENSOR = {1: "dims", 2: "data_type", 4: "float_data", 5: "int32_data", 7: "int64_data", 8: "name", 9: "raw_data",
           10: "double_data", 11: "uint64_data", 12: "doc_string", 14: "data_location"}  # fmt: skip
_PAIR = {1: "key", 2: "value"}
_OPSET = {1: "domain", 2: "version"}

_Found = dict[str, list[int | memoryview]]


@dataclass(slots=True)
class Scanned:
    """manifest: its bytes, None when the file has none; content_sha256: digest of all but the metadata, hex;
    bare: the file's fields without metadata; inputs, outputs: names of the graph's own."""

    content_sha256: str
    bare: bytes = field(repr=False)
    manifest: bytes | None = None
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


def scan(data: bytes, place: str) -> Scanned:
    """Raises ModelError for bytes that are no ONNX model, or one that could do more than compute on tensors."""
    _refuse_foreign(data, place)
    try:
        return _Scan(place).model(memoryview(data))
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelError(place, f"is damaged, or no ONNX file ({error})", AGAIN) from error


def with_manifest(bare: bytes, manifest: bytes) -> bytes:
    """The file: `bare` of a scan, and the manifest as its only metadata."""
    pair = protobuf.field(1, MANIFEST_KEY.encode()) + protobuf.field(2, manifest)
    return bare + protobuf.field(14, pair)


def _refuse_foreign(data: bytes, place: str) -> None:
    if not data:
        raise ModelError(place, "the file is empty", AGAIN)
    if data.startswith(b"PK\3\4"):
        raise ModelError(place, "a zip archive, not an ONNX file", "a TorchScript model has a name that ends in .pt")
    if data.startswith(b"version https://git-lfs"):
        raise ModelError(place, "a pointer to a file in Git LFS, not the file itself", "run `git lfs pull`")
    if not data.startswith(b"\x08"):
        raise ModelError(place, f"not an ONNX file (it begins with the bytes {data[:4].hex(' ')})", FOREIGN)


class _Scan:
    """One file. Each method takes the bytes of one message."""

    def __init__(self, place: str) -> None:
        self.place, self.nodes = place, 0

    def refused(self, what: str) -> ModelError:
        return ModelError(self.place, f"has {what}", UNSAFE)

    def message(self, data: memoryview, known: Mapping[int, str], name: str) -> _Found:
        found: _Found = {}
        for number, _, value in protobuf.fields(data):
            if number not in known:
                raise self.refused(f"the field {number} of {name}, which no model needs")
            found.setdefault(known[number], []).append(value)
        return found

    def model(self, data: memoryview) -> Scanned:
        bare = b"".join(_raw(n, wire, value) for n, wire, value in protobuf.fields(data) if n != 14)
        found = self.message(data, _MODEL, "the model")
        scanned = Scanned(hashlib.sha256(bare).hexdigest(), bare)
        for opset in _views(found, "opset_import"):
            domain = _text(self.message(opset, _OPSET, "opset_import"), "domain")
            if domain not in DOMAINS:
                raise self.refused(f"operators of the domain {domain!r}")
        if len(found.get("graph", ())) != 1:
            raise ModelError(self.place, f"has {len(found.get('graph', ()))} graphs", FOREIGN)
        for pair in _views(found, "metadata_props"):
            said = self.message(pair, _PAIR, "metadata_props")
            if _text(said, "key") != MANIFEST_KEY or scanned.manifest is not None:
                raise self.refused(f"metadata beside the manifest ({_text(said, 'key')[:40]!r})")
            scanned.manifest = b"".join(map(bytes, _views(said, "value")))
        graph = self.graph(_views(found, "graph")[0], 0)
        scanned.inputs, scanned.outputs = _names(graph, "input"), _names(graph, "output")
        return scanned

    def graph(self, data: memoryview, depth: int) -> _Found:
        if depth > MAX_DEPTH:
            raise self.refused(f"graphs within graphs, more than {MAX_DEPTH} deep")
        found = self.message(data, _GRAPH, "a graph")
        for tensor in _views(found, "initializer"):
            self.tensor(tensor)
        for node in _views(found, "node"):
            self.node(node, depth)
        return found

    def node(self, data: memoryview, depth: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.refused(f"more than {MAX_NODES:,} operators")
        found = self.message(data, _NODE, "an operator")
        kind, domain = _text(found, "op_type"), _text(found, "domain")
        if domain not in DOMAINS:
            raise self.refused(f"the operator {kind[:60]!r} of the domain {domain[:60]!r}")
        if kind not in OPERATORS:
            raise self.refused(f"the operator {kind[:60]!r}, which is not on the list")
        for attribute in _views(found, "attribute"):
            self.attribute(attribute, kind, depth)

    def attribute(self, data: memoryview, kind: str, depth: int) -> None:
        found = self.message(data, _ATTRIBUTE, f"an attribute of {kind}")
        for tensor in _views(found, "t"):
            self.tensor(tensor)
        for graph in _views(found, "g"):
            self.graph(graph, depth + 1)

    def tensor(self, data: memoryview) -> None:
        found = self.message(data, _TENSOR, "a tensor")
        name = _text(found, "name")[:60]
        if any(where != 0 for where in found.get("data_location", ())):
            raise self.refused(f"the tensor {name!r} in another file")
        kinds = found.get("data_type", [0])
        if len(kinds) != 1 or kinds[0] not in _TYPES:
            raise self.refused(f"the tensor {name!r} of the element type {kinds[0]}")
        if len(found.get("dims", ())) > MAX_RANK:
            raise self.refused(f"the tensor {name!r} of {len(found['dims'])} dimensions")


def _raw(number: int, wire: int, value: int | memoryview) -> bytes:
    """A field as it stands in a file."""
    if isinstance(value, int):
        return protobuf.varint(number << 3 | wire) + protobuf.varint(value)
    size = protobuf.varint(len(value)) if wire == protobuf.BYTES else b""
    return protobuf.varint(number << 3 | wire) + size + bytes(value)


def _views(found: _Found, key: str) -> list[memoryview]:
    values = found.get(key, [])
    if any(isinstance(value, int) for value in values):
        raise ValueError(f"{key} is a number")
    return [value for value in values if isinstance(value, memoryview)]


def _text(found: _Found, key: str) -> str:
    values = _views(found, key)
    return bytes(values[-1]).decode() if values else ""


def _names(graph: _Found, key: str) -> list[str]:
    """Of the graph's inputs or outputs: the first field of each ValueInfoProto."""
    names = []
    for info in _views(graph, key):
        first = [value for number, _, value in protobuf.fields(info) if number == 1 and isinstance(value, memoryview)]
        names.append(bytes(first[-1]).decode() if first else "")
    return names
