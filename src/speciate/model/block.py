"""One block of the decoder: block = mixer x ffn x depth, pre-norm (Radford et al. 2019).

    h = x + mixer(norm(x));   run(x) = h + ffn(norm(h));   block(x) = depth(x, run)

Each factor is a kind, a file that offers one class; `options` is the file's own Options:

    mixer/<kind>.py   Mixer(options, place)         (x_BTD, tokens) -> what to add to x_BTD; mixes positions
    ffn/<kind>.py     FeedForward(options, place)   (x_BTD, tokens) -> what to add to x_BTD; each token by itself
    depth/<kind>.py   Depth(options, place)         (x_BTD, tokens, run) -> the block's x_BTD; which tokens run

A depth with `wraps_ffn` stands behind the mixer: its run(h) = h + ffn(norm(h)). One in which only a share of the tokens
runs, in training, has that as `share`; see `Block.num_idle_parameters` and model/profiling/flops.py.

A component calls the projection whose output joins the residual stream `out` (or `out_...`); see initial.py. One of
whose parameters a token uses only some defines `num_idle_parameters() -> int`; see transformer.count_parameters.

B blocks of T tokens, D width.
"""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from speciate.model.norm import norm
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.selection import recomputation


class Block(nn.Module):
    """The block of one layer, as its model's spec says."""

    def __init__(self, place: BuildContext) -> None:
        super().__init__()
        block = place.model.block_of(place.layer)
        self.mixer_norm = norm(place.model)
        self.mixer = block.mixer.component().Mixer(block.mixer, place)
        self.ffn_norm = norm(place.model)
        self.ffn = block.ffn.component().FeedForward(block.ffn, place)
        self.depth = block.depth.component().Depth(block.depth, place)
        self.recompute = False
        """Whether the backward pass computes the block again from its input, instead of keeping all in between."""

    def mix(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """The residual stream of these tokens after the mixer."""
        mixed_BTD: Tensor = x_BTD + self.mixer(self.mixer_norm(x_BTD), tokens)
        return mixed_BTD

    def feed(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """The residual stream after the feed-forward layer, of that behind the mixer."""
        fed_BTD: Tensor = x_BTD + self.ffn(self.ffn_norm(x_BTD), tokens)
        return fed_BTD

    def run(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """The residual stream of these tokens after both sublayers."""
        return self.feed(self.mix(x_BTD, tokens), tokens)

    def deepen(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """`forward`, without recomputation."""
        behind_mixer = getattr(self.depth, "wraps_ffn", False)
        deep_BTD: Tensor
        if behind_mixer:
            deep_BTD = self.depth(self.mix(x_BTD, tokens), tokens, self.feed)
        else:
            deep_BTD = self.depth(x_BTD, tokens, self.run)
        return deep_BTD

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """The residual stream after the block, (B, T, D)."""
        if not (self.recompute and torch.is_grad_enabled()):
            return self.deepen(x_BTD, tokens)
        contexts = (nullcontext(), recomputation())
        again_BTD: Tensor = checkpoint(self.deepen, x_BTD, tokens, use_reentrant=False, context_fn=lambda: contexts)
        return again_BTD

    @property
    def share(self) -> float:
        """Of the tokens that run through `wrapped`, in training."""
        return float(getattr(self.depth, "share", 1.0))

    @property
    def wrapped(self) -> tuple[nn.Module, ...]:
        """What the tokens that skip do without."""
        fed = (self.ffn_norm, self.ffn)
        return fed if getattr(self.depth, "wraps_ffn", False) else (self.mixer_norm, self.mixer, *fed)

    def num_idle_parameters(self) -> int:
        """Parameters that a token leaves idle by skipping: the mean over the tokens."""
        if self.share == 1:
            return 0
        parameters = sum(parameter.numel() for part in self.wrapped for parameter in part.parameters())
        inside = (module for part in self.wrapped for module in part.modules())
        idle = sum(getattr(module, "num_idle_parameters", int)() for module in inside)
        return round((1 - self.share) * (parameters - idle))
