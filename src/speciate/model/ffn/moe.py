"""The mixture-of-experts layer (Shazeer et al. 2017): a router sends each token to k of E feed-forward layers.

    y = sum over the chosen e of weight_e expert_e(x)  +  sum over the shared experts of expert(x)

The router and its weights are in moe/top_k_router.py, the experts in moe/experts.py. A shared expert (Dai et al. 2024,
2401.06066) serves every token, with weight 1 and no router. Fine-grained experts, as in that paper, need no option of
their own: set m times as many experts, each with 1/m of the hidden units, and m times the top_k.

B blocks of T tokens, N = B T, D width.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator
from torch import Tensor, nn

from speciate.config.components import OneOf
from speciate.config.contracts.model import BalanceOptions, ChoiceOptions, FfnOptions, RouterOptions
from speciate.model.activation import ACTIVATIONS
from speciate.model.module_hooks import HasIdleMatrices
from speciate.model.moe.experts import Experts
from speciate.model.moe.routing_options import check_balance, check_slots
from speciate.model.moe.top_k_router import Routing, TopK
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(FfnOptions):
    """Numbers and sizes of experts, and how tokens are routed to them."""

    num_experts: int = Field(8, ge=1)
    """Number of experts among which the router chooses."""
    top_k: int = Field(1, ge=1)
    """Number of experts a token uses; at 1 the weight is straight-through, above 1 renormalised (unless `choice` says
    otherwise)."""
    num_shared: int = Field(0, ge=0)
    """Number of additional experts of the same size that every token uses."""
    hidden: int = Field(256, ge=1)
    """Number of hidden units of one expert."""
    activation: Literal["gelu", "gelu_tanh", "swiglu", "geglu_tanh"] = "gelu"
    """Activation function. gelu_tanh: GPT-2's approximation of gelu; swiglu (Llama's) and geglu_tanh (Gemma's): gated,
    with 1.5 times the parameters."""
    z_weight: float = Field(0.001, ge=0)
    """Weight of the z-loss on the logits of a router that is trained."""
    router: Annotated[RouterOptions, OneOf("model/moe/router")]
    """How tokens are scored."""
    choice: Annotated[ChoiceOptions, OneOf("model/moe/choice")] = Field(
        default={"kind": "token"}, validate_default=True
    )
    """Who chooses by the scores: each token chooses its experts, or each expert its tokens."""
    balance: Annotated[BalanceOptions, OneOf("model/moe/balance")]
    """How the experts' load is kept even."""
    balance_from: float = Field(0.0, ge=0, lt=1)
    """Share of the training at which load balancing starts."""
    balance_until: float = Field(1.0, gt=0, le=1)
    """Share of the training at which load balancing ends."""
    balance_off: Annotated[tuple[float, float], Strict(False)] | None = None
    """Shares of the training at which load balancing is switched off for a while, and on again. A step belongs to the
    pause if its number divided by `num_steps` is at least the first and less than the second."""

    @model_validator(mode="after")
    def _crossings(self) -> Self:
        check_slots(self.router, self.num_experts, self.top_k)
        return self

    @model_validator(mode="after")
    def _balances(self) -> Self:
        router, balance, choice = self.router, self.balance, self.choice
        if choice.balances and not router.scores_all_slots:
            raise ValueError(f"choice: {choice.kind} needs a router that ranks, and {router.kind} names one expert")
        check_balance(router, balance)
        if choice.balances and balance.acts_by is not None:
            raise ValueError(f"balance: choice {choice.kind} fills every expert evenly; balance: none goes with it")
        if self.balance_from >= self.balance_until:
            never = f"{self.balance_from:g} is not before balance_until, {self.balance_until:g}"
            raise ValueError(f"balance_from: {never}; balance: none never balances")
        if balance.acts_by is None and self.balance_spans() != ((0.0, 1.0),):
            raise ValueError(f"balance_from, balance_until, balance_off: balance {balance.kind} has nothing to switch")
        return self

    @model_validator(mode="after")
    def _pauses(self) -> Self:
        if self.balance_off is not None:
            first, again = self.balance_off
            if not self.balance_from < first < again < self.balance_until:
                within = f"balance_from {self.balance_from:g} and balance_until {self.balance_until:g}"
                raise ValueError(f"balance_off: [{first:g}, {again:g}] must rise strictly between {within}")
        return self

    def balance_spans(self) -> tuple[tuple[float, float], ...]:
        """Return the shares of the training from and until which load balancing is on, in order."""
        if self.balance_off is None:
            return ((self.balance_from, self.balance_until),)
        return ((self.balance_from, self.balance_off[0]), (self.balance_off[1], self.balance_until))


class FeedForward(HasIdleMatrices, nn.Module):
    """A router and its experts."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()
        self.idle_share: float = 1 - options.choice.share(options.num_experts, options.top_k)
        self.router = TopK(
            options.router,
            options.balance,
            context,
            options.num_experts,
            top_k=options.top_k,
            z_weight=options.z_weight,
            choice=options.choice,
            balanced=options.balance_spans(),
        )
        size = (context.model.width, options.hidden, ACTIVATIONS[options.activation])
        self.experts = Experts(options.num_experts, *size, biases=context.model.biases)
        self.shared = Experts(options.num_shared, *size, biases=context.model.biases) if options.num_shared else None

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the weighted update of the chosen experts and that of the shared ones, (B, T, D)."""
        x_ND = x_BTD.flatten(0, 1)
        routing: Routing = self.router(x_ND, tokens)
        y_ND: Tensor = self.experts(x_ND, routing.slot_NK, routing.weight_NK, routing.kept_NK)
        if self.shared is not None:
            y_ND = y_ND + self.shared.sum_of_all(x_ND)
        return y_ND.view_as(x_BTD)

    def num_idle_parameters(self) -> int:
        """Return the number of parameters of the experts that a token is not sent to."""
        return round(self.idle_share * sum(parameter.numel() for parameter in self.experts.parameters()))

    def num_idle_matrix_elements(self) -> int:
        """Return how many of these are elements of matrices; see model/profiling/flops.py."""
        return round(self.idle_share * (self.experts.in_weight.numel() + self.experts.out_weight.numel()))
