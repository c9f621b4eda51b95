"""Models whose files are lost come out of the records anew."""

import json

import pytest
import torch
from learners import contents, learner, oracle

from saal_fast.learning import DamagedRecordError, LockedError, Training, rewind
from saal_fast.strategies import make


def made(folder, **options):
    given = {"train": Training(epochs=2, batch_size=5), "strategy": "entropy", "warm_start": True}
    return learner(folder, **(given | options))


def logged(folder, event):
    lines = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize("strategy", ["entropy", pytest.param("ll4al", marks=pytest.mark.slow)])
def test_a_warm_start_goes_far_back_by_training_again(tmp_path, strategy):
    """Only the last two models are kept; five rounds back all before must be trained again."""
    one = made(tmp_path, strategy=make(strategy))
    one.run(oracle, 5)
    before = contents(tmp_path)
    rewind(tmp_path, 4, "tell")
    one = made(tmp_path, strategy=make(strategy))
    rows = one.ask()
    one.tell(rows, oracle(rows))
    with pytest.raises(DamagedRecordError, match=r"0004-fit\.pt .*it is gone.*ActiveLearner\.retrain\(\)"):
        one.fit()
    assert len(one.labelled[0]) == 9 + 4 * 4
    assert one.retrain() == [1, 2, 3, 4]
    assert one.retrain() == []
    assert [line["round"] for line in logged(tmp_path, "retrain")] == [1, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["0003-fit.pt", "0004-fit.pt"]
    rewind(tmp_path, 4, "tell")
    made(tmp_path, strategy=make(strategy)).run(oracle, 5)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_without_a_warm_start_one_training_is_enough(tmp_path, damage):
    one = made(tmp_path, warm_start=False)
    one.run(oracle, 3)
    before = contents(tmp_path)
    lost = tmp_path / "0004-fit.pt"
    lost.unlink() if damage == "gone" else lost.write_bytes(lost.read_bytes()[:-1])
    again = made(tmp_path, warm_start=False)
    with pytest.raises(DamagedRecordError, match=r"ActiveLearner\.retrain\(\)"):
        _ = again.model
    assert again.retrain() == [4]
    assert contents(tmp_path) == before
    for mine, theirs in zip(again.model.parameters(), one.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("strategy", ["entropy", "ll4al"])
def test_a_choice_that_was_due_is_the_same(tmp_path, strategy):
    """Killed after training, and the model lost: the strategy's own training is brought back too."""
    whole = made(None, strategy=make(strategy))
    whole.run(oracle, 2)
    one = made(tmp_path, strategy=make(strategy))
    one.run(oracle, 1)
    (tmp_path / "0002-fit.pt").unlink()
    with pytest.raises(DamagedRecordError):
        made(tmp_path, strategy=make(strategy)).ask()
    again = made(tmp_path, strategy=make(strategy))
    again.retrain()
    assert again.ask().tolist() == whole.rounds[2].asked.tolist()


def test_a_training_that_repeats_otherwise_is_reported_and_can_be_taken(tmp_path):
    one = made(tmp_path)
    one.run(oracle, 3)
    kept = contents(tmp_path)
    for number in (3, 4):
        (tmp_path / f"000{number}-fit.pt").unlink()
    inner = Training(epochs=1, batch_size=5)

    def other(model, labelled, hook):
        return inner(model, labelled, hook)

    with pytest.raises(
        DamagedRecordError, match=r"model of round 1 came out otherwise than recorded.*retrain\(exact=False\)"
    ):
        made(tmp_path, train=other).retrain()
    assert {n: b for n, b in kept.items() if n.endswith(".json")} == contents(tmp_path)
    again = made(tmp_path, train=other)
    assert again.retrain(exact=False) == [1, 2, 3, 4]
    after = contents(tmp_path)
    assert {n: b for n, b in kept.items() if "ask" in n or "tell" in n} == {
        n: b for n, b in after.items() if "ask" in n or "tell" in n
    }
    assert [line["same"] for line in logged(tmp_path, "retrain")] == [False] * 4
    assert again.rounds[4].training != one.rounds[4].training
    assert made(tmp_path, train=other).retrain() == []
    again.run(oracle, 4)
    assert again.rounds[-1].labelled == 9 + 4 * 4


def test_a_retraining_that_is_cut_off_goes_on(tmp_path):
    one = made(tmp_path)
    one.run(oracle, 3)
    before = contents(tmp_path)
    for number in (3, 4):
        (tmp_path / f"000{number}-fit.pt").unlink()
    trainings = []
    inner = one._phases.train

    def train(model, labelled, hook):
        trainings.append(len(labelled))
        if len(trainings) == 3:
            raise KeyboardInterrupt
        return inner(model, labelled, hook)

    again = made(tmp_path, train=train)
    with pytest.raises(KeyboardInterrupt):
        again.retrain()
    assert again.retrain() == [3, 4]
    assert trainings == [9, 13, 17, 17, 21]
    assert contents(tmp_path) == before


def test_nothing_is_trained_where_nothing_is_lost_or_others_are_at_work(tmp_path):
    def train(model, labelled, hook):
        with pytest.raises(LockedError):
            other.retrain()

    one, other = made(tmp_path), made(tmp_path)
    assert one.retrain() == []
    made(tmp_path, train=train).fit()
    assert one.retrain() == []
    assert made(None).retrain() == []
