"""Recipes: what they may hold, what they are made from, and that the shipped models are what theirs make."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transom import scenes
from transom.cli import main
from transom.errors import ModelError, RecordingError
from transom.runtimes import bundle
from transom.scenes.home import material as homes
from transom_models import material, meters, prescription, recipe

RECIPES = sorted(p.stem for p in (Path(recipe.__file__).parent / "recipes").glob("*.toml"))
SMALL = """\
name = "small"
version = "3"
data = { scene = "home", stream = "freezer", hours = 24, seed = 5, every = 40 }
units = { power = "W" }
task = "anomaly"
method = "residual"
family = "lstm"
length = 12
hidden = 4
epochs = 1
seed = 0
manifest = { learning = 7 }
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe that takes a second, of fewer homes."""
    monkeypatch.setattr(homes, "HOMES", 20)
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_a_shipped_model_has_a_recipe_and_a_digest_and_is_small() -> None:
    shipped = bundle.shipped_models()
    assert set(shipped) <= set(RECIPES)
    for name, path in shipped.items():
        opened = bundle.open_bundle(path)
        assert opened.manifest.name == name
        assert path.stat().st_size < 300_000
        assert (
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" in (path.parent / "SHA256SUMS").read_text()
        )


@pytest.mark.parametrize("name", [n for n in RECIPES if n != "universal"])
def test_a_shipped_model_says_of_itself_what_its_recipe_says(name: str) -> None:
    said, manifest = recipe.read(name), bundle.open_bundle(bundle.shipped_models()[name]).manifest
    assert (manifest.name, manifest.version, manifest.task, manifest.family) == (
        said["name"], said["version"], said["task"], said["family"],
    )  # fmt: skip
    assert manifest.horizon == (said["horizon"] if said["task"] == "forecast" else 0)
    assert manifest.created == ""
    for key, value in said.get("manifest", {}).items():
        assert getattr(manifest, key) == value
    assert manifest.data.startswith("simulated: " if "scene" in said["data"] else said["data"]["folder"])


def test_the_same_recipe_gives_the_same_file(small: Path, tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        output = tmp_path / name / "small.pt"
        output.parent.mkdir()
        assert main(["train", "--recipe", str(small), "--output", str(output)]) == 0
        files.append(output.read_bytes())
    assert files[0] == files[1]
    manifest = bundle.open_bundle(tmp_path / "a" / "small.pt").manifest
    assert (manifest.version, manifest.learning, manifest.step) == ("3", 7, 300_000)
    assert [(c.name, c.unit) for c in manifest.channels] == [("power", "W"), ("temperature", "")]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"familly": "lstm"}, "unknown key 'familly'"),
        ({"length": "64"}, "'64' is of the wrong type"),
        ({"data": {"scene": "home", "stream": "air"}}, "has no 'hours'"),
        ({"manifest": {"name": "x"}}, "may not set name"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_place(change: dict[str, Any], sentence: str) -> None:
    right = {"name": "a", "version": "1", "task": "forecast", "family": "lstm", "data": {"folder": "x"}}
    prescription.check(right, "recipe")
    with pytest.raises(ModelError, match=sentence):
        prescription.check(right | change, "recipe")


def test_an_unknown_recipe_scene_or_stream_names_those_that_there_are() -> None:
    with pytest.raises(ModelError, match="home-air"):
        recipe.read("home-aire")
    with pytest.raises(ModelError, match="there are plant"):
        material.simulated({"scene": "moon", "stream": "air", "hours": 1, "seed": 0}, "recipe")
    with pytest.raises(ModelError, match="contacts, air"):
        material.simulated({"scene": "home", "stream": "noise", "hours": 1, "seed": 0}, "recipe")


def test_real_data_is_found_in_its_folder_or_asked_for_with_its_source(tmp_path: Path) -> None:
    data = {"folder": "acsf1", "files": ["*.ts"], "source": "archive.example"}
    with pytest.raises(ModelError, match=r"which is not shipped.*archive\.example"):
        material.files(data, [], "recipe")
    with pytest.raises(ModelError, match="holds no"):
        material.files(data, [tmp_path], "recipe")
    (tmp_path / "acsf1").mkdir()
    file = tmp_path / "acsf1" / "A.ts"
    file.write_text("")
    for given in (tmp_path, tmp_path / "acsf1", file):
        assert material.files(data, [given], "recipe") == [file]


def test_watts_come_back_from_standardised_cases() -> None:
    random = np.random.default_rng(0)
    power = random.uniform(0, 2000, (3, 50))
    turns = np.stack([0.1 * power, power, np.full_like(power, 230.0), power / 230], 2).reshape(3, 200)
    turns[:, 3::4] -= turns[:, 3::4].min(1, keepdims=True)
    cases = ((turns - turns.mean(1, keepdims=True)) / turns.std(1, keepdims=True)).astype(np.float32)[:, :, None]
    assert np.allclose(meters.watts(cases, 230.0, "x")[:, :, 0], power, atol=0.1)
    with pytest.raises(RecordingError, match="no voltage"):
        meters.watts(-cases, 230.0, "x")


@pytest.mark.parametrize("stream", ["contacts", "air", "freezer", "meters"])
def test_a_scenes_material_is_the_same_for_the_same_seed(stream: str) -> None:
    make = scenes.scene("home").material[stream]
    one, same, other = make(24, 1), make(24, 1), make(24, 2)
    assert len(one) >= 20
    assert all(np.array_equal(a.values, b.values) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a.values, b.values) for a, b in zip(one, other, strict=True))
    assert all((np.diff(t.times) > 0).all() and np.isfinite(t.values).all() for t in one)
