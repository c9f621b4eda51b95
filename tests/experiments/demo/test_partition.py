import pytest
import torch


@pytest.mark.parametrize("labels", [10, 25, 100])
def test_labelled_samples_are_balanced(partition, labels):
    drawn = partition(labels=labels)
    counts = drawn.data.labels[drawn.labelled].bincount(minlength=10)
    assert counts.sum() == labels
    assert counts.max() - counts.min() <= 1


def test_the_three_sets_are_disjoint(partition):
    drawn = partition(labels=100, pool=None)
    sets = (drawn.labelled, drawn.pool, drawn.held_out)
    assert [len(s) for s in sets] == [100, 1338, 359]
    assert torch.cat(sets).sort().values.equal(torch.arange(1797))


def test_pool_is_drawn_from_every_class(partition):
    drawn = partition(pool=500)
    assert drawn.data.labels[drawn.pool].bincount().min() > 20


def test_draws_follow_the_seed(partition):
    first, again, other = partition(seed=1), partition(seed=1), partition(seed=2)
    for name in ("labelled", "pool", "held_out"):
        assert getattr(first, name).equal(getattr(again, name))
        assert not getattr(first, name).equal(getattr(other, name))


@pytest.mark.parametrize(
    ("choices", "complaint"),
    [
        ({"labels": 9}, "labels is 9: expected at least one for each of 10 classes"),
        ({"labels": 1700}, "labels is 1700, which asks for 170 of class 0"),
        ({"labels": 100, "pool": 1339}, "pool is 1339, but .* the data hold 1338"),
        ({"pool": 20, "k": 21}, "k is 21, but the pool holds 20"),
        ({"data": "svhn"}, "unknown data set 'svhn'"),
    ],
)
def test_what_the_data_cannot_serve_is_refused(settings, partition, choices, complaint):
    with pytest.raises(ValueError, match=complaint):
        partition(**choices)
    assert not settings().out.exists()


@pytest.mark.parametrize("place", ["file", "file/out"])
def test_out_must_be_a_folder_one_can_write_into(partition, tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=f"cannot write into the folder {tmp_path / place}"):
        partition(out=tmp_path / place)


def test_out_is_made_and_left_empty(partition, tmp_path):
    partition(out=tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
