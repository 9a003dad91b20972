"""The dashboard and the alert rules name only metrics and labels that an agent really gives."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from transom.dialects.plain import drift_body
from transom.edge import observe, reports
from transom.edge.assembly import build_pipeline
from transom.edge.exposition import AGENT, encode
from transom.settings import load_settings

FOLDER = Path(__file__).parent.parent / "config" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "transom.json").read_text())
GROUPS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]

SCRAPED = {"instance", "job"}  # labels that Prometheus adds; `up` is a metric of its own
WORDS = {"by", "without", "on", "ignoring", "and", "or", "unless", "bool", "offset", "group_left", "group_right"}


def panels() -> list[dict[str, Any]]:
    return [p for p in DASHBOARD["panels"] if p["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Every expression with what it belongs to."""
    for panel in panels():
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["definition"]
    for rule in RULES:
        yield f"rule {rule['alert']}", rule["expr"]


def used(query: str) -> tuple[dict[str, set[str]], set[str]]:
    """The metrics of an expression with the labels that are matched on them, and the labels that it groups by."""
    values = re.match(r"label_values\((.*), (\w+)\)$", query)
    grouped = {values[2]} if values else set()
    query = values[1] if values else query
    for labels in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", query):
        grouped |= {label.strip() for label in labels.split(",")}
    query = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", " ", query)
    metrics: dict[str, set[str]] = {}
    for name, _, matchers in re.findall(
        r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()(\{([^}]*)\})?", re.sub(r"\[[^\]]*\]", "", query)
    ):
        if name not in WORDS and not _inside(query, name):
            metrics.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
    return metrics, grouped


def _inside(query: str, name: str) -> bool:
    """Whether a word stands in braces or quotes only."""
    return re.search(rf"\b{re.escape(name)}\b", re.sub(r"\{[^}]*\}", "", query)) is None


@pytest.fixture(scope="module")
def given() -> dict[str, set[str]]:
    """Every sample that an agent gives, by name, with its labels."""
    pipeline = build_pipeline(load_settings(None, {"streams": {"a": {"topic": "plant/{device}"}}})).pipeline
    body: dict[str, Any] = {"streams": pipeline.accounts(), "drift": drift_body(*pipeline.drifting()), "calls": {}}
    for path in AGENT:
        inner = body
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner.setdefault(path[-1], 0)
    told = observe.Snapshot(
        health=body, latency=observe.Latencies().histogram(), models=reports.models(pipeline), problems=(), ready=True,
        connected=True, made=0.0,
    )  # fmt: skip
    found: dict[str, set[str]] = {"up": set()}
    for family in text_string_to_metric_families(encode(told, 0.0)[0].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_the_reader_of_expressions_reads_them() -> None:
    metrics, grouped = used('sum by (a, le) (rate(x_total{b=~"y_total", c!="d"}[5m])) / on (e) up > 0.5 and z == 1')
    assert metrics == {"x_total": {"b", "c"}, "up": set(), "z": set()}
    assert grouped == {"a", "le", "e"}
    assert used('label_values(x_info{i=~"$i"}, s)') == ({"x_info": {"i"}}, {"s"})


@pytest.mark.parametrize(("place", "query"), list(queries()), ids=[f"{place}: {q[:40]}" for place, q in queries()])
def test_what_is_asked_for_is_given(given: dict[str, set[str]], place: str, query: str) -> None:
    metrics, grouped = used(query)
    assert metrics, place
    for name, matched in metrics.items():
        assert name in given, f"{place}: no agent gives {name}"
        assert matched <= given[name] | SCRAPED, f"{place}: {name} has no label {matched - given[name]}"
        assert grouped <= given[name] | SCRAPED, f"{place}: {name} has no label {grouped - given[name]}"


@pytest.mark.parametrize(("place", "query"), list(queries()), ids=[f"{place}: {q[:40]}" for place, q in queries()])
def test_counters_are_asked_for_their_rate_and_gauges_for_their_value(place: str, query: str) -> None:
    for name in used(query)[0]:
        rated = re.search(rf"\b(?:rate|increase)\({name}\b", query) is not None
        assert rated == name.endswith(("_total", "_bucket")), f"{place}: {name}"


def test_every_panel_says_what_it_shows_and_hides_no_other() -> None:
    seen: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & seen, panel["title"]
        assert at["x"] + at["w"] <= 24
        seen |= cells
    assert all(panel["description"] for panel in panels())
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_dashboard_asks_the_chosen_source_for_the_chosen_agents_and_streams() -> None:
    variables = {v["name"] for v in DASHBOARD["templating"]["list"]}
    for panel in panels():
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
            assert 'instance=~"$instance"' in target["expr"]
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables | {"__rate_interval"}


def test_every_rule_has_a_severity_a_sentence_and_a_remedy() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert set(rule["annotations"]) == {"summary", "remedy"}
        assert "$labels.instance" in rule["annotations"]["summary"]


def test_prometheus_takes_the_rules_and_they_fire_when_they_should(tmp_path: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (apt install prometheus)")  # CI has none
    assert subprocess.run([tool, "check", "rules", FOLDER / "alerts.yml"], capture_output=True).returncode == 0
    cases = Path(__file__).parent / "alerts_cases.yml"
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    shutil.copy(cases, tmp_path)
    told = subprocess.run([tool, "test", "rules", "alerts_cases.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
