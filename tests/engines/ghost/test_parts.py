"""Which products with a parameter, and which views of one, keep its gradient factored; the rest goes to autograd."""

from __future__ import annotations

import models
import pytest
import torch
from torch import nn

from saal_fast.engines import Problem
from saal_fast.engines.ghost.factors import LastProducts
from saal_fast.engines.ghost.parts import View, are_disjoint
from saal_fast.engines.ghost.plan import plan_for
from saal_fast.engines.layers.linear import Linear
from saal_fast.perturbation import L2, Adaptive
from saal_fast.pools import Batch
from saal_fast.tasks import Classification

TO_AUTOGRAD = {  # of these cases; all other parameters factor
    "addmm_as_gpt2_has_it": {"d"},  # added at half its size
    "addmm_of_a_residual": {"b"},
    "weight_from_the_right": set(),
    "weight_from_the_left": set(),
    "weight_transposed": set(),
    "weight_transposed_and_not": {"w"},
    "weight_used_twice_in_two_spellings": set(),
    "weights_packed": set(),
    "weights_packed_of_which_some_are_used": set(),
    "weights_packed_that_overlap": {"w"},
    "weight_and_a_slice_of_it": {"w", "b"},
    "weights_of_heads": set(),
    "einsum_in_other_spellings": {"mix"},  # also expanded over the batch
    "einsum_of_a_diagonal_and_of_sums": {"w", "v"},
    "tensordot": set(),
    "experts": {"b"},
    "experts_that_see_everything": set(),
    "experts_one_by_one": set(),
    "one_weight_for_all_heads": {"w"},
    "weight_vector": set(),
    "weight_without_its_gradient": {"w"},
    "low_rank": {"a"},
    "weight_copied": {"w"},
    "bilinear": set(),
    "bilinear_at_many_positions": set(),
    "multihead_attention_across": {"attention.bias_k", "attention.bias_v"},
    "multihead_attention_packed": set(),
}


def planned(name, rule=None):
    case = models.build(name)
    problem = Problem.of(case.model, rule or L2(0.05), Classification())
    return case, plan_for(problem, Batch((case.pool[:1],), {}, 1))


@pytest.mark.parametrize("name", TO_AUTOGRAD)
def test_what_factors(name, monkeypatch):
    models.factor_everything(monkeypatch)
    _, plan = planned(name)
    assert set(plan.autograd) == TO_AUTOGRAD[name]
    assert {call.mode for call in plan.calls} == {"ghost"}


def test_parts_of_a_packed_weight_have_names_of_their_own(monkeypatch):
    models.factor_everything(monkeypatch)
    case, plan = planned("weights_packed")
    calls = [call for call in plan.calls if call.weight == "w"]
    assert [call.key for call in calls] == ["w[0]", "w[1]", "w[2]"]
    assert [call.view.offset for call in calls] == [0, 36, 72]
    assert {call.bias for call in calls} == {"b"}
    operands = torch.cat([call.operand(case.model.w) for call in calls])
    assert torch.equal(operands, case.model.w)


def test_uses_of_one_matrix_join_whatever_they_are_called(monkeypatch):
    models.factor_everything(monkeypatch)
    _, plan = planned("weight_used_twice_in_two_spellings")
    assert [call.key for call in plan.calls if call.weight == "w"] == ["w", "w"]


def test_tiles_of_views(monkeypatch):
    """Rules that act element by element meet each number of a weight once, in the places of its layer."""
    models.factor_everything(monkeypatch)
    for name in ("addmm_as_gpt2_has_it", "weight_transposed", "weights_packed", "weights_of_heads", "tensordot"):
        _, plan = planned(name, Adaptive(0.05))
        assert {call.mode for call in plan.calls} == {"tiled"}, name
        assert not [n for n in plan.autograd if n in ("w", "v", "a", "c")], name


@pytest.mark.parametrize(
    ("views", "disjoint"),
    [
        (lambda t: [t], True),
        (lambda t: [t.T], True),
        (lambda t: [t, t.T], False),
        (lambda t: t.chunk(2), True),
        (lambda t: [t[:, :3], t[:, 3:]], True),
        (lambda t: [t[:, :3], t[:, 2:]], False),
        (lambda t: [t[::2], t[1::2]], True),
        (lambda t: [t[2:], t[:2]], True),
        (lambda t: [t[0].expand(3, 6)], False),
        (lambda t: [t[:, None]], True),
    ],
)
def test_disjoint(views, disjoint):
    memory = torch.zeros(30)
    assert are_disjoint(views(memory[6:].view(4, 6))) == disjoint


def test_a_view_is_found_in_another_parameter_like_it():
    first, second = (torch.arange(24.0).view(4, 6), torch.arange(30.0)[6:].view(4, 6))
    view = View.of(first[1:3].T, first)
    assert torch.equal(view.within(second), second[1:3].T)


def test_gpt2_factors_every_matrix():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=32, n_layer=2, n_head=2, num_labels=3)
    config.pad_token_id = None
    model = transformers.GPT2ForSequenceClassification(config).eval()
    problem = Problem.of(model, L2(0.05), Classification())
    plan = plan_for(problem, Batch((torch.randint(0, 40, (1, 4)),), {}, 1))
    matrices = {name for name, p in model.named_parameters() if p.ndim == 2 and "wpe" not in name}
    assert matrices <= set(plan.factored)
    assert all("ln" in name or "wpe" in name for name in plan.autograd), plan.autograd


def test_detr_style_attention_factors_its_packed_weight():
    """Queries and keys with positions added, values without: the packed weight is used in three parts."""
    attention = nn.MultiheadAttention(64, 4, batch_first=True)
    case = models.Function(lambda self, x: self.head(self.a(x + 1, x + 1, x)[0].mean(1)), a=attention, head=nn.Linear(64, 3))
    problem = Problem.of(case.eval(), L2(0.05), Classification())
    plan = plan_for(problem, Batch((torch.randn(1, 6, 64),), {}, 1))
    assert not plan.autograd
    assert {call.key for call in plan.calls if "in_proj" in call.weight} == {f"a.in_proj_weight[{i}]" for i in range(3)}


def test_layers_of_one_input_share_its_products():
    layer, a = Linear(), torch.randn(1, 3, 4)
    last = LastProducts()
    first = last.of(layer, a, a)
    assert last.of(layer, a, a) is first
    assert last.of(layer, a.clone(), a) is not first
    first = last.of(layer, a, a)
    a.mul_(2)  # the same tensor, of other numbers
    torch.testing.assert_close(last.of(layer, a, a), a @ a.mT)
