"""Mixture of experts (Shazeer et al. 2017): a router sends each token to k of E feed-forward layers.

    y = sum over the chosen e of weight_e expert_e(x)  +  sum over the shared experts of expert(x)

routing.py has the choice and its weights, experts.py the experts; here they meet. A shared expert (Dai et al. 2024,
2401.06066) serves every token, with weight 1 and no router. Fine-grained experts, as there, are no option of their own:
m times as many experts, each with 1/m of the hidden units, m times the top_k.

B blocks of T tokens, N = B T, D width.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from speciate.config.components import OneOf
from speciate.config.contracts.model import BalanceOptions, ChoiceOptions, FfnOptions, RouterOptions
from speciate.model.activation import ACTIVATIONS
from speciate.model.moe.experts import Experts
from speciate.model.moe.top_k_router import Routing, TopK
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(FfnOptions):
    """Experts, and how tokens choose among them."""

    num_experts: int = Field(8, ge=1)
    """Experts."""
    top_k: int = Field(1, ge=1)
    """Experts a token; 1: straight-through weight, more: weights renormalised (`choice` says otherwise)."""
    num_shared: int = Field(0, ge=0)
    """Experts beside those, of the same size, that every token runs through."""
    hidden: int = Field(256, ge=1)
    """Hidden units of one expert."""
    activation: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu"
    """gelu; gelu_tanh: the approximation that GPT-2 has; swiglu: gated, with half as many parameters again."""
    z_weight: float = Field(0.001, ge=0)
    """Weight of the z-loss on the logits of a router that learns."""
    router: Annotated[RouterOptions, OneOf("model/moe/router")]
    """How tokens are scored."""
    choice: Annotated[ChoiceOptions, OneOf("model/moe/choice")] = Field(
        default={"kind": "token"}, validate_default=True
    )
    """Who chooses by the scores: each token its experts, or each expert its tokens."""
    balance: Annotated[BalanceOptions, OneOf("model/moe/balance")]
    """How the load is kept even."""
    balance_from: float = Field(0.0, ge=0, lt=1)
    """Share of the training before which the load is not balanced."""
    balance_until: float = Field(1.0, gt=0, le=1)
    """Share of the training after which the load is balanced no more."""

    @model_validator(mode="after")
    def _crossings(self) -> Self:
        router: Any = self.router
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k: cannot choose {self.top_k} of {self.num_experts} experts")
        if self.top_k > 1 and not router.scores_all_slots:
            raise ValueError(f"top_k: router {router.kind} names one expert for each token, so top_k must be 1")
        self.router.check_slots(self.num_experts)
        return self

    @model_validator(mode="after")
    def _balances(self) -> Self:
        router: Any = self.router
        balance: Any = self.balance
        choice: Any = self.choice
        if choice.balances and not router.scores_all_slots:
            raise ValueError(f"choice: {choice.kind} needs a router that ranks, and {router.kind} names one expert")
        if balance.acts_by not in (None, *router.balanced_by):
            raise ValueError(
                f"balance: {balance.kind} acts by the {balance.acts_by}, which cannot move router {router.kind}; "
                f"balance: none goes with it"
            )
        if choice.balances and balance.acts_by is not None:
            raise ValueError(f"balance: choice {choice.kind} fills every expert evenly; balance: none goes with it")
        if self.balance_from >= self.balance_until:
            never = f"{self.balance_from:g} is not before balance_until, {self.balance_until:g}"
            raise ValueError(f"balance_from: {never}; balance: none never balances")
        if balance.acts_by is None and (self.balance_from > 0 or self.balance_until < 1):
            raise ValueError(f"balance_from, balance_until: balance {balance.kind} has nothing to switch")
        return self


class FeedForward(nn.Module):
    """Router and experts."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()
        choice: Any = options.choice
        self.idle_share: float = 1 - choice.share(options.num_experts, options.top_k)
        self.router = TopK(
            options.router,
            options.balance,
            place,
            options.num_experts,
            options.top_k,
            options.z_weight,
            choice,
            (options.balance_from, options.balance_until),
        )
        size = (place.model.width, options.hidden, ACTIVATIONS[options.activation], place.model.biases)
        self.experts = Experts(options.num_experts, *size)
        self.shared = Experts(options.num_shared, *size) if options.num_shared else None

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """The chosen experts' weighted update, and the shared ones', (B, T, D)."""
        x_ND = x_BTD.flatten(0, 1)
        routing: Routing = self.router(x_ND, tokens)
        y_ND: Tensor = self.experts(x_ND, routing.slot_NK, routing.weight_NK, routing.kept_NK)
        if self.shared is not None:
            y_ND = y_ND + self.shared.all(x_ND)
        return y_ND.view_as(x_BTD)

    def num_idle_parameters(self) -> int:
        """Parameters of the experts that a token is not sent to."""
        return round(self.idle_share * sum(parameter.numel() for parameter in self.experts.parameters()))

    def num_idle_matrix_elements(self) -> int:
        """Those of them that are elements of matrices; see model/profiling/flops.py."""
        return round(self.idle_share * (self.experts.in_weight.numel() + self.experts.out_weight.numel()))
