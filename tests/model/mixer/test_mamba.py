"""Test Mamba against transformers' MambaMixer, decoded token by token, and on each document alone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from speciate.config.components import component_module
from speciate.model.cache import Cache
from speciate.model.ssm import selective_scan
from speciate.model.ssm.mamba_block import STEP_SIZES, Shape, StateSpace
from speciate.model.ssm.mamba_options import MambaSizeOptions
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.model.transformer import Transformer
from speciate.training.optimizer.param_groups import has_weight_decay

Spec = Callable[..., Any]
WIDTH, VOCABULARY = 24, 50
DENSE = {"kind": "dense", "hidden": 40}


def block(**options: Any) -> dict[str, Any]:
    return {"mixer": {"kind": "mamba", **options}, "ffn": DENSE, "depth": "every"}


def decoder(model_spec: Spec, **changes: Any) -> Transformer:
    settings = {"block": block(), "init_std": 0.3, "embedding_std": 0.3, "position": "rotary", **changes}
    return Transformer(model_spec(**settings), VOCABULARY).double().eval()


def mixer_of(model_spec: Spec, std: float = 0.3, biases: bool = False, **options: Any) -> Any:
    model = model_spec(block=block(**options), biases=biases)
    mixer = component_module(model.block.mixer).Mixer(model.block.mixer, BuildContext(model, 0, VOCABULARY)).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(0.0, std)
    return mixer


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("sizes", [(2.0, 16, 4, None), (1.5, 5, 2, 3), (2.0, 4, 1, 1)])
def test_equals_transformers(model_spec: Spec, sizes: tuple[Any, ...], biases: bool) -> None:
    expand, state, conv, rank = sizes
    ours = mixer_of(model_spec, biases=biases, expand=expand, state=state, conv=conv, step_rank=rank)
    config = MambaConfig(
        hidden_size=WIDTH,
        state_size=state,
        conv_kernel=conv,
        time_step_rank=rank or 2,
        use_bias=biases,
        use_mambapy=False,
        num_hidden_layers=1,
    )
    config.intermediate_size = int(expand * WIDTH)
    hf_mixer = MambaMixer(config, layer_idx=0).double().train()
    names = {
        "mamba.input": "in_proj",
        "mamba.out": "out_proj",
        "mamba.space.conv": "conv1d",
        "mamba.space.select": "x_proj",
        "mamba.space.step": "dt_proj",
        "mamba.space.log_rate": "A_log",
        "mamba.space.skip": "D",
    }

    def renamed(name: str) -> str:
        stem = name.removesuffix(".weight").removesuffix(".bias")
        return names[stem] + name.removeprefix(stem)

    parameters = dict(ours.named_parameters())
    hf_parameters = dict(hf_mixer.named_parameters())
    hf_mixer.load_state_dict(
        {renamed(name): value.view_as(hf_parameters[renamed(name)]) for name, value in parameters.items()}
    )
    x_BTD = torch.randn(2, 21, WIDTH, dtype=torch.float64)
    y_BTD, expected_BTD = ours(x_BTD, TokenBatch.of(torch.zeros(2, 21))), hf_mixer(x_BTD)
    # theirs keeps A, D and the step's bias in float32, and therefore the states too
    torch.testing.assert_close(y_BTD, expected_BTD, rtol=2e-5, atol=2e-5)
    gradient_BTD = torch.randn_like(x_BTD)
    y_BTD.backward(gradient_BTD)
    expected_BTD.backward(gradient_BTD)
    for name, parameter in parameters.items():
        expected = hf_parameters[renamed(name)].grad.view_as(parameter)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-4)


def test_equals_the_block_written_out(model_spec: Spec) -> None:
    mixer = mixer_of(model_spec, state=3, conv=3, biases=True)
    space = mixer.mamba.space
    x_TD = torch.randn(9, WIDTH, dtype=torch.float64)
    u_TI, z_TI = mixer.mamba.input(x_TD).chunk(2, dim=-1)
    rate_IN = -space.log_rate.exp().view(2 * WIDTH, 3)
    state_IN = torch.zeros(2 * WIDTH, 3, dtype=torch.float64)
    rows = []
    for t in range(9):
        seen_I = space.conv.bias + sum(
            space.conv.weight[:, 0, 2 - back] * u_TI[t - back] for back in range(3) if t >= back
        )
        v_I = torch.nn.functional.silu(seen_I)
        low_R, write_N, read_N = space.select(v_I).split((2, 3, 3))
        delta_I = torch.nn.functional.softplus(space.step(low_R))
        state_IN = torch.exp(delta_I[:, None] * rate_IN) * state_IN + (delta_I * v_I)[:, None] * write_N
        gated_I = (state_IN @ read_N + space.skip * v_I) * torch.nn.functional.silu(z_TI[t])
        rows.append(mixer.mamba.out(gated_I))
    y_BTD = mixer(x_TD.unsqueeze(0), TokenBatch.of(torch.zeros(1, 9)))
    torch.testing.assert_close(y_BTD[0], torch.stack(rows), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("conv", [1, 2, 4])
@pytest.mark.parametrize("parts", [[1] * 11, [4, 1, 6], [2, 9], [11]])
def test_with_a_cache_equals_the_full_forward(
    model_spec: Spec, monkeypatch: pytest.MonkeyPatch, conv: int, parts: list[int]
) -> None:
    monkeypatch.setattr(selective_scan, "CHUNK_TOKENS", (3, 3))
    model = decoder(model_spec, block=block(conv=conv))
    token_BT = torch.randint(VOCABULARY, (3, 11))
    cache = Cache()
    read = [model.head(model.read(TokenBatch.of(part_BT, cache=cache))) for part_BT in token_BT.split(parts, dim=1)]
    torch.testing.assert_close(torch.cat(read, dim=1), model(token_BT), rtol=1e-11, atol=1e-11)
    sizes = [tensor.shape for tensor in cache.state(0) or ()]
    assert sizes == [(3, max(1, conv - 1), 48), (3, max(1, conv - 1)), (3, 16, 48)]


def test_rows_can_be_taken_as_a_beam_search_takes_them(model_spec: Spec) -> None:
    model = decoder(model_spec)
    token_BT, next_B1 = torch.randint(VOCABULARY, (3, 7)), torch.randint(VOCABULARY, (2, 1))
    cache = Cache()
    model.read(TokenBatch.of(token_BT, cache=cache))
    row_B = torch.tensor([2, 0])
    cache.select(row_B)
    after = model.head(model.read(TokenBatch.of(next_B1, cache=cache)))
    full = model(torch.cat([token_BT[row_B], next_B1], dim=1))
    torch.testing.assert_close(after, full[:, -1:], rtol=1e-11, atol=1e-11)


def test_padding_before_a_text_changes_nothing_of_it(model_spec: Spec) -> None:
    model = decoder(model_spec)
    token_BT = torch.randint(VOCABULARY, (1, 9))
    padded_BT = torch.cat([torch.zeros((1, 3), dtype=torch.long), token_BT], dim=1)
    position_BT = torch.tensor([[0, 0, 0, *range(9)]])
    document_BT = torch.tensor([[1] * 3 + [0] * 9])
    cache, read = Cache(), []
    for part in (slice(0, 5), slice(5, 6), slice(6, 12)):
        places = {"position_BT": position_BT[:, part], "real_BT": document_BT[:, part] == 0}
        tokens = TokenBatch.of(padded_BT[:, part], cache=cache, **places)
        read.append(model.head(model.read(tokens)))
    torch.testing.assert_close(torch.cat(read, dim=1)[:, 3:], model(token_BT), rtol=1e-11, atol=1e-11)


def test_padding_of_short_rows_leaves_no_trace(model_spec: Spec) -> None:
    mixer = mixer_of(model_spec)
    x_BTD = torch.randn(2, 6, WIDTH, dtype=torch.float64)
    tokens = TokenBatch.of(torch.zeros(2, 6, dtype=torch.long))
    # row 0 continues with columns 1 and 4 and then with 5, row 1 with 2 and then with 3 and 5
    cache = Cache()
    first = (torch.tensor([[1, 4], [2, 0]]), torch.tensor([[True, True], [True, False]]))
    then = (torch.tensor([[5, 0], [3, 5]]), torch.tensor([[True, False], [True, True]]))
    outputs: list[list[Tensor]] = [[], []]
    for column_BK, real_BK in (first, then):
        taken = tokens.select(column_BK, real_BK)
        cached = replace(taken, cache=cache)
        y_BKD = mixer(x_BTD.gather(1, column_BK.unsqueeze(-1).expand(-1, -1, WIDTH)), cached)
        for row in range(2):
            outputs[row] += list(y_BKD[row][real_BK[row]])
    for row, columns in ((0, [1, 4, 5]), (1, [2, 3, 5])):
        column_1K = torch.tensor([columns])
        alone = mixer(x_BTD[row : row + 1, columns], TokenBatch.of(torch.zeros(1, 6)).select(column_1K))[0]
        torch.testing.assert_close(torch.stack(outputs[row]), alone, rtol=1e-12, atol=1e-12)


LENGTHS = [[5, 1, 7, 3], [4, 2, 10], [16]]
DOCUMENTS = torch.tensor([[3] * 5 + [8] + [1] * 7 + [9] * 3, [6] * 4 + [2] * 2 + [6] * 10, [0] * 16])


def test_documents_are_computed_as_if_they_were_alone(model_spec: Spec) -> None:
    model = decoder(model_spec, separate_documents=True)
    token_BT = torch.randint(VOCABULARY, (3, 16))
    embedded: list[Tensor] = []
    model.token_embedding.register_forward_hook(lambda *call: embedded.append(call[2]) or call[2].retain_grad())
    packed_BTV = model(token_BT, DOCUMENTS)
    for row, lengths in enumerate(LENGTHS):
        stops = torch.tensor(lengths).cumsum(0).tolist()
        for start, stop in zip([0, *stops], stops, strict=False):
            alone_TV = model(token_BT[row : row + 1, start:stop])[0]
            torch.testing.assert_close(packed_BTV[row, start:stop], alone_TV, rtol=0, atol=1e-11)
    assert not torch.allclose(model(token_BT)[:2], packed_BTV[:2], atol=1e-3)
    packed_BTV[0, 12].square().sum().backward()
    seen_BT = embedded[0].grad.abs().amax(-1) > 0
    inside_BT = torch.zeros(3, 16, dtype=torch.bool)
    inside_BT[0, 6:13] = True
    assert torch.equal(seen_BT, inside_BT)


def test_it_begins_as_the_paper_says(model_spec: Spec) -> None:
    torch.manual_seed(3)
    model = Transformer(model_spec(block=block(), width=64, biases=False), VOCABULARY)
    space = model.blocks[0].mixer.mamba.space
    rate_IN = -space.log_rate.exp().view(128, 16)
    torch.testing.assert_close(rate_IN, -torch.arange(1.0, 17.0).expand(128, 16))
    assert (space.skip == 1).all()
    size_I = torch.nn.functional.softplus(space.step.bias)
    assert size_I.min() > 0.99 * STEP_SIZES[0]
    assert size_I.max() < 1.01 * STEP_SIZES[1]
    assert size_I.log().mean().item() == pytest.approx(torch.tensor(STEP_SIZES).log().mean().item(), abs=0.4)
    assert 0.4 < space.conv.weight.abs().max() <= 0.5
    assert 0.45 < space.step.weight.abs().max() <= 0.5
    other = model.blocks[1].mixer.mamba.space
    assert not torch.equal(other.step.bias, space.step.bias)


def test_nothing_makes_its_rates_decay() -> None:
    space = StateSpace(Shape.of(WIDTH, MambaSizeOptions(kind="mamba")))
    decayed = {name for name, parameter in space.named_parameters() if has_weight_decay(name, parameter)}
    assert decayed == {"conv.weight", "select.weight", "step.weight"}


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"state": 0}, {}, "state: input should be greater than or equal to 1, not 0"),
        ({"conv": 0}, {}, "conv: input should be greater than or equal to 1, not 0"),
        ({"expand": 1.3}, {}, "expand: 1.3 times a width of 24 is no whole number of channels"),
        ({"step_rank": 49}, {}, "step_rank: 49 is more than 48 channels"),
        ({"heads": 2}, {}, "heads: unknown key"),
        ({}, {"causal": False}, "mamba sees only what came before; it cannot serve causal: false"),
    ],
)
def test_impossible_ones_are_refused(
    model_spec: Spec, options: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="validation error for Model") as caught:
        model_spec(block=block(**options), **changes)
    assert message in str(caught.value)
