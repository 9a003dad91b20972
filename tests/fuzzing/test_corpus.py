"""What the fuzzer has found worth keeping goes through each reader again: it refuses in its own way, or takes it."""

import corpus
import pytest
import targets


@pytest.mark.parametrize("target", targets.TARGETS)
def test_a_reader_takes_or_refuses_what_is_kept(target: str) -> None:
    kept = corpus.read(target)
    assert kept
    for data in kept:
        targets.TARGETS[target](data)
