"""What transformers' users ask of a model's inside, recorded by ordinary forward hooks: hidden states, router logits.

B rows of T tokens, N = B T, D width, S slots.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from speciate.model.moe.top_k_router import Scores, TopK
from speciate.model.transformer import Transformer
from speciate.selection.selection import Selection, auxiliary_loss, is_recomputing, record_selections


@contextmanager
def record_hidden_states(model: Transformer) -> Iterator[list[Tensor]]:
    """Record the input of each block, (B, T, D), in order."""
    states: list[Tensor] = []

    def hook(block: nn.Module, args: tuple[Any, ...]) -> None:
        states.append(args[0])

    handles = [block.register_forward_pre_hook(hook) for block in model.blocks]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record_scores(model: Transformer) -> Iterator[dict[str, tuple[Scores, Tensor]]]:
    """Record the scores of every router of experts by its path, with the index of each token that it scored, (N)."""
    record: dict[str, tuple[Scores, Tensor]] = {}

    def hook_of(path: str) -> Any:
        def hook(scorer: nn.Module, args: tuple[Any, ...], scores: Scores) -> None:
            # no arithmetic here: a block that is recomputed must do the same again
            if not is_recomputing():
                record[path] = scores, args[1].index_BT.flatten()

        return hook

    handles = [router.scorer.register_forward_hook(hook_of(path)) for path, router in expert_routers(model)]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def expert_routers(model: Transformer) -> list[tuple[str, TopK]]:
    """Return the routers of experts with their paths."""
    return [(path, module) for path, module in model.named_modules() if isinstance(module, TopK)]


def logits_by_token(router: TopK, scored: tuple[Scores, Tensor] | None, like_ND: Tensor) -> Tensor:
    """Return a router's logits, (N, S), a row for each token of the batch.

    A router without logits gives logarithms of its probabilities. A token that does not come to the router, because it
    skips the layer, has NaN there.
    """
    empty_NS = like_ND.new_full((len(like_ND), router.num_slots), torch.nan)
    if scored is None:
        return empty_NS
    scores, index_N = scored
    logits_NS = scores.probs_NS.log() if scores.logits_NS is None else scores.logits_NS
    if len(logits_NS) == len(like_ND):
        return logits_NS
    real_N = index_N >= 0
    return empty_NS.to(logits_NS.dtype).index_copy(0, index_N[real_N], logits_NS[real_N])


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was recorded of one forward pass."""

    model: Transformer
    block_inputs: list[Tensor] | None
    scores: dict[str, tuple[Scores, Tensor]] | None
    selections: dict[str, Selection]

    def hidden_states(self, x_BTD: Tensor) -> tuple[Tensor, ...] | None:
        """Return each block's input and x_BTD, the output of the last norm; None if they were not asked for."""
        return None if self.block_inputs is None else (*self.block_inputs, x_BTD)

    def router_logits(self, x_BTD: Tensor) -> tuple[Tensor, ...] | None:
        """Return the logits of each router of experts, (N, S); None if they were not asked for."""
        if self.scores is None:
            return None
        x_ND = x_BTD.flatten(0, 1)
        return tuple(
            logits_by_token(router, self.scores.get(path), x_ND) for path, router in expert_routers(self.model)
        )

    def auxiliary_loss(self) -> Tensor | None:
        """Return the auxiliary loss of all selectors that ran; None if none did, or if it was not asked for."""
        return auxiliary_loss(self.selections) if self.selections else None


@contextmanager
def record_outputs(model: Transformer, *, hidden_states: bool, routers: bool) -> Iterator[Recorded]:
    """Record what is asked for of the forward pass inside the `with` block.

    Args:
        model: the model.
        hidden_states: whether to record the blocks' inputs.
        routers: whether to record the scores of routers, and the Selections of all selectors.
    """
    with ExitStack() as recording:
        inputs = recording.enter_context(record_hidden_states(model)) if hidden_states else None
        scores = recording.enter_context(record_scores(model)) if routers else None
        selections = recording.enter_context(record_selections(model)) if routers else {}
        yield Recorded(model, inputs, scores, selections)
