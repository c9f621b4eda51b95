"""A switch is on while any thread is within."""

import threading

import pytest

from saal_fast.models.switch import Switch


def counted():
    turns = []

    def on():
        turns.append("on")
        return lambda: turns.append("off")

    return Switch(on), turns


def test_the_first_turns_on_and_the_last_turns_off():
    switch, turns = counted()
    with switch.within():
        with switch.within():
            assert switch.here()
        assert turns == ["on"]
        assert switch.here()
    assert turns == ["on", "off"]
    assert not switch.here()


def test_threads_hold_it_together():
    switch, turns = counted()
    entered, go_on, found = threading.Event(), threading.Event(), []

    def work():
        with switch.within():
            found.append(switch.here())
            entered.set()
            go_on.wait()

    thread = threading.Thread(target=work)
    with switch.within():
        thread.start()
        entered.wait()
    assert turns == ["on"]
    assert not switch.here()
    go_on.set()
    thread.join()
    assert turns == ["on", "off"]
    assert found == [True]


def test_an_error_turns_it_off():
    switch, turns = counted()
    with pytest.raises(KeyError), switch.within():
        raise KeyError
    assert turns == ["on", "off"]
