"""Quantities as people write them: what is read, what is refused, and that printing and reading are inverse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.settings import quantities as q


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("500ms", 500), ("90s", 90_000), ("5m", 300_000), ("1h", 3_600_000), ("2d", 172_800_000), ("1w", 604_800_000),
        ("1h 30m", 5_400_000), ("1h30m", 5_400_000), ("1.5s", 1500), ("0s", 0), (90, 90_000), (0.25, 250),
        ("90", 90_000),
    ],
)  # fmt: skip
def test_durations_are_milliseconds_whatever_their_unit(written, ms):
    assert q.parse_duration(written) == ms


@pytest.mark.parametrize(
    "written",
    ["5 minutes", "", "m", "-5s", -1, True, None, [], "1m 5", float("nan"), float("inf"), "0.1ms", "5M", "1e3"],
)
def test_what_is_no_duration_is_refused_with_the_forms_that_are(written):
    with pytest.raises(ValueError, match="is not a duration") as refusal:
        q.parse_duration(written)
    assert '"90s"' in refusal.value.args[1]


def test_a_duration_of_more_than_a_century_is_refused():
    with pytest.raises(ValueError, match="longer than 100 years"):
        q.parse_duration("99999999999999999999w")


@given(st.integers(0, q.LONGEST))
def test_a_printed_duration_reads_back_as_itself(ms):
    assert q.parse_duration(q.format_duration(ms)) == ms


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        ("1/week", 1 / 604_800_000), ("2/day", 2 / 86_400_000), ("1/month", 1 / 2_592_000_000),
        ("12 / year", 12 / 31_536_000_000), ("0.5 per hour", 0.5 / 3_600_000),
    ],
)  # fmt: skip
def test_budgets_are_alarms_per_millisecond(written, rate):
    assert q.parse_budget(written) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("written", ["often", "1", 1, None, True, "1/fortnight", "/week", "-1/week", "nan/week"])
def test_what_is_no_budget_is_refused(written):
    with pytest.raises(ValueError, match="is not an alarm budget"):
        q.parse_budget(written)


def test_a_budget_of_no_alarm_at_all_is_refused():
    with pytest.raises(ValueError, match="nobody can promise"):
        q.parse_budget("0/day")


@given(st.integers(1, 50), st.sampled_from(list(q.PERIODS)))
def test_a_printed_budget_reads_back_as_itself(n, period):
    rate = q.parse_budget(f"{n}/{period}")
    assert q.parse_budget(q.format_budget(rate)) == pytest.approx(rate, rel=5e-3)
    assert q.format_budget(q.parse_budget("1/week")) == "1/week"


@pytest.mark.parametrize(
    ("written", "size"), [("64KiB", 65536), ("1MiB", 1 << 20), ("2 MB", 2_000_000), (10, 10), ("7", 7)]
)
def test_sizes_are_bytes(written, size):
    assert q.parse_size(written) == size


@pytest.mark.parametrize("written", ["big", 0, -1, True, None, "1TB", "", "9999999GiB"])
def test_what_is_no_size_is_refused(written):
    with pytest.raises(ValueError, match="is not a size"):
        q.parse_size(written)


@given(st.integers(1, 1 << 40))
def test_a_printed_size_reads_back_as_itself(size):
    assert q.parse_size(q.format_size(size)) == size


@pytest.mark.parametrize("written", ["2 of 3", [2, 3], (2, 3), "2,3", "[2, 3]"])
def test_n_of_m_is_read_from_words_and_lists(written):
    assert q.parse_n_of_m(written) == (2, 3)


@pytest.mark.parametrize(
    "written", ["3 of 2", [0, 1], [1], [1, 2, 3], "some", 2, [True, True], [1, 65], ["a", "b"], None]
)
def test_what_is_no_n_of_m_is_refused(written):
    with pytest.raises(ValueError, match="is not 'n of m'"):
        q.parse_n_of_m(written)


def test_lists_are_read_from_variables_and_flags():
    assert q.parse_list("site, device") == ["site", "device"]
    assert q.parse_list('["a b", "c"]') == ["a b", "c"]
    assert q.parse_list(["as", "it", "is"]) == ["as", "it", "is"]
    with pytest.raises(ValueError, match="is not a list"):
        q.parse_list("[a")


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers() | st.text())))
def test_nothing_that_is_written_ends_in_anything_but_a_value_or_a_refusal(written):
    for parse in (q.parse_duration, q.parse_budget, q.parse_size, q.parse_n_of_m, q.parse_step, q.parse_list):
        try:
            parse(written)
        except ValueError as refusal:
            problem, remedy = refusal.args
            assert "\n" not in problem
            assert remedy
