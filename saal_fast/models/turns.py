"""Threads that use one model take turns."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterable


class Turns:
    """Says which thread may use which objects; a thread waits until no other one uses any of those it asks for.

    A thread may ask again for what it has (a model whose forward pass scores a model). It gets all that it asks for at once,
    so that threads that each use one model never wait for each other in a circle.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Frees everything: a forked process has only the thread that forked it."""
        self._lock = threading.Lock()  # no Condition: a signal can cut its __exit__ off, but not a lock's
        self._held: dict[Hashable, tuple[int, frozenset[int]]] = {}
        self._waiting: dict[Hashable, tuple[int, frozenset[int], threading.Lock]] = {}

    def take(self, holder: Hashable, objects: Iterable[object], more: Callable[[], Iterable[object]] = tuple) -> None:
        """Waits for this thread's turn with the objects, which `holder` then has until `give_back`.

        Args:
            holder: whose turn it is to be.
            objects: what is asked for.
            more: lists what is asked for besides; called where no other thread uses any of `objects`, and none can begin
                to. (The parameters of modules, in whose place a thread that scores puts other tensors.)

        Raises:
            RuntimeError: it would wait for a thread that waits for this one.
        """
        thread, asked = threading.get_ident(), frozenset(map(id, objects))
        while True:
            with self._lock:
                self._waiting.pop(holder, None)
                keys = asked
                users = self._users(thread, keys)
                if not users:
                    keys = asked | frozenset(map(id, more()))
                    users = self._users(thread, keys)
                if not users:
                    self._held[holder] = thread, keys
                    return
                if thread in self._waited_for(users):
                    raise RuntimeError(
                        "two threads would wait for each other: each scores a model inside another model's forward pass, "
                        "and each has the model that the other one needs. Score these models from one thread"
                    )
                gate = threading.Lock()
                gate.acquire()
                self._waiting[holder] = thread, keys, gate
            gate.acquire()

    def is_elsewhere(self, thing: object) -> bool:
        """Whether another thread has its turn with an object."""
        with self._lock:
            return bool(self._users(threading.get_ident(), frozenset((id(thing),))))

    def give_back(self, holder: Hashable) -> None:
        """Ends the holder's turn, or its waiting; does nothing where it has neither."""
        with self._lock:
            self._waiting.pop(holder, None)
            self._held.pop(holder, None)
            for _, _, gate in self._waiting.values():
                if gate.locked():
                    gate.release()

    def _users(self, thread: int, keys: frozenset[int]) -> set[int]:
        """The other threads that use any of these objects."""
        return {user for user, used in self._held.values() if user != thread and not used.isdisjoint(keys)}

    def _waited_for(self, threads: set[int]) -> set[int]:
        """The threads for which these wait, directly or not."""
        found: set[int] = set()
        new = threads
        while new:
            wanted = [(user, keys) for user, keys, _ in self._waiting.values() if user in new]
            new = {other for user, keys in wanted for other in self._users(user, keys)} - found
            found |= new
        return found


turns = Turns()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=turns.forget)
