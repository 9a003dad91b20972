"""Tables: which cells are times, which lines are bad, and where they stand."""

import numpy as np
import pytest

from transom.core.tables import Table, encoding, read_table


def read(text: str) -> tuple[list[str], Table]:
    """The times as dates, and the table with its bad cells."""
    table = read_table(text.splitlines(keepends=True), "t.csv")
    times = [t for block, _ in table.blocks for t in block.astype("M8[us]").astype(str).tolist()]
    return times, table


@pytest.mark.parametrize("name", ["date", "Timestamp", "time", "datetime"])
def test_eight_digits_are_a_date_not_seconds_of_1970(name: str) -> None:
    times, table = read(f"{name},x\n20140701,1\n20140702,2\n20140703,3\n")
    assert times == [f"2014-07-0{day}T00:00:00.000000" for day in (1, 2, 3)]
    assert table.bad.count == 0


def test_a_day_that_no_calendar_has_is_a_bad_cell_among_dates() -> None:
    days = "".join(f"201407{day:02},1\n" for day in range(1, 21))
    times, table = read(f"date,x\n{days}20140732,1\n20140722,1\n")
    assert len(times) == 21
    assert [(c.line, c.column, c.text) for c in table.bad.cells] == [(22, "date", "20140732")]


def test_eight_digits_that_are_no_dates_stay_seconds() -> None:
    times, _ = read("time,x\n" + "".join(f"{20_140_720 + 10 * i},1\n" for i in range(40)))
    assert times[0] == "1970-08-22T02:38:40.000000"
    times, _ = read("time,x\n99999990,1\n100000000,2\n")
    assert times == ["1973-03-03T09:46:30.000000", "1973-03-03T09:46:40.000000"]


def test_a_date_before_1970_is_told_and_not_moved() -> None:
    times, table = read("date,x\n19650101,1\n20140702,2\n")
    assert times == ["2014-07-02T00:00:00.000000"]
    assert [(c.line, c.text) for c in table.bad.cells] == [(2, "19650101")]


def test_a_line_that_holds_a_nul_is_counted_and_moves_no_line_number() -> None:
    zeros = "\0" * 200_000  # what a file system leaves after a power cut; longer than a cell of csv may be
    times, table = read(
        f"time,x\n1700000000,1\n17000\x000001,2\n1700000002,3\n{zeros}\n1700000004,oops\n1700000005,1\n"
    )
    assert len(times) == 4
    assert table.bad.count == 3
    assert [(c.line, c.column) for c in table.bad.cells] == [(3, "time"), (5, "time"), (6, "x")]
    assert "\0" in table.bad.cells[0].text


def test_a_nul_in_a_column_beside_the_values_costs_its_line() -> None:
    times, table = read('time,x,note\n1700000000,1,a\n1700000001,2,"b\x00\n1700000002,3,c\n')
    assert len(times) == 2
    assert [c.line for c in table.bad.cells] == [3]


def test_a_quoted_cell_of_two_lines_moves_no_line_number() -> None:
    _, table = read('time,x,note\n1700000000,1,"a\nb"\n1700000001,oops,c\n1700000002,3,c\n')
    assert [c.line for c in table.bad.cells] == [4]


def test_values_are_columns_in_the_order_of_the_file() -> None:
    table = read_table(["time,b,a\n", "1700000000,1,2\n", "1700000001,,4\n"], "t.csv")
    assert table.names == ("b", "a")
    ((_, values),) = table.blocks
    assert np.array_equal(values, [[1, 2], [np.nan, 4]], equal_nan=True)


def test_a_decimal_comma_is_one_where_no_number_has_a_point_and_commas_part_no_cells() -> None:
    _, table = read("time;a;b;note\n1700000000;20,5;-3;ok\n1700000001;1,5e2;4;\n1700000002;;1450;ok\n")
    assert table.names == ("a", "b")
    _, values = next(iter(read_table(["time;a;b\n", "1;20,5;-3\n", "2;1,5e2;4\n"], "t.csv").blocks))
    assert values.tolist() == [[20.5, -3.0], [150.0, 4.0]]
    grouped = read_table(["time;a\n", *["2;2,5\n"] * 60, "3;1.450\n", "4;1.450,5\n"], "t.csv")
    assert [len(block) for block, _ in grouped.blocks] == [62]
    assert [c.text for c in grouped.bad.cells] == ["1.450", "1.450,5"]  # no guess: it may be a thousand


def test_points_and_commas_in_one_file_are_left_as_they_are() -> None:
    _, table = read("time;a;b\n1700000000;20,5;1.5\n1700000001;20,6;2.5\n")
    assert table.names == ("b",)
    assert table.left_out == "'a' ('20,5')"


def test_columns_without_numbers_are_told() -> None:
    header = ",".join(f"c{i}" for i in range(7))
    _, table = read(f"time,x,{header}\n1700000000,1,,{'on,' * 5}on\n1700000001,2,off,{'on,' * 5}on\n")
    assert table.names == ("x",)
    assert table.left_out.startswith("'c0' ('off'), 'c1' ('on'), ")
    assert table.left_out.endswith(" and 2 more")
    assert read("time,x\n1700000000,1\n")[1].left_out == ""


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("time,Temperatur (°C)\n1,2\n".encode(), "utf-8-sig"),
        ("time,Temperatur (°C)\n1,2\n".encode("cp1252"), "cp1252"),
        (b"\xef\xbb\xbftime,x\n", "utf-8-sig"),
        (b"time,x\n1,\xff\n", "utf-8-sig"),  # a broken row says nothing of the whole
        ("time,°".encode()[:-1], "utf-8-sig"),  # the end of what was looked at
    ],
)
def test_the_header_tells_the_encoding(head: bytes, name: str) -> None:
    assert encoding(head) == name
