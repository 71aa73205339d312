"""Test both implementations of the experts against a loop over tokens, in values and gradients."""

import pytest
import torch
from torch import Tensor

from speciate.model.activation import ACTIVATIONS
from speciate.model.moe import experts as experts_module
from speciate.model.moe.experts import Dispatch, Experts, Linears

WIDTH, HIDDEN, NUM_EXPERTS, NUM_TOKENS = 8, 12, 5, 17


def naive(experts: Experts, x_ND: Tensor, expert_NK: Tensor, weight_NK: Tensor) -> Tensor:
    """Compute token by token and expert by expert."""
    rows = []
    for x_D, chosen_K, weight_K in zip(x_ND, expert_NK, weight_NK, strict=True):
        row = torch.zeros(WIDTH, dtype=x_ND.dtype)
        for expert, weight in zip(chosen_K.tolist(), weight_K, strict=True):
            hidden = x_D @ experts.in_weight[expert]
            hidden = hidden if experts.in_bias is None else hidden + experts.in_bias[expert]
            y_D = experts.activation.apply(hidden) @ experts.out_weight[expert]
            row = row + weight * (y_D if experts.out_bias is None else y_D + experts.out_bias[expert])
        rows.append(row)
    return torch.stack(rows)


def choices(case: str, top_k: int) -> Tensor:
    """Yield (N, K) experts: at random; with some experts never chosen; with all tokens on the last experts."""
    if case == "spread":
        return torch.rand(NUM_TOKENS, NUM_EXPERTS).argsort(dim=1)[:, :top_k]
    if case == "some empty":
        return 1 + 2 * torch.rand(NUM_TOKENS, 2).argsort(dim=1)[:, :top_k]
    return (NUM_EXPERTS - 1 - torch.arange(top_k)).expand(NUM_TOKENS, -1)


@pytest.mark.parametrize("way", ["run_looped", "run_grouped"])
@pytest.mark.parametrize("case", ["spread", "some empty", "all on one"])
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize(("activation", "biases"), [("gelu", True), ("swiglu", False), ("swiglu", True)])
def test_equals_a_loop_over_tokens(
    monkeypatch: pytest.MonkeyPatch, way: str, case: str, top_k: int, activation: str, biases: bool
) -> None:
    experts = Experts(NUM_EXPERTS, WIDTH, HIDDEN, ACTIVATIONS[activation], biases=biases)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    # `forward` chooses by device; on a CPU the GPU's implementation replaces the CPU's
    monkeypatch.setattr(experts, "run_looped", getattr(experts, way))
    x_ND = torch.randn(NUM_TOKENS, WIDTH, requires_grad=True)
    weight_NK = torch.rand(NUM_TOKENS, top_k, requires_grad=True)
    expert_NK = choices(case, top_k)
    inputs = [x_ND, weight_NK, *experts.parameters()]
    gradient_ND = torch.randn(NUM_TOKENS, WIDTH)
    results = []
    for run in (experts, lambda *arguments: naive(experts, *arguments)):
        y_ND = run(x_ND, expert_NK, weight_NK)
        results.append([y_ND, *torch.autograd.grad(y_ND, inputs, gradient_ND)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["run_looped", "run_grouped"])
@pytest.mark.parametrize("kept", ["some", "one", "all"])
def test_only_what_is_kept_is_computed(monkeypatch: pytest.MonkeyPatch, way: str, kept: str) -> None:
    experts = Experts(NUM_EXPERTS, WIDTH, HIDDEN, ACTIVATIONS["gelu"], biases=True)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    run, rows = getattr(experts, way), []
    monkeypatch.setattr(experts, "run_looped", lambda x_AD, count_E: rows.append(len(x_AD)) or run(x_AD, count_E))
    x_ND = torch.randn(NUM_TOKENS, WIDTH, requires_grad=True)
    expert_NK, weight_NK = choices("spread", 2), torch.rand(NUM_TOKENS, 2, requires_grad=True)
    kept_NK = {"some": torch.rand(NUM_TOKENS, 2) < 0.5, "all": torch.ones(NUM_TOKENS, 2) > 0}.get(
        kept, torch.arange(2 * NUM_TOKENS).view(-1, 2) == 9
    )
    inputs = [x_ND, weight_NK, *experts.parameters()]
    results = []
    for y_ND in (experts(x_ND, expert_NK, weight_NK, kept_NK), naive(experts, x_ND, expert_NK, weight_NK * kept_NK)):
        results.append([y_ND, *torch.autograd.grad(y_ND.square().sum(), inputs)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert rows == [int(kept_NK.sum())]


@pytest.mark.parametrize("biases", [True, False])
def test_all_of_them_are_the_sum_over_every_expert(biases: bool) -> None:
    experts = Experts(3, WIDTH, HIDDEN, ACTIVATIONS["swiglu"], biases=biases)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x_ND = torch.randn(NUM_TOKENS, WIDTH)
    expected_ND = naive(experts, x_ND, torch.arange(3).expand(NUM_TOKENS, -1), torch.ones(NUM_TOKENS, 3))
    torch.testing.assert_close(experts.sum_of_all(x_ND), expected_ND, rtol=1e-5, atol=1e-5)


def test_an_expert_without_tokens_has_a_gradient_of_zero() -> None:
    experts = Experts(3, WIDTH, HIDDEN, ACTIVATIONS["gelu"], biases=True)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    expert_NK = torch.tensor([[0], [2], [2]])
    experts(torch.randn(3, WIDTH), expert_NK, torch.ones(3, 1)).sum().backward()
    for parameter in experts.parameters():
        assert parameter.grad is not None
        assert not parameter.grad[1].any()
        assert parameter.grad[0].any()


def test_a_grouped_product_needs_whole_strides() -> None:
    experts = Experts(2, WIDTH, 6, ACTIVATIONS["gelu"], biases=False)
    with pytest.raises(ValueError, match="width and hidden must be multiples of 4, not 6"):
        experts.run_grouped(torch.randn(4, WIDTH), torch.tensor([2, 2]))


def test_a_grouped_product_follows_autocast() -> None:
    experts = Experts(2, WIDTH, 16, ACTIVATIONS["gelu"], biases=True)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    x_ND, count_E = torch.randn(4, WIDTH), torch.tensor([1, 3])
    with torch.autocast("cpu", torch.bfloat16):
        low = experts.run_grouped(x_ND, count_E)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), experts.run_grouped(x_ND, count_E), rtol=0.1, atol=0.3)


@pytest.mark.parametrize("way", ["looped", "grouped"])
@pytest.mark.parametrize("case", ["spread", "some empty", "all on one"])
@pytest.mark.parametrize(("top_k", "biases"), [(1, False), (2, True)])
def test_linear_maps_equal_a_loop_over_tokens(
    monkeypatch: pytest.MonkeyPatch, way: str, case: str, top_k: int, biases: bool
) -> None:
    linears = Linears(NUM_EXPERTS, WIDTH, HIDDEN, biases)
    for parameter in linears.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    monkeypatch.setattr(experts_module, "_looped", getattr(experts_module, f"_{way}"))
    x_ND = torch.randn(NUM_TOKENS, WIDTH, requires_grad=True)
    weight_NK = torch.rand(NUM_TOKENS, top_k, requires_grad=True)
    expert_NK = choices(case, top_k)

    def each() -> Tensor:
        """Send every token to an expert of its own."""
        y_NKF = (x_ND[:, None, None] @ linears.weight[expert_NK]).squeeze(2)
        y_NKF = y_NKF if linears.bias is None else y_NKF + linears.bias[expert_NK]
        return (y_NKF * weight_NK.unsqueeze(-1)).sum(1)

    dispatch = Dispatch.of(expert_NK, NUM_EXPERTS)
    y_NF = dispatch.combine_rows(linears(dispatch.gather_rows(x_ND), dispatch.count_E), weight_NK)
    inputs, gradient_NF = [x_ND, weight_NK, *linears.parameters()], torch.randn(NUM_TOKENS, HIDDEN)
    for ours, expected in zip(
        [y_NF, *torch.autograd.grad(y_NF, inputs, gradient_NF)],
        [each(), *torch.autograd.grad(each(), inputs, gradient_NF)],
        strict=True,
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_experts_without_any_token() -> None:
    experts = Experts(3, 8, 6, ACTIVATIONS["gelu"], biases=True)
    linears = Linears(3, 8, 5, biases=False)
    for weight in (*experts.parameters(), *linears.parameters()):
        torch.nn.init.normal_(weight)
    none_E = torch.zeros(3, dtype=torch.long)
    assert experts.run_looped(torch.zeros(0, 8), none_E).shape == (0, 8)
    assert experts.run_grouped(torch.zeros(0, 8), none_E).shape == (0, 8)
    assert linears(torch.zeros(0, 8), none_E).shape == (0, 5)
    # a token that no expert takes gets 0, and its neighbour what it gets alone
    x_ND, slot_NK = torch.randn(2, 8), torch.tensor([[1], [2]])
    kept_NK, one_NK = torch.tensor([[False], [True]]), torch.ones(2, 1)
    y_ND = experts(x_ND, slot_NK, one_NK, kept_NK)
    torch.testing.assert_close(y_ND, torch.stack([torch.zeros(8), experts(x_ND[1:], slot_NK[1:], one_NK[1:])[0]]))
    assert experts(x_ND, slot_NK, one_NK, ~torch.ones(2, 1, dtype=torch.bool)).abs().max() == 0
