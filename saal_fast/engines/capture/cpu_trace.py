"""A batch's work on a CPU as one flat list of operations: what `vmap` and autograd make of it, without them.

Of a small network's batch most of the time is Python and dispatch: three quarters of ResNet-18's at width 4, batches of 4.
`cpu_trace` writes down the operations that reach the CPU (`make_fx`), drops and collapses views, computes once what is the
same for all inputs, and gives a function that runs the rest. Making it takes as long as some seventy batches of such a
network: `captured_engine.py` says when it is made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from .cuda_graph import Work
from .randomness import may_draw

Layout = tuple[Any, ...]  # address of the memory, type, shape, strides, offset


def cpu_trace(work: Work, inputs: list[Tensor]) -> Work:
    """A function of inputs, shaped as these, that does what `work` does; `work` asks for no values (see `CaptureCheck`).

    What it returns owns its memory, or is a view of memory that is its alone.
    """
    layouts = [(t.shape, t.stride()) for t in inputs]

    def on_copies(*given: Tensor) -> Any:
        return work([t.clone(memory_format=torch.contiguous_format) for t in given])

    graph: fx.GraphModule = make_fx(on_copies)(*inputs)
    simplify(graph, inputs)

    def replay(given: list[Tensor]) -> Any:
        strided = [
            t if t.stride() == stride else torch.empty_strided(shape, stride, dtype=t.dtype).copy_(t)
            for t, (shape, stride) in zip(given, layouts, strict=True)
        ]
        return graph(*strided)

    return replay


def simplify(module: fx.GraphModule, inputs: list[Tensor]) -> None:
    """Rewrites a graph of operations in place, for inputs of these layouts."""
    module.graph.eliminate_dead_code()
    facts = _Facts(module)
    facts.run(*inputs)
    if not any(n.op == "call_function" and _mutates(n.target) for n in module.graph.nodes):  # a constant may be written to
        _fold_constants(module, facts)
        _eliminate_common_subexpressions(module.graph)
    _collapse_views(module.graph, facts.layouts)
    module.graph.eliminate_dead_code()
    module.recompile()


class _Facts(fx.Interpreter):
    """What a run of a graph finds: how each node's tensor lies in memory, and the values of those that are constant.

    Nothing else is kept: all values of a batch would take several times its memory.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.varying: set[fx.Node] = set()
        self.constants: dict[fx.Node, Tensor] = {}
        self.layouts: dict[fx.Node, Layout] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "placeholder" or _is_random(n) or self.varying.intersection(n.all_input_nodes):
            self.varying.add(n)
        elif isinstance(value, Tensor):
            self.constants[n] = value
        if isinstance(value, Tensor):
            address = value.untyped_storage().data_ptr()
            self.layouts[n] = (address, value.dtype, value.shape, value.stride(), value.storage_offset())
        return value


def _mutates(target: Any) -> bool:
    return bool(getattr(getattr(target, "_schema", None), "is_mutable", False))


def _is_view(node: fx.Node, layouts: dict[fx.Node, Layout]) -> bool:
    """Whether a node is one view of its first argument, and nothing else."""
    if not (isinstance(node.target, torch._ops.OpOverload) and node in layouts):
        return False
    returns = node.target._schema.returns
    plain = len(returns) == 1 and returns[0].alias_info is not None and not returns[0].alias_info.is_write
    return (plain or node.target is torch.ops.aten._unsafe_view.default) and isinstance(node.args[0], fx.Node)


def _is_random(node: fx.Node) -> bool:
    """Whether a node may draw random numbers."""
    return may_draw(node.target, node.args, node.kwargs)


def _fold_constants(module: fx.GraphModule, facts: _Facts) -> None:
    """Computes once what is the same for all inputs, and stores it as a constant."""
    for i, node in enumerate(list(module.graph.nodes)):
        used = any(user in facts.varying or user.op == "output" for user in node.users)
        if node.op == "call_function" and node in facts.constants and used:
            module.register_buffer(f"constant_{i}", facts.constants[node])
            with module.graph.inserting_before(node):
                constant = module.graph.get_attr(f"constant_{i}")
            facts.layouts[constant] = facts.layouts[node]
            node.replace_all_uses_with(constant)


def _eliminate_common_subexpressions(graph: fx.Graph) -> None:
    """Computes once what is computed twice."""
    seen: dict[str, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op == "call_function" and not _is_random(node):
            first = seen.setdefault(f"{node.target} {node.args} {node.kwargs}", node)
            if first is not node:
                node.replace_all_uses_with(first)
                graph.erase_node(node)


def _collapse_views(graph: fx.Graph, layouts: dict[fx.Node, Layout]) -> None:
    """Takes a view of a view straight from what owns the memory; drops one that changes nothing."""
    for node in list(graph.nodes):
        if not _is_view(node, layouts):
            continue
        layout, owner, same = layouts[node], node.args[0], None
        while True:
            if layouts[owner] == layout:
                same = owner
            if not _is_view(owner, layouts):
                break
            owner = owner.args[0]
        if layouts[owner][:2] != layout[:2]:
            continue  # it copied after all
        if same is not None:
            node.replace_all_uses_with(same)
        elif owner is not node.args[0]:
            with graph.inserting_before(node):
                arguments = (owner, *map(tuple, layout[2:4]), layout[4])
                joined = graph.call_function(torch.ops.aten.as_strided.default, arguments)
            layouts[joined] = layout
            node.replace_all_uses_with(joined)
