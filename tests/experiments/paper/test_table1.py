import csv
from io import StringIO

import pytest

from saal_fast.experiments.paper import published
from saal_fast.experiments.paper.cells import Cell, Curve
from saal_fast.experiments.paper.protocol import protocol
from saal_fast.experiments.paper.table1 import Row, as_csv, format_mean, gather, markdown

FASHION = protocol("cpu", "fashion-mnist", "adam")


def row(strategy, *lasts, figure="–"):
    return Row(strategy, {seed: Curve((20, 30), (50.0, last)) for seed, last in enumerate(lasts)}, figure)


def test_mean_deviation_and_the_best_in_bold():
    drawn = markdown(
        FASHION, [row("random", 80.0, 82.0, 84.0, figure="81.2 ± 0.5"), row("saal", 83.0, 83.0), row("margin", 70)]
    )
    lines = drawn.splitlines()
    assert lines[0] == "Test accuracy (%), fashion-mnist, adam, preset cpu, 20 to 30 labels"
    assert lines[4] == "| random | 82.0 ± 2.0 | 66.0 ± 1.0 | 3 | 81.2 ± 0.5 |"
    assert lines[5] == "| saal | **83.0 ± 0.0** | **66.5 ± 0.0** | 2 | – |"
    assert lines[6] == "| margin | 70.0 | 60.0 | 1 | – |"
    assert "the paper's own" in lines[2]


def test_equals_as_printed_are_both_best():
    drawn = markdown(FASHION, [row("a", 80.01), row("b", 80.04), row("c", 79.0)])
    assert drawn.count("**80.0**") == 2


def test_no_cell_is_no_table():
    assert gather({}) == []
    assert "(no whole cell)" in markdown(FASHION, [])


def test_cells_make_rows_in_order():
    found = {Cell(FASHION, name, seed): Curve((20,), (seed,)) for name, seed in (("saal", 7), ("random", 0), ("saal", 1))}
    assert [(r.strategy, list(r.curves), r.paper) for r in gather(found)] == [
        ("random", [0], "81.2 ± 0.5"),
        ("saal", [1, 7], "85.8 ± 0.8"),
    ]
    assert [r.strategy for r in gather(found, ["saal", "badge", "random"])] == ["saal", "random"]


def test_what_is_changed_of_the_preset_is_told():
    drawn = markdown(protocol("cpu", "digits", "sam", width=8, epochs=3), [row("saal", 80.0)])
    assert drawn.startswith("Test accuracy (%), digits, sam, preset cpu, epochs 3, width 8, 20 to 30 labels\n")


def test_the_deviation_is_of_the_sample():
    assert format_mean([1.0, 2.0, 3.0, 4.0]) == "2.5 ± 1.3"  # √(5/3)
    assert format_mean([2.04]) == "2.0"


def test_csv_has_a_line_for_each_cell():
    lines = list(csv.DictReader(StringIO(as_csv([row("saal", 81.25, 82.5, figure="85.8 ± 0.8")]))))
    assert lines[1] == {
        "strategy": "saal",
        "seed": "1",
        "labels": "30",
        "last": "82.5",
        "mean": "66.25",
        "paper": "85.8 ± 0.8",
    }


def test_the_papers_figures():
    assert published.table1("adam", "fashion-mnist", "saal") == "85.8 ± 0.8"
    assert published.table1("adam", "fashion-mnist", "saal-kmeans++") == "85.8 ± 0.8"
    assert published.table1("sam", "cifar100", "ll4al") == "35.7 ± .01"
    assert published.table1("sam", "svhn", "coreset") == "78.9 ± 1.3"
    assert published.table1("adam", "svhn", "margin") == "–"
    assert published.table1("adam", "digits", "saal") == "–"
    assert len(published.TABLE1) == 7 * 8


@pytest.mark.parametrize("optimizer", ["adam", "sam"])
def test_the_papers_best_are_as_it_says(optimizer):
    """SAAL is best in seven of the eight columns (Section 4.1)."""
    best = []
    for dataset in ("fashion-mnist", "svhn", "cifar10", "cifar100"):
        means = {s: float(v.split()[0]) for (o, d, s), v in published.TABLE1.items() if (o, d) == (optimizer, dataset)}
        best.append(max(means, key=means.get))
    assert best == (["saal"] * 4 if optimizer == "adam" else ["saal", "coreset", "saal", "saal"])


def test_the_shared_figure_is_explained():
    drawn = markdown(FASHION, [row("saal-kmeans++", 80.0, figure="85.8 ± 0.8")])
    assert "does not say whether with k-means++ diversity" in drawn
