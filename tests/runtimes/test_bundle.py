"""Model files: written, verified, found; and each way in which a file can be wrong has its own sentence."""

import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from runtimes.samples import LstmAnomaly, compiled, forge, manifest, members_of, sample
from transom.core.model import decode_manifest
from transom.core.pipeline import Pipeline
from transom.core.stream import StreamSpec
from transom.edge.assembly import describe
from transom.errors import ModelError
from transom.runtimes import archive, bundle, torchscript


def refused(path: Path, sentence: str, sha256: str | None = None) -> None:
    with pytest.raises(ModelError, match=sentence) as refusal:
        bundle.open_bundle(path, sha256)
    assert str(path) in refusal.value.place or path.name in refusal.value.place
    assert refusal.value.remedy
    assert "\n" not in str(refusal.value)


# A sound file


def test_what_was_written_is_what_is_read(files: dict[str, Path]) -> None:
    opened = bundle.open_bundle(files["lstm"])
    data = files["lstm"].read_bytes()
    assert opened.manifest == msgspec.structs.replace(
        manifest(), content_sha256=opened.manifest.content_sha256, torch=torch.__version__
    )
    assert (opened.size, opened.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert opened.manifest.content_sha256 == archive.content_sha256(opened.members)


def test_two_saves_of_a_module_are_the_same_file(tmp_path: Path) -> None:
    module, described = sample("lstm")
    first = bundle.write_bundle(module, described, tmp_path / "a.pt")
    second = bundle.write_bundle(module, described, tmp_path / "b.pt")
    assert first == second
    assert len(first.content_sha256) == 64
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_another_process_writes_the_same_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from runtimes.samples import sample; from transom.runtimes import bundle;"
        "bundle.write_bundle(*sample('cnn'), Path(sys.argv[1]))"
    )
    for seed in ("1", "2"):  # of Python's sets, in whose order torch writes constants
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / f"{seed}.pt")], env=environment, check=True)
    assert (tmp_path / "1.pt").read_bytes() == (tmp_path / "2.pt").read_bytes()


def test_torch_itself_gives_each_save_another_number_and_the_digest_leaves_it_out() -> None:
    module, _ = sample("lstm")
    saves = []
    for _ in range(2):
        buffer = io.BytesIO()
        with bundle.quiet():
            torch.jit.save(module, buffer)
        saves.append(archive.unpack(buffer.getvalue(), "memory"))
    assert archive.content_sha256(saves[0]) == archive.content_sha256(saves[1])


def test_the_digest_follows_the_weights_and_the_code(tmp_path: Path) -> None:
    module, described = sample("lstm")
    before = bundle.write_bundle(module, described, tmp_path / "m.pt").content_sha256
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] += 1
    assert bundle.write_bundle(module, described, tmp_path / "m.pt").content_sha256 != before


def test_the_file_says_nothing_of_the_machine_that_wrote_it(files: dict[str, Path]) -> None:
    everything = b"".join(members_of(files["lstm"]).values())
    assert str(Path(__file__).parent).encode() not in everything
    assert torch.__file__.encode() not in everything


def test_sha256sum_accepts_the_digest_beside_the_file(files: dict[str, Path]) -> None:
    folder = files["lstm"].parent
    subprocess.run(["sha256sum", "--check", "--strict", "lstm.pt.sha256"], cwd=folder, check=True, capture_output=True)


def test_reading_never_imports_torch(files: dict[str, Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from transom.runtimes import bundle;"
        f"print(bundle.open_bundle(Path({str(files['lstm'])!r})).manifest.label); assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "sample@1"


def test_torch_loads_the_file_itself_too(files: dict[str, Path]) -> None:
    """The file stays a plain TorchScript archive; the manifest is an extra file as torch knows them."""
    extra = {"manifest.json": ""}
    with bundle.quiet():
        torch.jit.load(str(files["lstm"]), _extra_files=extra)
    assert decode_manifest(bytes(extra["manifest.json"])).name == "sample"  # type: ignore[arg-type]


# Writing


def test_a_module_that_would_be_refused_is_not_written_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    bundle.write_bundle(*sample("lstm"), path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    with pytest.raises(ModelError, match=r"torch\.rand"):
        bundle.write_bundle(compiled(Random()), manifest(), path)
    with pytest.raises(ModelError, match="length: 0"):
        bundle.write_bundle(sample("lstm")[0], manifest(length=0), path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


class Random(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        return {"score": torch.rand(window.size(0))}


def test_a_folder_that_is_missing_is_the_systems_own_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bundle.write_bundle(*sample("lstm"), tmp_path / "missing" / "m.pt")
    assert not list(tmp_path.iterdir())


# Foreign files


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the file is empty"),
        (b"name,value\n1,2\n", "a text file"),
        (b"[broker]\nhost = 1\n", "a text file"),
        (bytes(4096), "zero bytes"),
        (pickle.dumps({"weights": [1.0]}), "a Python pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
        (b"\x08\x08\x12\x07pytorch\x1a\x06" + bytes(100), "an ONNX file"),
        (b"\x7fELF\x02\x01\x01" + bytes(60), "not an archive"),
        (b"PK\x03\x04", "cut off"),
    ],
)
def test_a_foreign_file_is_told_apart(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    refused(path, sentence)


def test_a_checkpoint_of_weights_is_no_model(tmp_path: Path) -> None:
    torch.save(LstmAnomaly().state_dict(), tmp_path / "m.pt")
    refused(tmp_path / "m.pt", r"a checkpoint of weights written by torch\.save")


def test_a_zip_of_something_else_is_no_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as z:
        z.writestr("letter/page.txt", "hello")
    refused(tmp_path / "m.pt", "a zip archive, not a compiled model")


def test_a_torchscript_file_without_a_manifest_is_no_model(tmp_path: Path) -> None:
    with bundle.quiet():
        torch.jit.save(sample("lstm")[0], str(tmp_path / "m.pt"))
    refused(tmp_path / "m.pt", "a TorchScript file without a manifest")


def test_a_missing_file_a_folder_and_a_pipe_are_refused_without_waiting(tmp_path: Path) -> None:
    refused(tmp_path / "none.pt", "there is no such file")
    refused(tmp_path, "a folder")
    os.mkfifo(tmp_path / "pipe.pt")
    refused(tmp_path / "pipe.pt", "not a regular file")


def test_a_file_without_permission_is_named(lone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")  # root, as whom CI runs, reads everything

    monkeypatch.setattr(os, "open", denied)
    refused(lone, "cannot be read")


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "m.pt").open("wb") as file:
        file.truncate(bundle.MAX_SIZE + 1)
    refused(tmp_path / "m.pt", "268,435,457 bytes")


# Damaged files


@settings(max_examples=60)
@given(data=st.data())
def test_a_flipped_bit_is_refused_or_changes_nothing_that_is_loaded(
    files: dict[str, Path], data: st.DataObject
) -> None:
    whole = bytearray(files["lstm"].read_bytes())
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= 1 << data.draw(st.integers(0, 7))
    path = files["lstm"].with_name("flipped.pt")
    path.write_bytes(whole)
    try:
        members = bundle.open_bundle(path).members
    except ModelError:
        return
    assert members == bundle.open_bundle(files["lstm"]).members


def test_a_flipped_bit_in_the_weights_is_damage(lone: Path) -> None:
    whole = bytearray(lone.read_bytes())
    whole[whole.find(b"model/data/0") + 40] ^= 1
    lone.write_bytes(whole)
    refused(lone, r"damaged \(Bad CRC-32 for file 'model/data/0'\)")


@settings(max_examples=40)
@given(share=st.floats(0, 0.9999))
def test_a_truncated_file_is_refused(files: dict[str, Path], share: float) -> None:
    whole = files["lstm"].read_bytes()
    path = files["lstm"].with_name("cut.pt")
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path, "cut off|empty|not an archive|text file")


@settings(max_examples=60)
@given(
    content=st.binary(max_size=2000), prefix=st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x80"])
)
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, prefix: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.pt"
    path.write_bytes(prefix + content)
    refused(path, "random.pt")


def test_a_digest_beside_the_file_must_agree(files: dict[str, Path], lone: Path) -> None:
    sidecar = lone.with_name("lone.pt.sha256")
    sidecar.write_text(f"{hashlib.sha256(lone.read_bytes()).hexdigest()}  other-name.pt\n")
    assert bundle.open_bundle(lone)
    sidecar.write_text(f"{'0' * 64}  lone.pt\n")
    refused(lone, r"the file's SHA-256 is [0-9a-f]{12}… and lone\.pt\.sha256 says 000000000000…")
    sidecar.write_text("nothing of use\n")
    with pytest.raises(ModelError, match="holds no SHA-256 digest"):
        bundle.open_bundle(lone)


def test_a_list_of_digests_in_the_folder_must_agree(lone: Path) -> None:
    digest = hashlib.sha256(lone.read_bytes()).hexdigest()
    sums = lone.with_name("SHA256SUMS")
    sums.write_text(f"{'1' * 64}  other.pt\n{digest} *lone.pt\n")
    assert bundle.open_bundle(lone)
    sums.write_text(f"{'1' * 64}  other.pt\n{'2' * 64}  lone.pt\n")
    refused(lone, "SHA256SUMS says 222222222222")
    sums.write_text(f"{'1' * 64}  other.pt\n")
    assert bundle.open_bundle(lone)


def test_a_pinned_digest_must_agree_and_comes_before_all_else(lone: Path) -> None:
    digest = hashlib.sha256(lone.read_bytes()).hexdigest()
    assert bundle.open_bundle(lone, digest.upper())
    refused(lone, "model_sha256 says 333333333333", "3" * 64)
    lone.write_bytes(b"not even an archive")
    refused(lone, "model_sha256 says", digest)


def test_a_changed_manifest_is_found_by_the_digest_beside_it(files: dict[str, Path], tmp_path: Path) -> None:
    """The content's digest leaves the manifest out, since it stands in it; the file's digest does not."""
    path = tmp_path / "m.pt"
    bundle.write_bundle(*sample("lstm"), path)
    members = members_of(path)
    members[archive.MANIFEST] = members[archive.MANIFEST].replace(b'"learning": 0', b'"learning": 9')
    path.write_bytes(archive.pack(members))
    refused(path, r"m\.pt\.sha256 says")


def test_weights_changed_with_the_manifest_kept_are_found_without_any_other_digest(lone: Path) -> None:
    members = members_of(lone)
    weights = bytearray(members["data/0"])
    weights[0] ^= 1
    lone.write_bytes(archive.pack({**members, "data/0": bytes(weights)}))
    refused(lone, "the content has the digest")


# Manifests


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"length": "64"}, r"Expected `int`, got `str` - at `\$\.length`"),
        ({"task": "guess"}, r"Invalid enum value 'guess' - at `\$\.task`"),
        ({"channels": [{"unit": "K"}]}, r"missing required field `name` - at `\$\.channels\[0\]`"),
        ({"format": 2}, r"format: 2 is not known here \(known: 1\)"),
        ({"name": ""}, "name: ''"),
        ({"version": "1/2"}, "version: '1/2'"),
        ({"length": 0}, "length: 0"),
        ({"length": 10_000_000}, "length: 10000000 steps"),
        ({"stride": 0}, "stride: 0"),
        ({"min_steps": 13}, "min_steps: 13"),
        ({"learning": -1}, "learning: -1"),
        ({"step": 0}, "step: 0"),
        ({"channels": []}, "channels: 0 channels"),
        ({"channels": [{"name": "a"}, {"name": "a"}]}, "channels: 'a' stands there twice"),
        ({"channels": [{"name": ""}]}, "channels: a channel has no name"),
        ({"task": "forecast"}, "horizon: 0"),
        ({"task": "forecast", "horizon": 2}, "quantiles: none"),
        ({"task": "forecast", "horizon": 2, "quantiles": [0.9, 0.1]}, "quantiles:"),
        ({"task": "classify"}, "classes:"),
        ({"task": "classify", "classes": ["a", "a"]}, "classes:"),
        (
            {"calibration": {"scores": [1, 2], "p_values": [0.5], "tail_scale": 1}},
            "calibration: 2 scores and 1 p_values",
        ),
        ({"calibration": {"scores": [2, 1], "p_values": [0.5, 0.1], "tail_scale": 1}}, r"calibration\.scores"),
        ({"calibration": {"scores": [1, 2], "p_values": [0.1, 0.5], "tail_scale": 1}}, r"calibration\.p_values"),
        ({"calibration": {"scores": [1, 2], "p_values": [0.5, 0.0], "tail_scale": 1}}, r"calibration\.p_values"),
        ({"calibration": {"scores": [1, 2], "p_values": [0.5, 0.1], "tail_scale": 0}}, r"calibration\.tail_scale"),
    ],
)
def test_a_manifest_that_no_model_can_run_with_names_its_field(changes: Any, sentence: str, lone: Path) -> None:
    refused(forge(members_of(lone), lone, **changes), sentence)


@pytest.mark.parametrize(
    ("content", "sentence"), [(b"{", "is not JSON"), (b"\xff", "is not JSON"), (b"[]", "Expected `object`")]
)
def test_a_manifest_that_is_no_object_is_refused(content: bytes, sentence: str, lone: Path) -> None:
    lone.write_bytes(archive.pack(members_of(lone) | {archive.MANIFEST: content}))
    refused(lone, sentence)


# Archives made to harm


def packed(path: Path, *entries: tuple[str, bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as z:
        for name, data in entries:
            z.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "name", ["model/../../etc/passwd", "/model/data.pkl", "model//data.pkl", "model/a\\b", "data.pkl"]
)
def test_a_name_that_leads_out_of_the_archive_is_refused(name: str, tmp_path: Path) -> None:
    refused(packed(tmp_path / "m.pt", (name, b"x")), "unsafe name")


def test_an_archive_that_grows_without_end_is_not_unpacked(tmp_path: Path) -> None:
    bomb = packed(tmp_path / "m.pt", ("model/data/0", bytes(50_000_000)), kind=zipfile.ZIP_DEFLATED)
    refused(bomb, r"'model/data/0' would unpack from [\d,]+ to 50,000,000 bytes")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED", 1000)
    refused(packed(tmp_path / "m.pt", ("model/data/0", bytes(600)), ("model/data/1", bytes(600))), "1,200 bytes")


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_member_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    """zipfile and torch may read another one of the two."""
    twice = packed(tmp_path / "m.pt", ("model/code/__torch__.py", b""), ("model/code/__torch__.py", b""))
    refused(twice, "'model/code/__torch__.py' twice")


def test_two_top_folders_and_unknown_packings_are_refused(tmp_path: Path) -> None:
    refused(packed(tmp_path / "m.pt", ("a/data.pkl", b""), ("b/data.pkl", b"")), "more than one top folder")
    refused(packed(tmp_path / "m.pt", ("a/data.pkl", b"x" * 99), kind=zipfile.ZIP_BZIP2), "packed in a way")


@pytest.mark.parametrize(
    "name", ["bytecode.pkl", "code/__torch__.py.debug_pkl", "traced_inputs.pkl", "extra/more.json"]
)
def test_a_member_that_no_model_file_has_is_refused(name: str, lone: Path) -> None:
    refused(forge(members_of(lone) | {name: b"x"}, lone), re.escape(f"the archive holds {name!r}"))


# Names


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation that ships `universal` and `vibration`."""
    folder = tmp_path / "installed" / "transom_models" / "pretrained"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('a running agent imported the training side')")
    for name in ("universal", "vibration"):
        (folder / f"{name}.pt").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    for name in [n for n in sys.modules if n.partition(".")[0] == "transom_models"]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def test_a_shipped_model_is_found_by_its_name_without_importing_its_package(shipped: Path, tmp_path: Path) -> None:
    assert bundle.shipped_models() == {n: shipped / f"{n}.pt" for n in ("universal", "vibration")}
    assert bundle.find_model("universal", tmp_path) == shipped / "universal.pt"


def test_a_path_is_relative_to_the_folder_of_the_configuration(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "my.pt").write_bytes(b"")
    assert bundle.find_model("my.pt", tmp_path) == tmp_path / "my.pt"
    assert bundle.find_model(str(tmp_path / "my.pt"), Path("/elsewhere")) == tmp_path / "my.pt"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("univrsal", "there is no model 'univrsal'; did you mean 'universal'? shipped: universal, vibration"),
        ("zzz", "there is no model 'zzz'; shipped: universal, vibration"),
        ("models/my.pt", "there is no such model file"),
        ("", "there is no model ''"),
    ],
)
def test_an_unknown_name_gives_the_known_ones(name: str, sentence: str, shipped: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=re.escape(sentence)):
        bundle.find_model(name, tmp_path)


def test_info_and_snapshots_follow_the_whole_file_calibration_too(tmp_path: Path) -> None:
    module, described = sample("lstm")
    stream = StreamSpec("s", "plant/{device}/{channel}")
    told, prints = [], []
    for name, data in (("a.pt", "one recording"), ("b.pt", "another")):
        bundle.write_bundle(module, msgspec.structs.replace(described, data=data), tmp_path / name)
        pipeline = Pipeline([(stream, torchscript.load(tmp_path / name))])
        told.append(describe(pipeline)[0]["sha256"])
        prints.append(pipeline.streams["s"].fingerprint())
    assert told == [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.pt", "b.pt")]
    assert prints[0] != prints[1]
