"""An identity is an object's own, also where its address is used again."""

import gc

from saal_fast._utils import identity
from saal_fast._utils.identity import identity_of


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
    gc.collect()
    before = len(identity._known)
    things = [Thing() for _ in range(10)]
    for thing in things:
        identity_of(thing)
    assert len(identity._known) == before + 10
    del things, thing
    gc.collect()
    assert len(identity._known) == before
