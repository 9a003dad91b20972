"""The worked examples of the architecture page run, and stay short."""

import re
from pathlib import Path

import pytest
import torch

from transom.core.payloads import FORMATS, PayloadSpec, compile_decoder
from transom_models.families import FAMILIES
from transom_models.tasks import ResidualDetector

PAGE = Path(__file__).parent.parent / "docs" / "architecture.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def lines(example: str) -> int:
    return sum(bool(line.strip()) for line in example.splitlines())


def test_there_are_two_examples_of_under_twenty_lines() -> None:
    assert len(EXAMPLES) == 2
    assert all(lines(e) < 20 for e in EXAMPLES)


def test_the_payload_format_of_the_example_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FORMATS, "semicolon", raising=False)
    exec(EXAMPLES[0], {})
    try:
        decode = compile_decoder(PayloadSpec(format="semicolon"))  # type: ignore[arg-type]
        assert decode(b"21.5;1700000000", 0) == [(None, 1_700_000_000_000_000, 21.5)]
    finally:
        FORMATS.pop("semicolon")


def test_the_model_family_of_the_example_serves_a_task() -> None:
    exec(EXAMPLES[1], {})
    try:
        detector = ResidualDetector("mlp", 4, torch.zeros(2), torch.ones(2)).eval()
        given = detector(torch.randn(5, 16, 2))
        assert given["score"].shape == (5,)
    finally:
        FAMILIES.pop("mlp")
