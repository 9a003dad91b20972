"""Forecasts of other columns, periods, intervals that cover, cases and runs: what the training side makes of data."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from transom.cli import main
from transom.errors import RecordingError
from transom.runtimes import bundle, torchscript
from transom_models import cases, data, export, periods, recordings, runs
from transom_models.families import FAMILIES
from transom_models.tasks import Classifier, Forecaster, PeriodicForecaster

DAY = 24


def daily(days: int, channels: int = 2, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """[24 days, channels]: a daily swing of each channel's own shape, and noise."""
    rng = np.random.default_rng(seed)
    profile = rng.standard_normal((DAY, channels)).cumsum(0)
    return (np.tile(profile, (days, 1)) + noise * rng.standard_normal((days * DAY, channels))).astype(np.float32)


class TestPeriods:
    def test_the_period_of_a_daily_signal_is_found_and_not_a_multiple_of_it(self) -> None:
        assert periods.period(daily(30)[None]) == DAY

    @pytest.mark.parametrize("kind", ["noise", "walk", "constant", "missing"])
    def test_no_period_is_claimed_where_there_is_none(self, kind: str) -> None:
        x = np.random.default_rng(0).standard_normal((20, 200, 1)).astype(np.float32)
        x = {"noise": x, "walk": x.cumsum(1), "constant": np.ones_like(x), "missing": np.full_like(x, np.nan)}[kind]
        assert periods.period(x) == 1

    def test_kinds_of_readings_that_take_turns_are_counted_and_a_wave_is_one_kind(self) -> None:
        t = np.arange(400)
        wave = np.sin(2 * np.pi * t / 12 + np.arange(20)[:, None])[:, :, None].astype(np.float32)
        kinds = (np.tile([0, 5, -3, 1], 100) + 0.1 * np.sin(t / 30))[None, :, None].astype(np.float32)
        assert periods.period(wave) == 12
        assert periods.turns(wave) == 1
        assert periods.turns(kinds) == 4


class TestPeriodicForecaster:
    def module(self, horizon: int = 30) -> PeriodicForecaster:
        torch.manual_seed(0)
        return PeriodicForecaster(torch.zeros(2), torch.ones(2), 7 * DAY + 5, horizon, DAY).eval()

    def test_it_scripts_and_a_row_does_not_depend_on_its_neighbours(self) -> None:
        module, batch = self.module(), torch.from_numpy(daily(40)).unfold(0, 7 * DAY + 5, 50).transpose(1, 2)
        with bundle.quiet(), torch.no_grad():
            scripted = torch.jit.script(module)
            whole = scripted(batch)["forecast"]
            assert torch.allclose(whole[1:2], scripted(batch[1:2])["forecast"], atol=1e-5)
            assert torch.allclose(whole, module(batch)["forecast"], atol=1e-5)
        assert whole.shape == (len(batch), 30, 2, 5)

    def test_missing_and_huge_values_never_spoil_the_forecast(self) -> None:
        batch = torch.randn(4, 7 * DAY + 5, 2)
        batch[0] = float("nan")
        batch[1, 20:] = float("nan")
        batch[2, :, 1] = float("nan")
        batch[3] = 1e30
        with torch.no_grad():
            assert torch.isfinite(self.module()(batch)["forecast"]).all()

    def test_it_learns_a_day_and_its_intervals_cover_what_they_say(self) -> None:
        from transom_models.training import Plan, train

        module, x = self.module(DAY), daily(120, noise=0.5)
        recording = recordings.Recording("d", ("a", "b"), np.arange(len(x)), x, np.full(len(x), np.nan))
        w, t = data.examples(recording, 7 * DAY + 5, DAY, 1)
        train(module, (w[:1500], t[:1500]), (w[1500:1800], t[1500:1800]), Plan(epochs=4, rate=0.01))
        with torch.no_grad():
            module.fit_spread(w[1500:2000], t[1500:2000])
        given = export.outputs(module, w[2200:])["forecast"]
        inside = (t[2200:] >= given[..., 0]) & (t[2200:] <= given[..., -1])
        assert 0.74 < inside.mean() < 0.86
        assert (np.diff(given, axis=3) >= 0).all()
        assert np.mean((given[..., 2] - t[2200:]) ** 2) < 0.4  # the noise alone is 0.25


class TestTargets:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_forecast_of_another_column_has_its_shape_and_no_crossing_quantiles(self, family: str) -> None:
        torch.manual_seed(0)
        module = Forecaster(
            family, 9, torch.zeros(3), torch.ones(3), 2, (torch.tensor([50.0]), torch.tensor([30.0]))
        ).eval()
        module.stretch = torch.rand(2, 1, 5) * 3
        batch = torch.randn(5, 16, 3)
        batch[0], batch[1, :9] = float("nan"), float("nan")
        with bundle.quiet(), torch.no_grad():
            given = torch.jit.script(module)(batch)["forecast"]
        assert given.shape == (5, 2, 1, 5)
        assert torch.isfinite(given).all()
        assert (given.diff(dim=-1) >= 0).all()

    def test_remaining_life_is_made_from_where_each_file_ends_and_goes_into_one_part_whole(
        self, tmp_path: Path
    ) -> None:
        files = []
        for i in range(12):
            path, n = tmp_path / f"run{i:02}.csv", 40 + i
            rows = [f"{1_700_000_000 + t},{t / n},{i}" for t in range(n)]
            path.write_text("time,wear,run\n" + "\n".join(rows) + "\n")
            files.append(path)
        found = data.load(files, "forecast", 20, 1, targets=["rul"], cap=25, min_steps=5)
        assert found.lead == 0
        assert found.channels == ("wear", "run")
        parts = (found.train, found.validation, found.calibration)
        for _, target in parts:
            assert target.shape[1:] == (1, 1)
            assert target.max() == 25
            assert target.min() == 0
        seen = [set(np.unique(values[:, -1, 1])) for values, _ in parts]
        assert not seen[0] & seen[1]
        assert not seen[0] & seen[2]
        assert not seen[1] & seen[2]
        first = found.train[0][0]
        assert np.isnan(first[:15]).all()
        assert np.isfinite(first[15:]).all()

    def test_train_writes_a_model_whose_target_is_no_input(self, tmp_path: Path) -> None:
        for i in range(10):
            n = 60 + 3 * i
            rows = [f"{1_700_000_000 + t},{n - t}" for t in range(n)]
            (tmp_path / f"run{i}.csv").write_text("time,health\n" + "\n".join(rows) + "\n")
        output = tmp_path / "life.pt"
        command = [
            "train",
            "--data",
            *map(str, sorted(tmp_path.glob("*.csv"))),
            "--task",
            "forecast",
            "--target",
            "rul",
        ]
        command += ["--cap", "40", "--family", "scales", "--length", "16", "--min-steps", "4", "--horizon", "1"]
        assert main([*command, "--epochs", "25", "--output", str(output)]) == 0
        model = torchscript.load(output)
        assert [c.name for c in model.manifest.channels] == ["health"]
        assert [c.name for c in model.manifest.targets] == ["rul"]
        assert model.manifest.lead == 0
        assert model.manifest.metrics["mse"] < 0.3 * model.manifest.metrics["mse_naive"]
        window = np.full((1, 16, 1), np.nan, np.float32)
        assert model.infer(window)["forecast"].shape == (1, 1, 1, 5)

    def test_a_target_that_no_column_has_is_refused_by_name(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("time,x\n1,2\n2,3\n")
        with pytest.raises(RecordingError, match="no column wear"):
            recordings.read(path, targets=["wear"])


class TestRuns:
    def test_each_unit_becomes_a_recording_whose_steps_are_cycles(self, tmp_path: Path) -> None:
        path = tmp_path / "fleet.txt.gz"
        with gzip.open(path, "wt") as file:
            for unit, cycles in ((1, 5), (2, 3)):
                for cycle in range(1, cycles + 1):
                    file.write(f"{unit} {cycle} 0.1 0.2 100 {cycle + 0.5} 7  \n")
        first, second = runs.read_runs(path)
        assert first.name == "fleet/1"
        assert first.channels == ("setting1", "setting2", "setting3", "sensor1", "sensor2")
        assert first.values[:, 3].tolist() == [1.5, 2.5, 3.5, 4.5, 5.5]
        assert data.regular_step([first, second]) is None
        assert recordings.aimed(first, ["rul"], 3).targets[:, 0].tolist() == [3, 3, 2, 1, 0]


class TestCases:
    TEXT = "#a comment\n@problemName x\n@data\n1,2,3:4,?,6:walk\n1,2:4,5:run\n"

    def test_cases_are_read_with_what_is_missing_and_shorter_ones_end_with_the_window(self, tmp_path: Path) -> None:
        path = tmp_path / "moves.ts"
        path.write_text(self.TEXT)
        values, labels = cases.read_cases(path)
        assert labels == ["walk", "run"]
        assert values.shape == (2, 3, 2)
        np.testing.assert_array_equal(values[0], [[1, 4], [2, np.nan], [3, 6]])
        np.testing.assert_array_equal(values[1], [[np.nan, np.nan], [1, 4], [2, 5]])

    @pytest.mark.parametrize("text", ["@data\n", "no data", "@data\n1,2:a\n1:2:a\n", "@data\n1,x:a\n"])
    def test_what_is_no_file_of_cases_is_refused(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "bad.ts"
        path.write_text(text)
        with pytest.raises(RecordingError):
            cases.read_cases(path)

    @pytest.mark.parametrize(("family", "hidden"), [("rocket", "300"), ("hydra", "300"), ("cnn", "16")])
    def test_train_learns_from_cases_and_every_part_holds_every_class(
        self, family: str, hidden: str, tmp_path: Path
    ) -> None:
        rng, path = np.random.default_rng(0), tmp_path / "waves.ts.gz"
        with gzip.open(path, "wt") as file:
            file.write("@data\n")
            for i in range(60):
                wave = np.sin(np.arange(50) / (2 if i % 2 else 7) + rng.random() * 6) + 0.2 * rng.standard_normal(50)
                file.write(",".join(f"{v:.4f}" for v in wave) + (":fast\n" if i % 2 else ":slow\n"))
        found = data.load([path], "classify", 64, 0)
        assert all(set(part[1]) == {0, 1} for part in (found.train, found.validation, found.calibration))
        output = tmp_path / "waves.pt"
        command = ["train", "--data", str(path), "--task", "classify", "--family", family, "--hidden", hidden]
        assert main([*command, "--epochs", "15", "--output", str(output)]) == 0
        manifest = bundle.open_bundle(output).manifest
        assert manifest.classes == ("fast", "slow")
        assert manifest.length == 50
        assert manifest.metrics["accuracy"] > 0.85

    def test_a_case_is_left_out_with_all_its_views(self) -> None:
        """Labels by chance: who leaves out one view of three finds the case again in the other two."""
        rng = np.random.default_rng(0)
        windows, labels = rng.standard_normal((40, 60, 1)).astype(np.float32), rng.permutation(np.arange(40) % 2)
        torch.manual_seed(0)
        module = Classifier("hydra", 192, torch.zeros(1), torch.ones(1), 2)
        assert module.solve(windows, labels) < 0.75

    def test_readings_that_take_turns_are_folded_apart(self) -> None:
        torch.manual_seed(0)
        module = Classifier("lstm", 8, torch.zeros(1), torch.ones(1), 2, period=4)
        window = torch.arange(10.0).view(1, 10, 1)
        seen = module.seen(window)
        assert seen.shape == (1, 2, 16)
        assert seen[0, :, [0, 2, 4, 6]].tolist() == [[2, 3, 4, 5], [6, 7, 8, 9]]


class TestFiles:
    def test_a_spreadsheets_file_is_read_and_what_is_left_out_is_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "anlage.csv"
        path.write_text("time;Temperatur (°C);Status\n2026-03-28 14:00;60,5;ok\n2026-03-28 14:01;61,5;\n", "cp1252")
        found = recordings.read(path)
        assert found.channels == ("Temperatur (°C)",)
        assert found.values.tolist() == [[60.5], [61.5]]
        assert caplog.messages == [f"{path}: left out, for they hold no numbers: 'Status' ('ok')"]

    def test_a_time_that_is_none_is_told_with_what_is_one(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("time,x\n28.03.2026 14:00,1\n")
        with pytest.raises(RecordingError, match="'28.03.2026 14:00' in column 'time'; write times as 2026-03-28"):
            recordings.read(path)

    @pytest.mark.parametrize("data", [b"time,x\n1,2\n", gzip.compress(b"time,x\n" + bytes(range(256)) * 99)[:-50]])
    def test_a_broken_archive_is_one_line(self, data: bytes, tmp_path: Path) -> None:
        path = tmp_path / "a.csv.gz"
        path.write_bytes(data)
        with pytest.raises(RecordingError, match="cannot be read to its end"):
            recordings.read(path)

    def test_a_column_without_any_value_is_told_before_it_is_learned(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "a.csv"
        path.write_text("time,x,y\n" + "".join(f"{i},{i % 7},\n" for i in range(400)))
        assert main(["train", "--data", str(path), "--epochs", "1", "--output", str(tmp_path / "m.pt")]) == 1
        assert "a: holds no value of y; leave that out: --channels x" in capsys.readouterr().err
