"""Model files that are written once for all tests of a run."""

from pathlib import Path

import pytest

from runtimes.samples import SAMPLES, sample
from transom.runtimes import bundle


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model file of each sample, with its digest beside it. Read only: copy before damaging."""
    folder = tmp_path_factory.mktemp("models")
    for name in SAMPLES:
        bundle.write_bundle(*sample(name), folder / f"{name}.pt")
    return {name: folder / f"{name}.pt" for name in SAMPLES}


@pytest.fixture
def lone(files: dict[str, Path], tmp_path: Path) -> Path:
    """A sound LSTM model file without a digest beside it, to be damaged."""
    copy = tmp_path / "lone.pt"
    copy.write_bytes(files["lstm"].read_bytes())
    return copy
