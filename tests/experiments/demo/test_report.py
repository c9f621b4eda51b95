import csv

from saal_fast.experiments.demo.report import CSV_COLUMNS, Pick, table, timing_table, write_csv
from saal_fast.experiments.demo.timing import Timing

PICKS = [
    Pick(1, 12345, 2.5, 0.25, 13.0625, "ankle boot", "sneaker"),
    Pick(2, 7, 1.123456789, 0.5, 4.0, "bag", "bag"),
]


def test_table_is_aligned():
    assert table(PICKS).splitlines() == [
        "rank  index   score    loss  gradient norm  predicted   true",
        "────  ─────  ──────  ──────  ─────────────  ──────────  ───────",
        "   1  12345  2.5000  0.2500        13.0625  ankle boot  sneaker",
        "   2      7  1.1235  0.5000         4.0000  bag         bag",
    ]


def test_csv_holds_every_pick(tmp_path):
    write_csv(PICKS, tmp_path / "picks.csv")
    with (tmp_path / "picks.csv").open(newline="") as file:
        heading, *rows = csv.reader(file)
    assert tuple(heading) == CSV_COLUMNS
    assert rows == [
        ["1", "12345", "2.5", "0.25", "13.0625", "ankle boot", "sneaker"],
        ["2", "7", "1.12346", "0.5", "4", "bag", "bag"],
    ]


def test_timing_table_gives_ratios_to_a_forward_pass():
    lines = timing_table(Timing(64, forward=0.5, fast=2.0, reference=10.0), "ghost").splitlines()
    assert [line.split()[-5:] for line in lines] == [
        ["0.500", "ms", "1.0", "×", "forward"],
        ["2.000", "ms", "4.0", "×", "forward"],
        ["10.000", "ms", "20.0", "×", "forward"],
    ]
    assert "ghost" in lines[1]
