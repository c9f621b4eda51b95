"""Whose failure an exception is."""

import functools
import signal

import pytest

from saal_fast._utils.failures import FailuresWithin, foreign_failure, is_from_handler, struck_by


def fails(*errors):
    """Work that raises these, in turn; None for a time that it succeeds."""
    left = list(errors)

    def work():
        error = left.pop(0)
        if error is not None:
            raise error

    return work


def first(work):
    with pytest.raises(Exception) as raised:  # noqa: PT011 - any
        work()
    return raised.value


def other_place():
    raise RuntimeError("elsewhere")


def test_a_failure_that_comes_again_at_its_place_is_the_works_own():
    work = fails(RuntimeError("at 0x1"), RuntimeError("at 0x2"))
    assert foreign_failure(first(work), work) is None


def test_a_failure_that_does_not_come_again_came_from_outside():
    work = fails(TimeoutError("late"), None)
    error = first(work)
    assert foreign_failure(error, work) is error


def test_the_one_of_two_that_comes_again_is_the_works_own():
    work = fails(RuntimeError("own"), KeyError("thrown in"), RuntimeError("own"))
    assert isinstance(foreign_failure(first(work), work), KeyError)
    work = fails(KeyError("thrown in"), RuntimeError("own"), RuntimeError("own"))
    error = first(work)
    assert foreign_failure(error, work) is error


def test_the_same_type_at_another_place_is_another_failure():
    error = first(other_place)
    work = fails(RuntimeError("elsewhere"), RuntimeError("elsewhere"))
    assert foreign_failure(error, work) is error


class Callable:
    def __call__(self, *_):
        raise TimeoutError("time is up")

    def method(self, *_):
        self()


def plain(*_):
    Callable()()


@pytest.mark.parametrize(
    "handler", [plain, Callable(), Callable().method, functools.partial(functools.partial(plain, 1), 2), lambda *_: plain()]
)
def test_what_a_handler_raises_comes_from_outside_however_often_it_comes(handler):
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        error = first(lambda: signal.raise_signal(signal.SIGUSR1))
        assert is_from_handler(error)
        assert foreign_failure(error, lambda: pytest.fail("it is not done again")) is error
        work = fails(RuntimeError("own"))
        own = first(work)
        assert not is_from_handler(own)
        with pytest.raises(TimeoutError):
            foreign_failure(own, lambda: signal.raise_signal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def late():
    """A handler of SIGUSR1 that raises a TimeoutError."""
    before = signal.signal(signal.SIGUSR1, plain)
    yield
    signal.signal(signal.SIGUSR1, before)


def over(error):
    """Raises another error over this one, as torch's context managers do that are struck between their lines."""
    try:
        raise error
    finally:
        raise RuntimeError("trying to pop from empty mode stack")


def test_what_comes_over_a_handlers_error(late):
    struck = first(lambda: signal.raise_signal(signal.SIGUSR1))
    assert struck_by(first(lambda: over(struck))) is struck


def test_what_comes_over_ctrl_c():
    assert isinstance(struck_by(first(lambda: over(KeyboardInterrupt()))), KeyboardInterrupt)


def test_an_error_that_was_there_before_strikes_nothing(late):
    try:
        signal.raise_signal(signal.SIGUSR1)
    except TimeoutError:
        with FailuresWithin():
            within = struck_by(first(fails(ValueError("own"))))
        after = struck_by(first(fails(ValueError("own"))))
    assert within is None
    assert isinstance(after, TimeoutError)
