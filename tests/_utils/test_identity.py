"""An identity is an object's own, also where its address is used again."""

import gc
import weakref
from types import BuiltinMethodType

from saal_fast._utils.identity import ByObject, identity_of


class Thing:
    pass


def test_an_object_keeps_its_identity():
    thing, other = Thing(), Thing()
    assert identity_of(thing) == identity_of(thing)
    assert identity_of(thing) != identity_of(other)
    assert identity_of([1]) != identity_of(thing)  # a list has no weak reference


def test_an_address_that_is_used_again_is_another_object():
    seen, addresses = set(), set()
    for _ in range(100):
        thing = Thing()
        addresses.add(id(thing))
        seen.add(identity_of(thing))
        del thing
    assert len(addresses) < 100  # Python has given some of them again
    assert len(seen) == 100


def test_nothing_is_kept():
    things = [Thing() for _ in range(10)]
    alive = [weakref.ref(thing) for thing in things]
    assert len({identity_of(thing) for thing in things}) == 10
    del things
    gc.collect()
    assert not any(reference() for reference in alive)


class Unhashable:
    __hash__ = None


def test_values_by_object_go_with_the_object():
    values, one, two = ByObject(), Unhashable(), Unhashable()
    assert values.put(one, "one") == "one"
    values.put(two, "two")
    assert (values.get(one), values.get(two), values.get(Unhashable())) == ("one", "two", None)
    values.put(one, "other")
    del two
    values.put(three := Unhashable(), "three")
    assert (values.get(one), values.get(three), len(values._entries)) == ("other", "three", 2)


def test_no_python_code_runs_when_an_object_goes():
    """A signal's handler that raises there would raise nothing: Python ignores errors of such code."""
    values, one = ByObject(), Unhashable()
    values.put(one, 1)
    identity_of(one)
    assert all(isinstance(r.__callback__, BuiltinMethodType) for r in weakref.getweakrefs(one))
    assert len(weakref.getweakrefs(one)) == 2
