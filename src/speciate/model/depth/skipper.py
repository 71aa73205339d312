"""Routers that let some tokens run through a part of a block while the others skip it (Mixture-of-Depths).

    l_t = w . x_t;     expert choice: of a sequence's T tokens the k = round(c T) with the largest l_t run
    m_t = v . silu(W sg[x_t]):  the predictor, which learns from BCE(sigmoid(m_t), 1[t is among the k]) alone
    y_t = x_t + g_t (run(x)_t - x_t) where t runs, x_t elsewhere;   run sees only the tokens that run

Expert choice looks at the whole sequence: whether a token runs depends on later ones. The predictor looks at one token
alone, so it can decide while a sequence is read from left to right (Raposo et al. 2024, 2404.02258).

B blocks of T tokens, D width, K of the T that run, N = B T decisions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speciate.model.depth_base import Run
from speciate.model.module_hooks import DrawsOwnWeights
from speciate.model.token_batch import PADDING, BuildContext, TokenBatch
from speciate.selection.metrics import record_metric
from speciate.selection.selection import Selection, Selector, mark_recomputation


@dataclass(frozen=True, slots=True, eq=False)
class TokenChoice:
    """Which tokens run, how much of the wrapped part's update they take, and the Selection that reports it."""

    selection: Selection
    """The report; its slots are skip and run."""
    run_BT: Tensor
    """Which tokens run, boolean."""
    gate_BT: Tensor
    """g; used where a token runs."""
    count: int | None
    """Number of tokens that run in each row, if it is known beforehand and the same in all rows."""


class Predictor(DrawsOwnWeights, nn.Module):
    """Predicts from one token alone whether expert choice takes it; at first the capacity's odds for every token."""

    def __init__(self, width: int, hidden: int, capacity: float) -> None:
        super().__init__()
        self.capacity = capacity
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, 1)

    def draw_initial(self, draw: Callable[[str], torch.Generator]) -> None:
        """Set the bias to ln(c / (1 - c))."""
        self.down.bias.fill_(self.capacity).logit_()

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the logits of running, (B, T); x gets no gradient."""
        logit_BT: Tensor = self.down(F.silu(self.up(x_BTD.detach()))).squeeze(-1)
        return logit_BT


class TokenRouter(Selector):
    """Base of a depth's router: it decides which tokens run. A kind's router says when it uses expert choice.

    Args:
        context: the model and the layer.
        capacity: c, share of the tokens that run.
        hidden: number of hidden units of the predictor.
        predictor_weight: weight of the predictor's loss.
    """

    num_slots = 2

    def __init__(self, context: BuildContext, capacity: float, hidden: int, predictor_weight: float) -> None:
        super().__init__()
        self.capacity, self.predictor_weight = capacity, predictor_weight
        self.scorer = nn.Linear(context.model.width, 1, bias=False)
        # if all tokens run, there is nothing to predict
        self.predictor = Predictor(context.model.width, hidden, capacity) if capacity < 1 else None

    def logits(self, x_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (l, m), each (B, T); m is None without a predictor. Autocast is off, as it flips near ties."""
        with torch.autocast(x_BTD.device.type, enabled=False):
            x_BTD = x_BTD.to(self.scorer.weight.dtype)
            logit_BT: Tensor = self.scorer(x_BTD).squeeze(-1)
            return logit_BT, None if self.predictor is None else self.predictor(x_BTD)

    def loss(self, predicted_BT: Tensor | None, expert_BT: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the predictor's weighted loss, a scalar."""
        if predicted_BT is None:
            return self.scorer.weight.new_zeros(())
        target_BT = expert_BT.to(predicted_BT.dtype)
        if tokens.padded:
            predicted_BT, target_BT = predicted_BT[tokens.real_BT], target_BT[tokens.real_BT]
        return self.predictor_weight * F.binary_cross_entropy_with_logits(predicted_BT, target_BT)

    def selection(self, run_BT: Tensor, prob_BT: Tensor, tokens: TokenBatch, loss: Tensor | None = None) -> Selection:
        """Return the Selection of decisions made with these probabilities of running."""
        prob_N = prob_BT.detach().flatten()
        return Selection(
            probs_NS=torch.stack([1 - prob_N, prob_N], dim=-1),
            chosen_NS=F.one_hot(run_BT.flatten().long(), 2).to(prob_N.dtype),
            null_NS=prob_N.new_tensor([[1 - self.capacity, self.capacity]]),
            token_N=tokens.index_BT.flatten(),
            loss=prob_N.new_zeros(()) if loss is None else loss,
        )


def num_running(capacity: float, length: int) -> int:
    """Return k, how many of `length` tokens run: at least one."""
    return max(1, round(capacity * length))


def expert_choice(logit_BT: Tensor, capacity: float, tokens: TokenBatch) -> tuple[Tensor, int | None]:
    """Return which tokens of each row are among its k largest, (B, T) boolean; and k, None if rows differ in it.

    Padding is never among them, and k is the capacity's share of a row's real tokens.
    """
    most = num_running(capacity, logit_BT.shape[1])
    if not tokens.padded:
        column_BK = logit_BT.topk(most, dim=1).indices
        return torch.zeros_like(logit_BT, dtype=torch.bool).scatter_(1, column_BK, True), most
    column_BK = logit_BT.masked_fill(~tokens.real_BT, -torch.inf).topk(most, dim=1).indices
    count_B1 = (capacity * tokens.real_BT.sum(1, keepdim=True)).round().clamp_min(1)
    among_BK = torch.arange(most, device=logit_BT.device) < count_B1
    run_BT = torch.zeros_like(logit_BT, dtype=torch.bool).scatter_(1, column_BK, among_BK)
    return run_BT & tokens.real_BT, None


def run_selected(x_BTD: Tensor, tokens: TokenBatch, run: Run, choice: TokenChoice, *, causal: bool = True) -> Tensor:
    """Return y, (B, T, D): the tokens that run, gathered in each row, go through `run`.

    Rows in which fewer tokens run are padded at their end, as documents of their own, so that no token sees padding.
    """
    count_B = choice.run_BT.sum(1)
    width = int(count_B.max()) if choice.count is None else choice.count
    if width == 0 and tokens.cache is not None:
        return x_BTD
    # if no token runs, padding runs alone, so that a selector inside is called and reports no decision
    all_real = choice.count is not None and width > 0
    width = max(1, width)
    column_BK = (~choice.run_BT).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
    real_BK = None
    selected = tokens.select(column_BK)
    if not all_real:
        real_BK = torch.arange(width, device=x_BTD.device) < count_B.unsqueeze(1)
        selected = tokens.select(column_BK, real_BK)
        batched_cache = tokens.cache is not None and len(x_BTD) > 1
        if selected.document_BT is not None or batched_cache or not causal:
            document_BK = torch.zeros_like(selected.id_BT) if selected.document_BT is None else selected.document_BT
            selected = replace(selected, document_BT=document_BK.where(real_BK, PADDING))
    column_BKD = column_BK.unsqueeze(-1).expand(-1, -1, x_BTD.shape[-1])
    x_BKD = x_BTD.gather(1, column_BKD)
    y_BKD = x_BKD + choice.gate_BT.gather(1, column_BK).unsqueeze(-1) * (run(x_BKD, selected) - x_BKD)
    if real_BK is not None:
        y_BKD = y_BKD.where(real_BK.unsqueeze(-1), x_BKD)
    return x_BTD.scatter(1, column_BKD, y_BKD.to(x_BTD.dtype))


def record_rule_difference(
    router: TokenRouter,
    evaluated: TokenChoice,
    trained: TokenChoice,
    y_BTD: Tensor,
    *,
    run_trained: Callable[[], Tensor],
) -> None:
    """Record how far the rule of evaluation is from that of training, on the same input.

    `capacity`: share of tokens that run. `agreement`: share of tokens on which both rules agree.
    `train_eval_difference`: |y_training - y_evaluation| / |y_evaluation|, y the output of the wrapped part.

    Args:
        router: the module that records.
        evaluated: the choice of evaluation.
        trained: the choice that training would make.
        y_BTD: the output of evaluation.
        run_trained: computes the output of training.
    """
    record_metric(router, "capacity", evaluated.run_BT.double())
    record_metric(router, "agreement", (evaluated.run_BT == trained.run_BT).double())
    with mark_recomputation():
        difference_BTD = (run_trained() - y_BTD).double()
    record_metric(router, "train_eval_difference", difference_BTD.norm() / y_BTD.double().norm())
