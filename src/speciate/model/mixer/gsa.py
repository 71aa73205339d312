"""Gated Sparse Attention (arXiv 2601.15305): causal attention over the keys that an indexer chose, with two gates.

    v_s <- v_s * sigmoid(W_v x_s + b_v)     value gate (G2), of the key's token, a number per key head and dimension
    o_t = sum over the chosen s of softmax_s(q_t . k_s / sqrt(h)) v_s
    o_t <- o_t * sigmoid(W_o x_t + b_o)     output gate (G1), a number per head and dimension

The gates begin at sigmoid(1/2) = .62, with W near 0. In the folder model/sparse_attention, indexer/<kind>.py says how
keys are ranked and what the ranking learns from, budget/<kind>.py how many keys are taken, and attention.py attends to
them. With all keys chosen and no gates, this equals mixer/attention.py on the same weights.

B blocks of T tokens, D width, N heads of h dimensions, K key heads.
"""

from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor

from speciate.config.components import OneOf
from speciate.config.contracts.model import BudgetOptions, IndexerOptions
from speciate.model.attention_heads import AttentionHeads
from speciate.model.attention_metrics import record_largest
from speciate.model.attention_options import AttentionHeadsOptions
from speciate.model.module_hooks import CountsFlops
from speciate.model.sparse_attention.attention import AttentionOutput, SparseAttention
from speciate.model.sparse_attention.gate import Gate
from speciate.model.sparse_attention.metrics import record_choice
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.metrics import is_collecting, record_metric


class Options(AttentionHeadsOptions):
    """Heads, gates, and how keys are chosen."""

    gates: Literal["none", "value", "output", "both"] = "both"
    """Which gates there are: value (G2), output (G1), both or none."""
    indexer: Annotated[IndexerOptions, OneOf("model/sparse_attention/indexer")]
    """How keys are ranked."""
    budget: Annotated[BudgetOptions, OneOf("model/sparse_attention/budget")]
    """How many keys a query takes."""

    causal_only: ClassVar[bool] = True

    @model_validator(mode="after")
    def _crossings(self) -> Self:
        if self.budget.adaptive and not self.indexer.supports_adaptive_k:
            raise ValueError(
                f"budget: {self.budget.kind} goes by an indexer's scores, and {self.indexer.kind} has none"
            )
        return self


class Mixer(CountsFlops, AttentionHeads):
    """Sparse attention with gates; one projection gives queries, keys and values, in this order."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__(options, context)
        model = context.model
        value_width = self.num_kv_heads * self.head_width
        self.value_gate = Gate(model.width, value_width) if options.gates in ("value", "both") else None
        output_width = self.num_heads * self.head_width
        self.output_gate = Gate(model.width, output_width) if options.gates in ("output", "both") else None
        self.selector = SparseAttention(options.indexer, options.budget, context)

    def num_flops(self, length: float) -> float:
        """Return the FLOPs of one token's scores, weighted sum of the chosen values, and ranking of keys."""
        k = min(length, self.selector.budget.max_keys)
        return 4.0 * k * self.num_heads * self.head_width + self.selector.indexer.key_flops(length, k)

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return what each token gathers from the keys that it chose, (B, T, D)."""
        query_BTNh, key_BTNh, value_BTNh = self.project(x_BTD, tokens)
        if self.value_gate is not None:
            value_BTNh = self._gated(self.value_gate, "value_gate", x_BTD, value_BTNh)
        mixed_BTNh = self._attend(x_BTD, query_BTNh, key_BTNh, value_BTNh, tokens=tokens).mixed_BTNh
        if self.output_gate is not None:
            mixed_BTNh = self._gated(self.output_gate, "output_gate", x_BTD, mixed_BTNh)
        out_BTD: Tensor = self.out(mixed_BTNh.flatten(2))
        if is_collecting():
            record_largest(self, out_BTD)
        return out_BTD

    def _gated(self, gate: Gate, name: str, x_BTD: Tensor, y_BTNh: Tensor) -> Tensor:
        open_BTNh: Tensor = gate(x_BTD).view_as(y_BTNh)
        if is_collecting():
            record_metric(self, name, open_BTNh)
        return y_BTNh * open_BTNh

    def _attend(
        self, x_BTD: Tensor, query_BTNh: Tensor, key_BTNh: Tensor, value_BTNh: Tensor, *, tokens: TokenBatch
    ) -> AttentionOutput:
        """Join the cached keys, and attend. Autocast is off, since its precision would flip near ties."""
        with torch.autocast(x_BTD.device.type, enabled=False):
            query_features, key_features = self.selector.indexer.features(x_BTD)
            document_BT = torch.zeros_like(tokens.id_BT) if tokens.document_BT is None else tokens.document_BT
            keys: tuple[Tensor, ...] = (key_BTNh, value_BTNh, tokens.position_BT, document_BT, *key_features)
            before: tuple[Tensor, ...] = ()
            state = None if tokens.cache is None else tokens.cache.state(self.layer)
            if state is not None:
                before = state[len(keys) :]
                keys = tuple(torch.cat(pair, dim=1) for pair in zip(state[: len(keys)], keys, strict=True))
            key_BSNh, value_BSNh, position_BS, document_BS, *key_features_BS = keys
            one_context = tokens.document_BT is None and tokens.cache is None
            inputs = AttentionInputs(
                query_BTNh=query_BTNh,
                key_BSKh=key_BSNh,
                query_features=query_features,
                key_features=tuple(key_features_BS),
                position_BT=tokens.position_BT,
                position_BS=position_BS,
                document_BT=None if one_context else document_BT,
                document_BS=None if one_context else document_BS,
                first=key_BSNh.shape[1] - x_BTD.shape[1],
            )
            result: AttentionOutput = self.selector(inputs, value_BSNh, tokens, before)
            if tokens.cache is not None:
                assert result.choice is not None, "a decoder does not train"
                tokens.cache.set_state(self.layer, *keys, *result.choice.after)
            if is_collecting() and result.choice is not None and result.mass_BTk is not None:
                record_choice(self.selector, inputs, result.choice, result.mass_BTk, tokens=tokens)
        return result
