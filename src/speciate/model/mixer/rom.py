"""Routing Mamba (RoM, 2506.18145): a Mamba block with E of each projection, and a router that chooses k of them.

    u = P_in(x);   z = P_gate(x);   y = scan(u) * silu(z);   out = P_out(y)
    P(x)_t = sum over the chosen e of w_te x_t W_e

One router serves all three, so that a token's path through the block is one decision; convolution, step sizes, A, B, C
and D are shared by all experts. Where the weight stands is ours: on each projection's output, before the gate's silu.
Arms: a router for each projection; and whole Mamba blocks as experts, as the code of moe_arch (ad29f66) has it: each
runs on the whole sequence, so nothing is saved, and the weights are renormalised, so that at k = 1 the router hears
nothing. `router: frozen` is the control.

B blocks of T tokens, N = B T, D width, I inner channels, E experts, K chosen ones.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from speciate.config.components import OneOf
from speciate.config.contracts.model import BalanceOptions, MixerOptions, RouterOptions
from speciate.model.moe.experts import Dispatch, Linears
from speciate.model.moe.top_k_router import Routing, TopK
from speciate.model.ssm.mamba_block import Mamba, Past, Shape, StateSpace
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(MixerOptions):
    """Mamba's sizes, experts, and how tokens choose among them."""

    expand: float = Field(2.0, gt=0)
    """Inner channels over the model's width."""
    state: int = Field(16, ge=1)
    """States of each channel."""
    conv: int = Field(4, ge=1)
    """Tokens that the convolution sees, its own included."""
    step_rank: int | None = Field(None, ge=1)
    """Rank of the map from a token to its step sizes; null: a sixteenth of the model's width, rounded up."""
    num_experts: int = Field(4, ge=1)
    """Experts."""
    top_k: int = Field(1, ge=1)
    """Experts a token; 1: straight-through weight, more: weights renormalised."""
    routed: Literal["shared", "independent", "as_published"] = "shared"
    """shared: one decision for the in, gate and out projections; independent: a router for each; as_published: whole
    blocks are the experts, each run on the whole sequence (moe_arch)."""
    z_weight: float = Field(0.001, ge=0)
    """Weight of the z-loss on the logits of a router that learns."""
    router: Annotated[RouterOptions, OneOf("model/moe/router")]
    """How tokens are scored."""
    balance: Annotated[BalanceOptions, OneOf("model/moe/balance")]
    """How the load is kept even."""

    causal_only: ClassVar[bool] = True

    @model_validator(mode="after")
    def _crossings(self) -> Self:
        router: Any = self.router
        balance: Any = self.balance
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k: cannot choose {self.top_k} of {self.num_experts} experts")
        if self.top_k > 1 and not router.scores_all_slots:
            raise ValueError(f"top_k: router {router.kind} names one expert for each token, so top_k must be 1")
        self.router.check_slots(self.num_experts)
        if balance.acts_by not in (None, *router.balanced_by):
            raise ValueError(
                f"balance: {balance.kind} acts by the {balance.acts_by}, which cannot move router {router.kind}; "
                f"balance: none goes with it"
            )
        return self

    def check(self, model: Any) -> None:
        """Refuses parts of channels."""
        if self.expand * model.width % 1:
            raise ValueError(f"expand: {self.expand:g} times a width of {model.width} is no whole number of channels")
        if (self.step_rank or 1) > self.expand * model.width:
            raise ValueError(f"step_rank: {self.step_rank} is more than {self.expand * model.width:g} channels")


ROUTED = ("input", "gate", "output")
"""The projections of which there are E."""
Routings = Mapping[str, Routing]


class Projections(nn.Module):
    """One Mamba block with E of each projection."""

    def __init__(self, shape: Shape, biases: bool, num_experts: int, top_k: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.idle_share = 1 - top_k / num_experts
        self.input = Linears(num_experts, shape.width, shape.inner, biases)
        self.gate = Linears(num_experts, shape.width, shape.inner, biases)
        self.space = StateSpace(shape)
        self.out = Linears(num_experts, shape.inner, shape.width, biases)

    def forward(self, x_BTD: Tensor, routings: Routings, tokens: TokenBatch, past: Past | None) -> tuple[Tensor, Past]:
        """(the update, (B, T, D); what to keep)."""
        shape = x_BTD.shape[:2]
        dispatches = {id(routing): Dispatch.of(routing.slot_NK, self.num_experts) for routing in routings.values()}
        x_ND = x_BTD.flatten(0, 1)

        def through(linears: Linears, x_ND: Tensor, routing: Routing) -> Tensor:
            dispatch = dispatches[id(routing)]
            return dispatch.summed(linears(dispatch.sent(x_ND), dispatch.count_E), routing.weight_NK)

        u_NI = through(self.input, x_ND, routings["input"])
        gate_NI = through(self.gate, x_ND, routings["gate"])
        y_BTI, kept = self.space(u_NI.unflatten(0, shape), tokens, past)
        out_ND = through(self.out, y_BTI.flatten(0, 1) * F.silu(gate_NI), routings["output"])
        return out_ND.unflatten(0, shape), kept

    def num_idle_parameters(self) -> int:
        """Parameters of the projections that a token is not sent to."""
        routed = (self.input, self.gate, self.out)
        return round(self.idle_share * sum(p.numel() for linears in routed for p in linears.parameters()))

    def num_idle_matrix_elements(self) -> int:
        """Those of them that are elements of matrices; see model/profiling/flops.py."""
        return round(self.idle_share * sum(linears.weight.numel() for linears in (self.input, self.gate, self.out)))


class Blocks(nn.Module):
    """E whole Mamba blocks, every one run on every token."""

    def __init__(self, shape: Shape, biases: bool, num_experts: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Mamba(shape, biases) for _ in range(num_experts))

    def forward(self, x_BTD: Tensor, routings: Routings, tokens: TokenBatch, past: Past | None) -> tuple[Tensor, Past]:
        """(the update, (B, T, D); what to keep)."""
        routing = routings["input"]
        share_NK = routing.weight_NK / routing.weight_NK.sum(-1, keepdim=True)
        share_NE = share_NK.new_zeros(len(share_NK), len(self.experts)).scatter(1, routing.slot_NK, share_NK)
        share_BTE = share_NE.unflatten(0, x_BTD.shape[:2])
        y_BTD, kept = torch.zeros_like(x_BTD), []
        size = 0 if past is None else len(past) // len(self.experts)
        for index, expert in enumerate(self.experts):
            own = None if past is None else past[index * size : (index + 1) * size]
            expert_BTD, expert_kept = expert(x_BTD, tokens, own)
            y_BTD = y_BTD + share_BTE[..., index : index + 1] * expert_BTD
            kept += expert_kept
        return y_BTD, tuple(kept)


class Mixer(nn.Module):
    """Router or routers, and what they route."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()
        model = place.model
        self.layer = place.layer
        shape = Shape.of(model.width, options.expand, options.state, options.conv, options.step_rank)

        def router() -> TopK:
            choice = (options.num_experts, options.top_k, options.z_weight)
            return TopK(options.router, options.balance, place, *choice)

        self.router: nn.Module = router()
        if options.routed == "independent":
            self.router = nn.ModuleDict({name: router() for name in ROUTED})
        if options.routed == "as_published":
            self.mamba: nn.Module = Blocks(shape, model.biases, options.num_experts)
        else:
            self.mamba = Projections(shape, model.biases, options.num_experts, options.top_k)

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """What each token takes from those before it, (B, T, D)."""
        x_ND = x_BTD.flatten(0, 1)
        routings: Routings
        if isinstance(self.router, nn.ModuleDict):
            routings = {name: router(x_ND, tokens) for name, router in self.router.items()}
        else:
            routings = dict.fromkeys(ROUTED, self.router(x_ND, tokens))
        past = None if tokens.cache is None else tokens.cache.state(self.layer)
        out_BTD, kept = self.mamba(x_BTD, routings, tokens, past)
        if tokens.cache is not None:
            tokens.cache.keep(self.layer, *kept)
        return out_BTD  # type: ignore[no-any-return]
