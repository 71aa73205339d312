"""Mixture of experts (Shazeer et al. 2017): a router sends each token to k of E feed-forward layers.

    y = sum over the chosen e of weight_e expert_e(x)

routing.py has the choice and its weights, experts.py the experts; here they meet.

B blocks of T tokens, N = B T, D width.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from speciate.kinds import Choice, Kind
from speciate.model.activation import ACTIVATIONS
from speciate.model.experts import Experts
from speciate.model.routing import Routing, TopK
from speciate.model.tokens import Place, Tokens


class Options(Kind):
    """Experts, and how tokens choose among them."""

    num_experts: int = Field(8, ge=1)
    """Experts."""
    top_k: int = Field(1, ge=1)
    """Experts a token; 1: straight-through weight, more: weights renormalised."""
    hidden: int = Field(256, ge=1)
    """Hidden units of one expert."""
    activation: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu"
    """gelu; gelu_tanh: the approximation that GPT-2 has; swiglu: gated, with half as many parameters again."""
    z_weight: float = Field(0.001, ge=0)
    """Weight of the z-loss on the logits of a router that learns."""
    router: Annotated[Kind, Choice("model/router")]
    """How tokens are scored."""
    balance: Annotated[Kind, Choice("model/balance")]
    """How the load is kept even."""

    @model_validator(mode="after")
    def _crossings(self) -> Self:
        router: Any = self.router
        balance: Any = self.balance
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k: cannot choose {self.top_k} of {self.num_experts} experts")
        if self.top_k > 1 and not router.ranks:
            raise ValueError(f"top_k: router {router.kind} names one expert for each token, so top_k must be 1")
        if balance.acts_by not in (None, *router.hears):
            raise ValueError(
                f"balance: {balance.kind} acts by the {balance.acts_by}, which cannot move router {router.kind}; "
                f"balance: none goes with it"
            )
        return self


class FeedForward(nn.Module):
    """Router and experts."""

    def __init__(self, options: Options, place: Place) -> None:
        super().__init__()
        model = place.model
        self.idle_share = 1 - options.top_k / options.num_experts
        self.router = TopK(options.router, options.balance, place, options.num_experts, options.top_k, options.z_weight)
        activation = ACTIVATIONS[options.activation]
        self.experts = Experts(options.num_experts, model.width, options.hidden, activation, model.biases)

    def forward(self, x_BTD: Tensor, tokens: Tokens) -> Tensor:
        """The chosen experts' weighted update, (B, T, D)."""
        x_ND = x_BTD.flatten(0, 1)
        routing: Routing = self.router(x_ND, tokens)
        y_ND: Tensor = self.experts(x_ND, routing.slot_NK, routing.weight_NK)
        return y_ND.view_as(x_BTD)

    def num_idle_parameters(self) -> int:
        """Parameters of the experts that a token is not sent to."""
        return round(self.idle_share * sum(parameter.numel() for parameter in self.experts.parameters()))

    def num_idle_matrix_elements(self) -> int:
        """Those of them that are elements of matrices; see model/flops.py."""
        return round(self.idle_share * (self.experts.in_weight.numel() + self.experts.out_weight.numel()))
