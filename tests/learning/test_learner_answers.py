"""Answers that are refused, and wrong labels that are corrected."""

import numpy as np
import pytest
import torch
from learners import CLASSES, learner, network, oracle, problem, same

from saal_fast.learning import ActiveLearner, Training

IMAGES, LABELS = problem()


def test_bad_answers_are_reported_and_change_nothing():
    made = learner()
    indices = made.ask()
    stray = next(i for i in range(60) if i not in indices.tolist())
    for rows in ([stray], [int(indices[0]), int(indices[0])]):
        with pytest.raises(ValueError, match="expected samples that are asked for and not told yet"):
            made.tell(rows, [0] * len(rows))
    with pytest.raises(ValueError, match="expected labels for 4 samples"):
        made.tell(indices, [0])
    made.tell(indices[:2], [0, 1])
    with pytest.raises(ValueError, match=f"got \\[{indices[0]}\\] beside"):
        made.tell(indices[:1], [0])
    assert made.ask().tolist() == indices[2:].tolist()
    made.tell(indices[2:], [0, 77])
    with pytest.raises(ValueError, match=f"expected labels in \\[0, {CLASSES}\\)"):
        made.fit()


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ([[1, 2]] * 3, ValueError, r"expected labels of shape \[\], as those told before; got \[2\]"),
        ([0.5, 1.0, 2.0], ValueError, r"expected labels of torch.int64, as those told before; got torch.float32"),
        ([True, False, True], ValueError, "got torch.bool"),
        ([0.0, float("nan"), 1.0], ValueError, r"expected finite labels, got NaN or inf for the samples \["),
    ],
)
def test_labels_unlike_the_earlier_ones_are_refused(tmp_path, labels, error, words):
    made = learner(tmp_path)
    indices = made.ask()
    made.tell(indices[:1], [1])
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    with pytest.raises(error, match=words):
        made.tell(indices[1:], labels)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.json")} == before
    made.tell(indices[1:], [0, 1, 2])
    assert made.labelled[1].dtype == torch.int64
    assert learner(tmp_path).fit().labelled == 13


def test_whole_numbers_among_floats_are_floats():
    made = learner(labelled=(range(3), [0.5, 1.0, 2.0]), strategy="random", train=lambda *_: None, evaluate=None)
    made.tell(made.ask(), [1, 2, 0, 1])
    assert made.labelled[1].tolist() == [0.5, 1.0, 2.0, 1.0, 2.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="expected finite labels"):
        learner(labelled=([0, 1], [0.0, float("inf")]))


def test_an_oracle_that_is_none_is_reported_before_anything_is_trained():
    made = learner(train=lambda *_: pytest.fail("it was trained"))
    with pytest.raises(TypeError, match="expected oracle to be a function of positions, got tensor"):
        made.run(LABELS, 1)


def test_numpys_numbers_are_numbers(tmp_path):
    learner(tmp_path, k=np.int64(4), candidates=np.int32(20), seed=np.int64(3))
    assert learner(tmp_path).acquired == 0  # the same run


def test_the_same_model_every_round_is_refused():
    one = network()
    made = ActiveLearner(lambda: one, IMAGES, labelled=(range(9), LABELS[:9]), train=Training(epochs=1), strategy="random")
    rows = made.ask()
    made.tell(rows, LABELS[rows])
    with pytest.raises(ValueError, match="expected model to make a new model each time, got the same object as before"):
        made.fit()


def test_a_wrong_label_is_named_and_can_be_corrected(tmp_path):
    made = learner(tmp_path)
    rows = made.ask()
    made.tell(rows, [1, 0, 7, 1])
    other = learner(tmp_path)
    with pytest.raises(ValueError, match=rf"expected labels in \[0, 3\).*; of the pool sample {rows[2]} has 7\."):
        made.ask()
    with pytest.raises(ValueError, match=r"expected samples that are told, got \[59\]"):
        made.correct([59], [0])
    with pytest.raises(ValueError, match=r"learnt from the labels of \[3\] already: .*rewind\(folder, 1\)"):
        made.correct([3], [0])
    with pytest.raises(ValueError, match=r"got torch\.float32"):
        made.correct(rows[2:3], [0.5])
    made.correct(rows[2:3], [2])
    assert made.labelled[1].tolist()[-4:] == [1, 0, 2, 1]
    right = learner()
    right.tell(right.ask(), [1, 0, 2, 1])
    other.fit()  # a learner made before the correction sees it
    right.fit()
    same(other, right)
    later = made.ask()
    made.tell(later[:1], [1])
    made.correct(later[:1], [2])  # also in a round that is told in part
    made.tell(later[1:], [0, 0, 0])
    assert made.labelled[1].tolist()[-4:] == [2, 0, 0, 0]
    assert learner(tmp_path).labelled[1].tolist() == made.labelled[1].tolist()


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (LABELS.float(), r"torch\.float32 \[.*sample \d+ has \d\.0"),
        (LABELS[:, None], r"torch\.int64 \[\d, 1\].*sample \d+ has \[\d\]"),
        (LABELS > 0, r"torch\.bool \[.*sample \d+ has (True|False)"),
    ],
    ids=["float", "column", "bool"],
)
def test_labels_of_a_wrong_kind_are_named_and_can_be_corrected(wrong, got):
    made, right = (learner(labelled=None, initial=6, strategy="random", train=Training(epochs=1)) for _ in range(2))
    rows = made.ask()
    made.tell(rows[:4], wrong[rows[:4]])
    made.tell(rows[4:], wrong[rows[4:]])
    with pytest.raises(TypeError, match=rf"{got}.*ActiveLearner\.correct.*rewind\(folder, round, \"tell\"\)"):
        made.fit()
    if not wrong.is_floating_point():  # whole numbers are floats beside floats
        with pytest.raises(ValueError, match=r"To change the kind of all, give all 6 labels at once"):
            made.correct(rows[:2], LABELS[rows[:2]])
    made.correct(rows, LABELS[rows])
    assert made.labelled[1].dtype == torch.int64
    right.tell(right.ask(), LABELS[rows])
    made.run(oracle, 1)
    right.run(oracle, 1)
    same(made, right)


def test_a_first_label_of_a_wrong_kind_is_corrected_alone():
    made = learner(labelled=None, initial=3)
    rows = made.ask()
    made.tell(rows[:1], [True])
    with pytest.raises(ValueError, match=r"expected labels of torch\.bool"):
        made.tell(rows[1:], [0, 2])
    made.correct(rows[:1], [1])
    made.tell(rows[1:], [0, 2])
    assert made.labelled[1].tolist() == [1, 0, 2]
