"""Routing Mamba (RoM, 2506.18145): a Mamba block with E experts for each projection, of which a router chooses k.

    u = P_in(x);   z = P_gate(x);   y = scan(u) * silu(z);   out = P_out(y)
    P(x)_t = sum over the chosen e of w_te x_t W_e

One router serves all three projections, so a token's path through the block is one decision. All experts share the
convolution, step sizes, A, B, C and D. Where the weight applies is our choice: on each projection's output, before the
gate's silu. There are two other arms. One has a router for each projection. The other has whole Mamba blocks as
experts, as in the code of moe_arch (ad29f66): each runs on the whole sequence, so nothing is saved, and the weights are
renormalised, so at k = 1 the router gets no gradient. `router: frozen` is the control.

B blocks of T tokens, N = B T, D width, I inner channels, E experts, K chosen ones.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from speciate.config.components import OneOf
from speciate.config.contracts.model import BalanceOptions, RouterOptions
from speciate.model.module_hooks import HasIdleMatrices
from speciate.model.moe.experts import Dispatch, Linears
from speciate.model.moe.routing_options import check_balance, check_slots
from speciate.model.moe.top_k_router import Routing, TopK
from speciate.model.ssm.mamba_block import Mamba, Past, Shape, StateSpace
from speciate.model.ssm.mamba_options import MambaSizeOptions
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(MambaSizeOptions):
    """Mamba's sizes, numbers of experts, and how tokens are routed to them."""

    num_experts: int = Field(4, ge=1)
    """Number of experts among which the router chooses."""
    top_k: int = Field(1, ge=1)
    """Number of experts a token uses; at 1 the weight is straight-through, above 1 renormalised."""
    routed: Literal["shared", "independent", "as_published"] = "shared"
    """What is routed. shared: one decision for the in, gate and out projections; independent: a router for each of
    them; as_published: whole blocks are the experts, and each runs on the whole sequence (moe_arch)."""
    z_weight: float = Field(0.001, ge=0)
    """Weight of the z-loss on the logits of a router that is trained."""
    router: Annotated[RouterOptions, OneOf("model/moe/router")]
    """How tokens are scored."""
    balance: Annotated[BalanceOptions, OneOf("model/moe/balance")]
    """How the experts' load is kept even."""

    @model_validator(mode="after")
    def _crossings(self) -> Self:
        check_slots(self.router, self.num_experts, self.top_k)
        check_balance(self.router, self.balance)
        return self


ROUTED = ("input", "gate", "output")
"""The projections that have E experts each."""
Routings = Mapping[str, Routing]
"""Routing of each of these projections."""


class Projections(HasIdleMatrices, nn.Module):
    """One Mamba block with E experts for each projection."""

    def __init__(self, shape: Shape, biases: bool, num_experts: int, top_k: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.idle_share = 1 - top_k / num_experts
        self.input = Linears(num_experts, shape.width, shape.inner, biases)
        self.gate = Linears(num_experts, shape.width, shape.inner, biases)
        self.space = StateSpace(shape)
        self.out = Linears(num_experts, shape.inner, shape.width, biases)

    def forward(self, x_BTD: Tensor, routings: Routings, tokens: TokenBatch, past: Past | None) -> tuple[Tensor, Past]:
        """Return (the update, (B, T, D); what to keep for the next call)."""
        shape = x_BTD.shape[:2]
        dispatches = {id(routing): Dispatch.of(routing.slot_NK, self.num_experts) for routing in routings.values()}
        x_ND = x_BTD.flatten(0, 1)

        def project(linears: Linears, x_ND: Tensor, routing: Routing) -> Tensor:
            dispatch = dispatches[id(routing)]
            return dispatch.combine_rows(linears(dispatch.gather_rows(x_ND), dispatch.count_E), routing.weight_NK)

        u_NI = project(self.input, x_ND, routings["input"])
        gate_NI = project(self.gate, x_ND, routings["gate"])
        y_BTI, kept = self.space(u_NI.unflatten(0, shape), tokens, past)
        out_ND = project(self.out, y_BTI.flatten(0, 1) * F.silu(gate_NI), routings["output"])
        return out_ND.unflatten(0, shape), kept

    def num_idle_parameters(self) -> int:
        """Return the number of parameters of the experts that a token is not sent to."""
        routed = (self.input, self.gate, self.out)
        return round(self.idle_share * sum(p.numel() for linears in routed for p in linears.parameters()))

    def num_idle_matrix_elements(self) -> int:
        """Return how many of these are elements of matrices; see model/profiling/flops.py."""
        return round(self.idle_share * sum(linears.weight.numel() for linears in (self.input, self.gate, self.out)))


class Blocks(nn.Module):
    """E whole Mamba blocks, each of which runs on every token."""

    def __init__(self, shape: Shape, biases: bool, num_experts: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Mamba(shape, biases) for _ in range(num_experts))

    def forward(self, x_BTD: Tensor, routings: Routings, tokens: TokenBatch, past: Past | None) -> tuple[Tensor, Past]:
        """Return (the update, (B, T, D); what to keep for the next call)."""
        routing = routings["input"]
        share_NK = routing.weight_NK / routing.weight_NK.sum(-1, keepdim=True)
        share_NE = share_NK.new_zeros(len(share_NK), len(self.experts)).scatter(1, routing.slot_NK, share_NK)
        share_BTE = share_NE.unflatten(0, x_BTD.shape[:2])
        y_BTD, kept = torch.zeros_like(x_BTD), []
        size = 0 if past is None else len(past) // len(self.experts)
        for index, expert in enumerate(self.experts):
            expert_past = None if past is None else past[index * size : (index + 1) * size]
            expert_BTD, expert_kept = expert(x_BTD, tokens, expert_past)
            y_BTD = y_BTD + share_BTE[..., index : index + 1] * expert_BTD
            kept += expert_kept
        return y_BTD, tuple(kept)


class Mixer(nn.Module):
    """One router or several, and the experts that they choose among."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()
        model = context.model
        self.layer = context.layer
        shape = Shape.of(model.width, options)

        def router() -> TopK:
            return TopK(
                options.router,
                options.balance,
                context,
                options.num_experts,
                top_k=options.top_k,
                z_weight=options.z_weight,
            )

        self.router: nn.Module = router()
        if options.routed == "independent":
            self.router = nn.ModuleDict({name: router() for name in ROUTED})
        if options.routed == "as_published":
            self.mamba: nn.Module = Blocks(shape, model.biases, options.num_experts)
        else:
            self.mamba = Projections(shape, model.biases, options.num_experts, options.top_k)

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return what each token gathers from the tokens up to itself, (B, T, D)."""
        x_ND = x_BTD.flatten(0, 1)
        routings: Routings
        if isinstance(self.router, nn.ModuleDict):
            routings = {name: router(x_ND, tokens) for name, router in self.router.items()}
        else:
            routings = dict.fromkeys(ROUTED, self.router(x_ND, tokens))
        past = None if tokens.cache is None else tokens.cache.state(self.layer)
        out_BTD, kept = self.mamba(x_BTD, routings, tokens, past)
        if tokens.cache is not None:
            tokens.cache.set_state(self.layer, *kept)
        return out_BTD  # type: ignore[no-any-return]
