"""A million messages of any kind through the whole pipeline. Prints its accounts (`pytest -s`)."""

from fuzz import fuzz


def test_a_million_fuzzed_messages_escape_nothing_and_balance() -> None:
    report = fuzz()
    print(f"\n{report}")
    assert report.problems() == [], str(report)
