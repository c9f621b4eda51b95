"""The folder of a cell lies in the results folder."""

from dataclasses import replace

import pytest

from saal_fast.experiments.paper.cells import Cell
from saal_fast.experiments.paper.protocol import protocol

PLAIN = protocol("cpu", "digits", "adam")


@pytest.mark.parametrize("name", ["..", "../x", "/tmp/x", "a/b", "", ".", "a\\b", "a\0b"])
def test_names_that_lead_elsewhere(tmp_path, name):
    for cell in (Cell(PLAIN, name, 0), Cell(replace(PLAIN, dataset=name), "saal", 0)):
        with pytest.raises(ValueError, match=r"as the name of a folder|unknown data set"):
            cell.folder(tmp_path)
    with pytest.raises(TypeError, match="expected seed to be a whole number"):
        Cell(PLAIN, "saal", name).folder(tmp_path)


def test_a_plain_name(tmp_path):
    assert Cell(PLAIN, "saal", 3).folder(tmp_path).relative_to(tmp_path).parts == ("digits", "adam-cpu", "saal", "seed-3")
