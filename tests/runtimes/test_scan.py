"""The scan of a model's code and pickles: what would run while loading, leave the tensors or hide is refused."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from runtimes.samples import compiled, forge, manifest, members_of
from transom.errors import ModelError
from transom.runtimes import archive, bundle, torchscript
from transom.runtimes.operators import OPS, TORCH


def code_of(members: dict[str, bytes]) -> str:
    return next(n for n in members if b"class LstmAnomaly" in members[n])


def with_line(lone: Path, line: str) -> Path:
    """The sound file with one more line at the start of its forward, and a digest that is right."""
    members = members_of(lone)
    name = code_of(members)
    source = members[name].decode()
    start = re.search(r"def forward\(self[^)]*\)[^:\n]*:\n", source)
    assert start is not None
    members[name] = (source[: start.end()] + f"    {line}\n" + source[start.end() :]).encode()
    return forge(members, lone)


def refused(path: Path, sentence: str) -> ModelError:
    with pytest.raises(ModelError, match=sentence) as refusal:
        bundle.open_bundle(path)
    assert path.name in refusal.value.place
    assert refusal.value.remedy
    return refusal.value


class RunsWhileLoading(nn.Module):
    """Writes a file when torch.jit.load reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(1))

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        return {"score": window.sum((1, 2))}

    @torch.jit.export
    def __getstate__(self):  # type: ignore[no-untyped-def]
        return self.state, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        torch.ops.aten.save(state[0], "PLACEHOLDER")
        self.state = state[0]
        self.training = state[1]


def test_a_module_that_runs_while_it_loads_does_harm_under_torch_and_is_refused_here(
    tmp_path: Path, lone: Path
) -> None:
    written = tmp_path / "written"
    module = compiled(RunsWhileLoading())
    plain = tmp_path / "plain.pt"
    with bundle.quiet():
        torch.jit.save(module, str(plain))
        members = archive.keep(archive.unpack(plain.read_bytes(), "plain"))
        name = next(n for n in members if b"PLACEHOLDER" in members[n])
        members[name] = members[name].replace(b"PLACEHOLDER", str(written).encode())
        plain.write_bytes(archive.pack(members))
        torch.jit.load(str(plain))
    assert written.exists(), "this torch does not run __setstate__: the test has lost its point"

    written.unlink()
    members[archive.MANIFEST] = members_of(lone)[archive.MANIFEST]
    forged = forge(members, tmp_path / "forged.pt")
    refused(forged, "the method __getstate__, which would run while it loads")
    with pytest.raises(ModelError):
        torchscript.load(forged)
    assert not written.exists()
    with pytest.raises(ModelError, match="__getstate__"):
        bundle.write_bundle(module, manifest(), tmp_path / "m.pt")


def test_setstate_alone_is_refused_too(lone: Path) -> None:
    members = members_of(lone)
    name = code_of(members)
    method = b"  def __setstate__(self: __torch__.X, state: Tensor) -> NoneType:\n    return None\n"
    members[name] = members[name].rstrip(b"\n") + b"\n" + method
    refused(forge(members, lone), "__setstate__, which would run while it loads")


class ReadsAFile(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        return {"score": torch.from_file("/etc/hostname", False, 4)}


def test_a_model_that_reads_a_file_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"torch\.from_file, which is not on the list of allowed operators"):
        bundle.write_bundle(compiled(ReadsAFile()), manifest(), tmp_path / "m.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('y = torch.from_file("/etc/hostname", False, 4)', r"torch\.from_file"),
        ('y = ("/etc/hostname").from_file(False, 4)', "'from_file' of a value"),
        ('y = (window).save("/tmp/x")', "'save' of a value"),
        ('torch.save(window, "/tmp/x")', r"torch\.save"),
        ('y = torch.load("/tmp/x")', r"torch\.load"),
        ("y = torch.empty([4])", r"torch\.empty"),
        ("y = (window).resize_([4000])", "'resize_' of a value"),
        ("y = torch.rand([4])", r"torch\.rand"),
        ('y = ops.aten.from_file("/etc/hostname")', r"ops\.aten\.from_file"),
        ('ops.prim.Print("hello")', r"ops\.prim\.Print"),
        ('ops.image.read_file("/etc/hostname")', r"ops\.image\.read_file"),
        ("y = __torch__.torch.classes.rnn.CellParamsBase()", r"__torch__\.torch\.classes"),
        ("f = torch.from_file", r"torch\.from_file"),
        ("t = torch", "the whole of 'torch'"),
        ('y = getattr(torch, "from_file")', "'from_file' of a value"),
        ('y = getattr(window, "data_ptr")', "'data_ptr' of a value"),
        ('y = getattr(self, "missing")', "'missing', which"),
        ("y = (self.lstm).missing()", "'missing', which"),
        ('print("hello")', r"print\(\)"),
        ('y = eval("1")', r"eval\(\)"),
        ("y = fork(window)", r"fork\(\)"),
        ("p = print", None),
        ("self.head = window", "may not carry state from call to call"),
        ("import os", "a statement that torch does not write"),
        ("with window: pass", "a statement that torch does not write"),
        ("def inner(x: Tensor) -> Tensor: return x", "a statement that torch does not write"),
        ("y = lambda x: x", "an expression that torch does not write"),
        ("y = [x for x in window]", "an expression that torch does not write"),
        ("torch = window", "'torch' as a variable"),
        ("int = window", "'int' as a variable"),
        ("y = annotate(List[int], [])", None),
        ("y = 1  # a comment", "'#' is nothing that torch writes"),
        ("y = 'single'", '"\'" is nothing that torch writes'),
        ('y = r"\\\\"', "is nothing that torch writes"),
        ('y = """three"""', "is nothing that torch writes"),
        ('y = "a" "b"', "is nothing that torch writes"),
        ("y = 1; z = 2", "';' is nothing that torch writes"),
        ("y = 1 \\\n    + 1", "is nothing that torch writes"),
        ("y = é", "the code cannot be read"),
        ("y = (1", "the code cannot be read"),
        ("y = " + "(" * 5000 + "1" + ")" * 5000, "the code cannot be read"),
        ("y = " + "-" * 20000 + "1", "the code cannot be read|nested too deeply"),
        ("y = 1" + " + 1" * 20000, "the code cannot be read|nested too deeply"),
    ],
)
def test_one_line_of_code_decides(line: str, sentence: str | None, lone: Path) -> None:
    path = with_line(lone, line)
    if sentence is None:
        assert bundle.open_bundle(path)
    else:
        refused(path, sentence)


def test_the_refusal_names_member_and_line(lone: Path) -> None:
    error = refused(with_line(lone, 'y = torch.from_file("/etc/hostname", False, 4)'), "from_file")
    member, _, line = error.place.removeprefix(f"{lone}, ").rpartition(":")
    assert "from_file" in members_of(lone)[member].decode().splitlines()[int(line) - 1]


def test_a_method_named_like_an_operator_opens_no_way_to_the_operator(lone: Path) -> None:
    """The class may have a method `from_file`; a string has none that is allowed."""
    path = with_line(lone, 'y = (self).from_file("/etc/hostname")')
    members = members_of(path)
    name = code_of(members)
    kind = re.search(r"self: ([\w.]+)", members[name].decode())
    assert kind is not None
    method = f"  def from_file(self: {kind[1]}, name: str) -> str:\n    return name\n"
    members[name] = members[name].rstrip(b"\n") + b"\n" + method.encode()
    assert bundle.open_bundle(forge(members, path))
    members[name] = members[name].replace(b'(self).from_file("/etc/hostname")', b'("/etc/hostname").from_file()')
    refused(forge(members, path), "'from_file' of a value")
    members[name] = members[name].replace(
        b'y = ("/etc/hostname").from_file()', b'y = self\n    y = "/etc/hostname"\n    z = (y).from_file()'
    )
    refused(forge(members, path), "'from_file' of a value")


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("  __forward_hooks__ = [__torch__.hook, ]\n", "__forward_hooks__"),
        ("  handle : __torch__.torch.classes.x.Y\n", r"the type __torch__\.torch\.classes\.x\.Y"),
        ("  handle : Generator\n", "the type 'Generator'"),
        ("  @property\n  def p(self) -> int:\n    return 1\n", "'@' is nothing|in a form that torch does not write"),
        ("  def __del__(self) -> int:\n    return 1\n", "the method __del__"),
        ("  print(1)\n", "in a class"),
        ("  a = b = 1\n", "in a class"),
        ("  globals()[0] = Tensor\n", "in a class"),
        ("  lstm : str\n", r"the name LstmAnomaly\.lstm twice"),
        ("  def forward(self: Tensor) -> Tensor:\n    return self\n", r"the name LstmAnomaly\.forward twice"),
    ],
)
def test_one_line_of_a_class_decides(part: str, sentence: str, lone: Path) -> None:
    members = members_of(lone)
    name = code_of(members)
    members[name] = members[name].rstrip(b"\n") + b"\n" + part.encode()
    refused(forge(members, lone), sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\n", "outside of a function"),
        ("class A(Interface):\n  pass\n", "a Interface"),
        ("class A(__torch__.torch.classes.x.Y):\n  pass\n", "the class A is a"),
        ("class A(Module, metaclass=Module):\n  pass\n", "is decorated"),
        ("def f(*x: int) -> int:\n  return 1\n", "in a form that torch does not write"),
    ],
)
def test_one_line_of_a_file_decides(text: str, sentence: str, lone: Path) -> None:
    refused(forge(members_of(lone) | {"code/__torch__/more.py": text.encode()}, lone), sentence)


def test_a_class_that_pretends_to_be_a_librarys_is_refused(lone: Path) -> None:
    """torch would take the library's own of that name, whose methods nobody has read."""
    fake = b"class Store(Module):\n  def set(self: __torch__.torch.classes.dist.Store) -> int:\n    return 1\n"
    refused(forge(members_of(lone) | {"code/__torch__/torch/classes/dist.py": fake}, lone), "for something else")


def test_code_that_belongs_to_no_module_is_refused(lone: Path) -> None:
    refused(
        forge(members_of(lone) | {"code/torch/_utils.py": b"class A(Module):\n  pass\n"}, lone), "no model file has"
    )


def test_code_without_end_is_not_parsed(lone: Path) -> None:
    members = members_of(lone) | {"code/__torch__/more.py": b"def f() -> int:\n  return 1\n" * 200_000}
    refused(forge(members, lone), "longer than|would unpack")


@pytest.mark.parametrize(
    ("pickled", "sentence"),
    [
        (b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.", r"names 'os\.system'"),
        (b"\x80\x02ctorch\nload\n.", r"names 'torch\.load'"),
        (b"\x80\x02c__torch__\nMissing\n.", r"names '__torch__\.Missing'"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "uses STACK_GLOBAL"),
        (b"\x80\x02(ios\nsystem\n.", "uses INST"),
        (b"\x80\x02Pname\n.", "uses PERSID"),
        (b"\x80\x02N.cos\nsystem\n.", "goes on after its end"),
        (b"\x80\x02", "cannot be read"),
        (b"", "cannot be read|goes on"),
        (b"\xff\xff", "cannot be read"),
    ],
)
@pytest.mark.parametrize("name", ["data.pkl", "constants.pkl"])
def test_a_pickle_may_name_tensors_and_the_files_own_classes_only(
    name: str, pickled: bytes, sentence: str, lone: Path
) -> None:
    refused(forge(members_of(lone) | {name: pickled}, lone), sentence)


def test_nothing_on_the_list_takes_a_path_or_gives_memory_that_was_never_written() -> None:
    outside = """
    from_file save load set_ set_data resize_ empty empty_like new_empty rand randn normal_ manual_seed cuda pin_memory
    record_stream data_ptr as_strided
    """.split()  # noqa: SIM905
    assert not TORCH.intersection(outside)
    assert not {"prim.Print", "prim.PythonOp", "prim.rpc_async"} & OPS


def test_every_operator_on_the_list_exists_in_this_torch() -> None:
    """A typing error in the list would refuse a sound model."""
    known = {s.name.partition("::")[2] for s in torch._C._jit_get_all_schemas()}
    assert sorted(TORCH - known - {"_upsample_lanczos2d_aa", "broadcast_shapes"}) == []  # which torch 2.10 lacks
