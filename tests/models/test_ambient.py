"""torch's own stacks are left as they were, also where its context managers were cut off."""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from saal_fast.models.ambient import torch_stacks


class FunctionMode(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class DispatchMode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def modes():
    return (
        [torch._C._get_function_stack_at(i) for i in range(torch._C._len_torch_function_stack())],
        [torch._C._get_dispatch_stack_at(i) for i in range(torch._C._len_torch_dispatch_stack())],
        torch._C._functorch.get_dynamic_layer_stack_depth(),
        torch.is_grad_enabled(),
    )


def too_many():
    FunctionMode().__enter__()
    DispatchMode().__enter__()
    torch._C._set_grad_enabled(False)


def too_few():
    torch._C._pop_torch_function_stack()
    torch._C._pop_torch_dispatch_stack(None)


def others():
    too_few()
    too_many()


def inside_vmap():
    torch._C._functorch._vmap_increment_nesting(3, "error")


@pytest.mark.parametrize("leave", [too_many, too_few, others, inside_vmap])
def test_stacks_are_put_back(leave):
    with torch.device("cpu"), DispatchMode(), FunctionMode():
        before = modes()
        with torch_stacks():
            leave()
            assert modes() != before
        assert modes() == before


def test_stacks_are_put_back_after_an_error():
    before = modes()

    def fail():
        too_many()
        raise KeyError

    with pytest.raises(KeyError), torch_stacks():
        fail()
    assert modes() == before
