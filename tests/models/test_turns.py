"""Threads that ask for the same objects take turns; others go on side by side."""

import threading
import time

import pytest

from saal_fast.models.turns import Turns

A, B, C = object(), object(), object()


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(1e-3)


def thread(work):
    started = threading.Thread(target=work, daemon=True)
    started.start()
    return started


def test_a_thread_waits_for_what_another_one_has():
    turns, got = Turns(), []
    turns.take("me", [A, B])
    other = thread(lambda: (turns.take("other", [B, C]), got.append(1)))
    aside = thread(lambda: turns.take("aside", [C]))
    aside.join(10)
    wait_for(lambda: "other" in turns._waiting)
    turns.give_back("me")
    wait_for(lambda: "other" in turns._waiting)  # it needs C as well
    assert not got
    turns.give_back("aside")
    other.join(10)
    assert got


def test_a_thread_may_ask_again_for_what_it_has():
    turns = Turns()
    turns.take(1, [A])
    turns.take(2, [A, B])
    turns.give_back(2)
    turns.give_back(2)
    turns.give_back(1)
    assert not turns._held


def test_threads_that_would_wait_for_each_other_are_told():
    turns = Turns()
    turns.take("mine A", [A])
    other = thread(lambda: (turns.take("other B", [B]), turns.take("other A", [A])))
    wait_for(lambda: "other A" in turns._waiting)
    with pytest.raises(RuntimeError, match="two threads would wait for each other"):
        turns.take("mine B", [B])
    turns.give_back("mine A")
    other.join(10)
    assert set(turns._held) == {"other B", "other A"}


def test_everyone_comes_to_turn():
    turns, inside, most = Turns(), [0], [0]

    def work(i):
        for n in range(30):
            turns.take((i, n), [A, i])
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0)
            inside[0] -= 1
            turns.give_back((i, n))

    threads = [thread(lambda i=i: work(i)) for i in range(8)]
    for one in threads:
        one.join(20)
    assert not any(one.is_alive() for one in threads)
    assert most == [1]
