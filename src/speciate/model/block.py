"""One block of the decoder: block = mixer x ffn x depth, pre-norm (Radford et al. 2019).

    h = x + mixer(norm(x));   run(x) = h + ffn(norm(h));   block(x) = depth(x, run)

Each factor is a component: a file that offers one class, built from the file's own Options.

    mixer/<kind>.py   Mixer(options, context)         (x_BTD, tokens) -> what to add to x_BTD; mixes positions
    ffn/<kind>.py     FeedForward(options, context)   (x_BTD, tokens) -> what to add to x_BTD; each token by itself
    depth/<kind>.py   Depth(options, context)         (x_BTD, tokens, run) -> the block's x_BTD; which tokens run

A depth with `wraps_ffn` comes after the mixer: its run(h) = h + ffn(norm(h)).

A component names the projection whose output joins the residual stream `out` (or `out_...`), because
initial_weights.py scales it down. If a token uses only some of its parameters, it inherits a class of module_hooks.py.

B blocks of T tokens, D width.
"""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from speciate.model.depth_base import BlockDepth
from speciate.model.module_hooks import HasIdleParameters
from speciate.model.norm import norm
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.selection import mark_recomputation


# nn.Module comes first: FSDP exchanges a block's class, which Python allows only if its first base is nn.Module
class Block(nn.Module, HasIdleParameters):
    """The block of one layer, as its model's spec says."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        block = context.model.block_of(context.layer)
        self.mixer_norm = norm(context.model)
        self.mixer = block.mixer.component().Mixer(block.mixer, context)
        self.ffn_norm = norm(context.model)
        self.ffn = block.ffn.component().FeedForward(block.ffn, context)
        self.depth: BlockDepth = block.depth.component().Depth(block.depth, context)
        self.recompute = False
        """Whether the backward pass recomputes the block from its input, instead of keeping its activations."""

    def apply_mixer(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the residual stream after the mixer."""
        mixed_BTD: Tensor = x_BTD + self.mixer(self.mixer_norm(x_BTD), tokens)
        return mixed_BTD

    def apply_ffn(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the residual stream after the feed-forward layer, given the stream after the mixer."""
        fed_BTD: Tensor = x_BTD + self.ffn(self.ffn_norm(x_BTD), tokens)
        return fed_BTD

    def run(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the residual stream after both sublayers."""
        return self.apply_ffn(self.apply_mixer(x_BTD, tokens), tokens)

    def apply_depth(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return what `forward` does, without recomputation."""
        out_BTD: Tensor
        if self.depth.wraps_ffn:
            out_BTD = self.depth(self.apply_mixer(x_BTD, tokens), tokens, self.apply_ffn)
        else:
            out_BTD = self.depth(x_BTD, tokens, self.run)
        return out_BTD

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the residual stream after the block, (B, T, D)."""
        if not (self.recompute and torch.is_grad_enabled()):
            return self.apply_depth(x_BTD, tokens)
        contexts = (nullcontext(), mark_recomputation())
        out_BTD: Tensor = checkpoint(self.apply_depth, x_BTD, tokens, use_reentrant=False, context_fn=lambda: contexts)
        return out_BTD

    @property
    def share(self) -> float:
        """Share of the tokens that run through `wrapped` in training."""
        return float(self.depth.share)

    @property
    def wrapped(self) -> tuple[nn.Module, ...]:
        """The modules that a token bypasses when it skips."""
        ffn = (self.ffn_norm, self.ffn)
        return ffn if self.depth.wraps_ffn else (self.mixer_norm, self.mixer, *ffn)

    def num_idle_parameters(self) -> int:
        """Return how many parameters a token leaves idle by skipping, the mean over tokens."""
        if self.share == 1:
            return 0
        parameters = sum(parameter.numel() for part in self.wrapped for parameter in part.parameters())
        modules = (module for part in self.wrapped for module in part.modules())
        idle = sum(module.num_idle_parameters() for module in modules if isinstance(module, HasIdleParameters))
        return round((1 - self.share) * (parameters - idle))
