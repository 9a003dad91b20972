"""Models on TorchScript: the suite of the seam, and models that break their word."""

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from runtimes.model_suite import check_model, same, windows
from runtimes.samples import LENGTH, SAMPLES, compiled, forge, manifest, members_of, sample
from transom.core.explain import explain
from transom.core.model import Target
from transom.errors import ModelError
from transom.runtimes import bundle, torchscript


@pytest.fixture(scope="module")
def lstm(files: dict[str, Path]) -> torchscript.TorchScriptModel:
    return torchscript.load(files["lstm"])


@pytest.mark.parametrize("name", SAMPLES)
def test_each_family_keeps_the_promises_of_the_seam(files: dict[str, Path], name: str) -> None:
    check_model(torchscript.load(files[name]))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_loaded_file_gives_the_numbers_of_the_compiled_module(files: dict[str, Path], name: str) -> None:
    module, _ = sample(name)
    model = torchscript.load(files[name])
    values = windows(model, 20, seed=1)
    with torch.inference_mode():
        expected = module(torch.from_numpy(values))
    for key, array in model.infer(values).items():
        np.testing.assert_allclose(array, expected[key].numpy(), atol=1e-5, rtol=1e-5)


def test_every_batch_size_to_70_gives_the_same_bits(lstm: torchscript.TorchScriptModel) -> None:
    values = windows(lstm, 70)
    whole = lstm.infer(values)
    for count in range(1, 71):
        for key, array in lstm.infer(values[:count]).items():
            assert same(array, whole[key][:count]), (key, count)


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, 150), max_size=8), seed=st.integers(0, 1000))
def test_any_split_gives_the_same_bits(lstm: torchscript.TorchScriptModel, cuts: list[int], seed: int) -> None:
    values = windows(lstm, 150, seed)
    whole = lstm.infer(values)
    edges = sorted({0, *cuts, 150})
    for start, end in pairwise(edges):
        for key, array in lstm.infer(values[start:end]).items():
            assert same(array, whole[key][start:end]), (key, start, end)


def test_no_windows_give_empty_outputs(lstm: torchscript.TorchScriptModel) -> None:
    outputs = lstm.infer(np.empty((0, LENGTH, 2), np.float32))
    assert {key: array.shape for key, array in outputs.items()} == {
        "score": (0,), "contribution": (0, 2), "expected": (0, 2), "interval": (0, 2, 2),
    }  # fmt: skip


def test_the_parameters_are_counted_before_freezing_folds_them(lstm: torchscript.TorchScriptModel) -> None:
    assert lstm.parameters == sum(p.numel() for p in SAMPLES["lstm"][0]().parameters())


def test_the_number_of_threads_is_kept(files: dict[str, Path]) -> None:
    torchscript.load(files["cnn"], threads=2, batch_sizes=(2,))
    assert torch.get_num_threads() == 2
    torchscript.load(files["cnn"], threads=1, batch_sizes=(2,))
    assert torch.get_num_threads() == 1


def test_a_batch_size_of_one_is_refused(files: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="batch sizes"):
        torchscript.load(files["cnn"], batch_sizes=(1, 4))


def test_what_is_loaded_is_what_was_verified(lone: Path) -> None:
    """The file is replaced between verification and loading; the replacement is never looked at."""
    verified = bundle.open_bundle(lone)
    lone.write_bytes(b"something else")
    assert torchscript.from_bundle(verified, batch_sizes=(2,)).manifest.name == "sample"


class NoContribution(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        return {"score": window.nan_to_num().sum((1, 2)).abs()}


class WrongShape(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        last = window[:, -1].nan_to_num().abs()
        return {"score": last, "contribution": last, "expected": last}


class WrongType(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        last = window[:, -1].nan_to_num().abs()
        return {"score": last.sum(1).double(), "contribution": last, "expected": last}


class BareTensor(nn.Module):
    def forward(self, window: Tensor) -> Tensor:
        return window


class WrongChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 1)

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        return {"score": self.linear(window).sum((1, 2))}


class Raises(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        if window.size(0) > 2:
            raise ValueError("too many rows")
        last = window[:, -1].nan_to_num().abs()
        return {"score": last.sum(1), "contribution": last, "expected": last}


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (NoContribution, "gives no 'contribution'; the task anomaly promises score, contribution, expected"),
        (WrongShape, r"gives 'score' as float32 \[256, 2\]; the task anomaly promises float32 \[B\]"),
        (WrongType, r"gives 'score' as float64"),
        (BareTensor, "gives no 'score'"),
        (WrongChannels, "fails on a batch"),
        (Raises, "fails on a batch .*too many rows"),
    ],
)
def test_a_model_that_breaks_its_word_is_refused_before_it_runs(
    module: type[nn.Module], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "broken.pt"
    bundle.write_bundle(compiled(module()), manifest(), path)
    with pytest.raises(ModelError, match=sentence) as refusal:
        torchscript.load(path)
    assert "broken.pt" in str(refusal.value)
    assert "\n" not in str(refusal.value)


class ChangesItsInput(nn.Module):
    def forward(self, window: Tensor) -> dict[str, Tensor]:
        window.nan_to_num_().abs_()
        return {"score": window[:, -1].sum(1), "contribution": window[:, -1], "expected": window[:, 0]}


def test_a_model_that_writes_into_its_input_writes_into_a_copy(tmp_path: Path) -> None:
    bundle.write_bundle(compiled(ChangesItsInput()), manifest(), tmp_path / "m.pt")
    check_model(torchscript.load(tmp_path / "m.pt"))


def test_code_that_torch_cannot_compile_is_an_error_in_plain_words(lone: Path) -> None:
    members = members_of(lone)
    key = next(n for n in members if b"class LstmAnomaly" in members[n])
    members[key] = members[key].replace(b"torch.square(", b"torch.cat(")
    with pytest.raises(ModelError, match=r"torch .* cannot load it"):
        torchscript.load(forge(members, lone))


def test_without_torch_the_error_says_so(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match="torch: cannot be imported"):
        torchscript.load(files["lstm"])


def test_a_torch_whose_libraries_do_not_load_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "torch":
                raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ModelError, match=r"libgomp\.so\.1"):
        torchscript.import_torch()


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "finding"),
    [
        ("x86_64", "flags\t\t: fpu sse4_2 avx avx2 fma\n", None),
        ("x86_64", "flags\t\t: fpu sse4_2 avx\n", "lacks avx2"),
        ("aarch64", "Features\t: fp asimd evtstrm crc32\n", None),
        ("arm64", "Features\t: fp asimd\n", None),
        ("aarch64", "Features\t: fp evtstrm\n", "lacks asimd"),
        ("armv7l", "Features\t: neon\n", "no builds for armv7l"),
        ("x86_64", "", None),
    ],
)
def test_a_processor_that_torch_was_not_built_for_is_named(machine: str, cpuinfo: str, finding: str | None) -> None:
    found = torchscript.cpu_findings(cpuinfo, machine)
    assert (finding is None and not found) or (finding is not None and finding in found[0])


# --- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_an_explanation_adds_up_whatever_is_missing(files: dict[str, Path], name: str) -> None:
    model = torchscript.load(files[name])
    values = np.random.default_rng(0).normal(size=(2, LENGTH, 2)).astype(np.float32)
    values[0, 3:5, 1] = np.nan
    found = explain(model, values[0], values[1], pieces=64)
    assert found.method == "integrated gradients"
    assert abs(found.gap) <= 0.05 * abs(found.value - found.reference_value) + 0.01
    assert (found.share[3:5, 1] == 0).all()


def test_gradients_are_those_of_small_differences(lstm: torchscript.TorchScriptModel) -> None:
    values = np.random.default_rng(1).normal(size=(1, LENGTH, 2)).astype(np.float32)
    slope = lstm.gradients(values, Target("score", (), "score"))
    for t, c in ((LENGTH - 1, 0), (LENGTH - 2, 1), (2, 0)):
        up, down = values.copy(), values.copy()
        up[0, t, c] += 0.01
        down[0, t, c] -= 0.01
        seen = (lstm.infer(up)["score"] - lstm.infer(down)["score"]) / 0.02
        assert slope[0, t, c] == pytest.approx(seen[0], rel=0.05, abs=2e-3)


def test_gradients_change_no_bit_of_what_is_inferred(lstm: torchscript.TorchScriptModel) -> None:
    values = windows(lstm, 20)
    before = lstm.infer(values)
    for _ in range(3):
        lstm.gradients(values, Target("score", (), "score"))
    assert all(same(array, before[key]) for key, array in lstm.infer(values).items())


def test_a_target_that_the_model_does_not_give_is_an_error_with_a_remedy(lstm: torchscript.TorchScriptModel) -> None:
    with pytest.raises(ModelError, match=r"gives no gradient of nothing .*; explain it by occlusion"):
        lstm.gradients(windows(lstm, 2), Target("nothing", (), "nothing"))
