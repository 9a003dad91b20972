"""Models on ONNX Runtime: the suite of the seam, the twin's numbers, and files that nobody should load."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx as format_
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from runtimes.model_suite import check_model, same, windows
from runtimes.samples import forge, members_of
from transom.errors import ModelError
from transom.runtimes import bundle, choice, onnx, onnx_scan, protobuf, torchscript
from transom.runtimes.batches import BATCH_SIZES
from transom_models import twin

EXPORTED = ("lstm", "cnn")  # asinh and quantile, of the other samples, are not in ONNX's opset 17


@pytest.fixture(scope="module")
def twins(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("twins")
    for name in EXPORTED:
        shutil.copy(files[name], folder / f"{name}.pt")
        twin.make(folder / f"{name}.pt", folder / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in EXPORTED}


@pytest.fixture(scope="module")
def lstm(twins: dict[str, Path]) -> onnx.OnnxModel:
    return onnx.load(twins["lstm"])


@pytest.fixture(scope="module")
def universal() -> onnx.OnnxModel:
    return onnx.load(bundle.find_model("universal", Path()).with_suffix(".onnx"))


# Numbers


@pytest.mark.parametrize("name", EXPORTED)
def test_each_family_keeps_the_promises_of_the_seam(twins: dict[str, Path], name: str) -> None:
    check_model(onnx.load(twins[name]))


def test_the_shipped_model_keeps_them_too_and_rows_share_a_call(universal: onnx.OnnxModel) -> None:
    check_model(universal)
    assert universal.batch_sizes == BATCH_SIZES
    assert not universal.alone


@pytest.mark.parametrize("name", [*EXPORTED, "universal"])
def test_the_twin_gives_the_numbers_of_torchscript_in_every_batch_to_64(twins: dict[str, Path], name: str) -> None:
    source = twins[name].with_suffix(".pt") if name in twins else bundle.find_model(name, Path())
    reference, twin_ = torchscript.load(source), onnx.load(twins.get(name, source.with_suffix(".onnx")))
    values = windows(reference, 200, seed=3)
    values[1] = np.nan
    values[2::9, : len(values[0]) // 2] = np.nan
    assert twin.difference(reference, twin_, values) <= 1e-5
    assert twin_.manifest.calibration == reference.manifest.calibration
    assert (twin_.manifest.label, twin_.parameters) == (reference.manifest.label, reference.parameters)


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, 150), max_size=8), seed=st.integers(0, 1000))
def test_any_split_gives_the_same_bits(lstm: onnx.OnnxModel, cuts: list[int], seed: int) -> None:
    values = windows(lstm, 150, seed)
    whole = lstm.infer(values)
    edges = sorted({0, *cuts, 150})
    for start, end in zip(edges, edges[1:], strict=False):
        for key, array in lstm.infer(values[start:end]).items():
            assert same(array, whole[key][start:end]), (key, start, end)


def test_sums_along_a_row_do_not_depend_on_where_the_row_begins(universal: onnx.OnnxModel) -> None:
    """127 steps of context are no whole number of vectors; without the filling up each row would have to run alone."""
    graph = format_.load_from_string(universal.bundle.model).graph
    assert sum(node.op_type == "Pad" for node in graph.node) >= 4


def test_a_twin_whose_numbers_differ_is_not_written(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.onnx").write_bytes(b"as it was")
    monkeypatch.setattr(twin, "TOLERANCE", 1e-12)
    with pytest.raises(ModelError, match="its ONNX twin gives numbers that differ by"):
        twin.make(files["lstm"], tmp_path / "old.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_bytes() == b"as it was"


def test_a_model_that_onnx_cannot_say_is_refused_in_one_line_and_prints_nothing(
    files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match="cannot be written as ONNX .*asinh") as refusal:
        twin.make(files["gru"], tmp_path / "gru.onnx")
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


# What stands in a file


def graph(*nodes: format_.NodeProto, **changes: object) -> format_.ModelProto:
    row = [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["B", 12, 2])]
    out = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"])]
    made = helper.make_graph(list(nodes) or [helper.make_node("Relu", ["window"], ["score"])], "g", row, out)
    return helper.make_model(made, **changes)


def outside(model: format_.ModelProto) -> None:
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def foreign_opset(model: format_.ModelProto) -> None:
    model.opset_import.add(domain="com.microsoft", version=1)


def own_function(model: format_.ModelProto) -> None:
    model.functions.add(name="f", domain="")


def beside_the_manifest(model: format_.ModelProto) -> None:
    model.metadata_props.add(key="note", value="x")


def text(model: format_.ModelProto) -> None:
    model.graph.initializer.add(name="t", data_type=TensorProto.STRING, dims=[1], string_data=[b"x"])


def sparse(model: format_.ModelProto) -> None:
    model.graph.sparse_initializer.add()


def hidden_in_a_branch(model: format_.ModelProto) -> None:
    inner = helper.make_graph([helper.make_node("Loop", ["a", "b"], ["c"])], "b", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (outside, "the tensor|the field 13 of a tensor"),
        (foreign_opset, "operators of the domain 'com.microsoft'"),
        (own_function, "the field 25 of the model"),
        (beside_the_manifest, "metadata beside the manifest"),
        (text, "the field 6 of a tensor|element type 8"),
        (sparse, "the field 15 of a graph"),
        (hidden_in_a_branch, "the operator 'Loop', which is not on the list"),
    ],
)
def test_what_could_do_more_than_compute_is_refused(
    change: Callable[[format_.ModelProto], None], sentence: str
) -> None:
    model = graph()
    change(model)
    with pytest.raises(ModelError, match=sentence) as refusal:
        onnx_scan.scan(model.SerializeToString(), "m.onnx")
    assert "do not use it" in str(refusal.value)


@pytest.mark.parametrize(("kind", "domain"), [("Loop", ""), ("RandomNormal", ""), ("Scan", ""), ("Gelu", "com.microsoft"),
                                              ("PyOp", "ai.onnx.contrib"), ("TfIdfVectorizer", "")])  # fmt: skip
def test_an_operator_that_is_not_on_the_list_is_refused(kind: str, domain: str) -> None:
    with pytest.raises(ModelError, match=f"the operator '{kind}'"):
        onnx_scan.scan(
            graph(helper.make_node(kind, ["window"], ["score"], domain=domain)).SerializeToString(), "m.onnx"
        )


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "the file is empty"),
        (b"PK\3\4" + bytes(40), "a zip archive, not an ONNX file"),
        (b"hello world", "not an ONNX file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\x08", "damaged, or no ONNX file"),
        (b"\x08\x07\x3a\xff\xff\xff\xff\x0f", "damaged, or no ONNX file"),
        (b"\x08\x07", "has 0 graphs"),
    ],
)
def test_bytes_that_are_no_model_are_told_as_what_they_are(data: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=sentence) as refusal:
        onnx.open_bundle(tmp_path / "m.onnx")
    assert "\n" not in str(refusal.value)


def test_an_onnx_file_of_someone_else_has_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(graph().SerializeToString())
    with pytest.raises(ModelError, match="an ONNX file without a manifest"):
        onnx.open_bundle(tmp_path / "m.onnx")


def test_a_changed_weight_is_found_by_the_digest_in_the_manifest(twins: dict[str, Path], tmp_path: Path) -> None:
    model = format_.load(str(twins["lstm"]))
    next(node for node in model.graph.node if node.op_type == "LSTM").attribute[-1].i += 1
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="the content has the digest"):
        onnx.open_bundle(tmp_path / "m.onnx")


def test_a_pin_or_a_digest_beside_the_file_must_hold(twins: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(twins["lstm"].read_bytes())
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    assert onnx.open_bundle(path, right).sha256 == right
    with pytest.raises(ModelError, match="model_sha256 says"):
        onnx.open_bundle(path, "0" * 64)
    (tmp_path / "m.onnx.sha256").write_text("0" * 64)
    with pytest.raises(ModelError, match=r"m\.onnx\.sha256 says"):
        onnx.open_bundle(path)


@settings(max_examples=150)
@given(at=st.integers(0, 10**6), change=st.binary(max_size=4), cut=st.booleans())
def test_damage_anywhere_is_refused_and_never_raises_anything_else(
    lstm: onnx.OnnxModel, at: int, change: bytes, cut: bool
) -> None:
    data = lstm.bundle.model
    at %= len(data)
    spoiled = data[:at] if cut else data[:at] + change + data[at + len(change) :]
    try:
        scanned = onnx_scan.scan(spoiled, "m.onnx")
    except ModelError:
        return
    assert scanned.content_sha256 != lstm.manifest.content_sha256 or spoiled == data


@given(st.lists(st.tuples(st.integers(1, 300), st.binary(max_size=200))))
def test_fields_that_are_written_are_read(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(protobuf.field(number, value) for number, value in pairs)
    assert [(n, bytes(v)) for n, _, v in protobuf.fields(memoryview(data)) if not isinstance(v, int)] == pairs


# Which file runs


def test_the_twin_runs_where_it_is_asked_for(twins: dict[str, Path]) -> None:
    folder = twins["lstm"].parent
    assert choice.find("lstm.pt", folder).suffix == ".pt"
    assert choice.find("lstm.pt", folder, "onnx").suffix == ".onnx"
    assert choice.find("lstm.onnx", folder).suffix == ".onnx"
    assert choice.find("universal", folder, "onnx").name == "universal.onnx"
    assert isinstance(choice.load("lstm.pt", folder, "onnx"), onnx.OnnxModel)
    assert isinstance(choice.load("lstm.pt", folder), torchscript.TorchScriptModel)


def test_a_runtime_that_does_not_run_the_file_is_told_with_its_remedy(twins: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='agent.runtime is "torchscript"'):
        choice.find("lstm.onnx", twins["lstm"].parent, "torchscript")
    shutil.copy(twins["lstm"].with_suffix(".pt"), tmp_path / "lone.pt")
    with pytest.raises(ModelError, match=r"no lone\.onnx beside it; write it: transom convert lone\.pt"):
        choice.find("lone.pt", tmp_path, "onnx")


def test_without_torch_the_twin_runs_and_its_lack_is_told(
    twins: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "torch_is_installed", lambda: False)
    assert choice.find("lstm.pt", twins["lstm"].parent).suffix == ".onnx"
    assert choice.find("universal", tmp_path).suffix == ".onnx"
    shutil.copy(twins["lstm"].with_suffix(".pt"), tmp_path / "lone.pt")
    with pytest.raises(ModelError, match="torch is not installed, and there is no lone.onnx.*where torch is"):
        choice.find("lone.pt", tmp_path)


def test_the_twin_of_another_model_does_not_run_in_its_place(twins: dict[str, Path], tmp_path: Path) -> None:
    forge(members_of(twins["lstm"].with_suffix(".pt")), tmp_path / "m.pt", version="2")
    shutil.copy(twins["lstm"], tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"was made from another m\.pt than the one beside it; make it again"):
        choice.open_model("m.pt", tmp_path, "onnx")


def test_the_shipped_twin_is_that_of_the_shipped_model() -> None:
    path = bundle.find_model("universal", Path())
    opened = choice.open_model("universal", Path(), "onnx")
    assert opened.manifest.twin_of == hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"{opened.sha256}  universal.onnx" in (path.parent / "SHA256SUMS").read_text()


# Without torch


def test_a_model_runs_where_torch_cannot_be_imported() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['onnx'] = None\n"
        "import numpy as np; from pathlib import Path; from transom.runtimes import choice\n"
        "model = choice.load('universal', Path(), 'onnx')\n"
        "print(model.infer(np.zeros((3, 128, 1), np.float32))['score'].shape)\n"
        "assert not [m for m in sys.modules if m.startswith(('torch.', 'onnx.', 'transom_models', 'rich', 'psutil'))]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "(3,)\n", done.stderr
