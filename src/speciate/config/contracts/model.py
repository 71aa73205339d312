"""Contracts of the model components: the options of each slot, and what its module must define.

A component subclasses its slot's options and sets only what differs from the defaults here. Its module holds the class
that the slot's Protocol names; `options.component()` loads that module.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from speciate.config.components import ComponentOptions, component_module

if TYPE_CHECKING:
    from torch import nn

    from speciate.model.depth_base import BlockDepth
    from speciate.model.moe.top_k_router import Balancer, Scorer
    from speciate.model.sparse_attention.indexer_base import Budget, Indexer
    from speciate.model.token_batch import BuildContext


class MixerModule(Protocol):
    """A kind of mixer: `model/mixer/<kind>.py`."""

    def Mixer(self, options: Any, context: "BuildContext", /) -> "nn.Module":
        """Build the module that mixes positions: (x (B, T, D), tokens) -> (B, T, D)."""


class MixerOptions(ComponentOptions):
    """Options of a mixer: what mixes positions."""

    def component(self) -> MixerModule:
        return cast(MixerModule, component_module(self))


class FfnModule(Protocol):
    """A kind of feed-forward layer: `model/ffn/<kind>.py`."""

    def FeedForward(self, options: Any, context: "BuildContext", /) -> "nn.Module":
        """Build the module that acts on each token by itself."""


class FfnOptions(ComponentOptions):
    """Options of a feed-forward layer: what acts on each token by itself."""

    def component(self) -> FfnModule:
        return cast(FfnModule, component_module(self))


class DepthModule(Protocol):
    """A kind of depth: `model/depth/<kind>.py`."""

    def Depth(self, options: Any, context: "BuildContext", /) -> "BlockDepth":
        """Build the module that decides which tokens run through a block."""


class DepthOptions(ComponentOptions):
    """Options of a depth: what decides which tokens run through a block."""

    def share_running(self) -> float:
        """Return the share of a context's tokens that run in training."""
        return 1.0

    def component(self) -> DepthModule:
        return cast(DepthModule, component_module(self))


class RouterModule(Protocol):
    """A kind of router: `model/moe/router/<kind>.py`."""

    def Router(self, options: Any, context: "BuildContext", num_slots: int, /) -> "Scorer":
        """Build the module that scores the slots for each token."""


class RouterOptions(ComponentOptions):
    """Options of a router of experts."""

    balanced_by: ClassVar[tuple[str, ...]] = ()
    """What can move the router's choice: its `gradient`, or a bias on the `choice`."""
    scores_all_slots: ClassVar[bool] = True
    """Whether it scores every slot, so that more than one can be chosen; otherwise it names one slot a token."""

    def check_slots(self, num_slots: int) -> None:
        """Raise ValueError for a number of slots that the router does not support."""

    def component(self) -> RouterModule:
        return cast(RouterModule, component_module(self))


class ChoiceModule(Protocol):
    """A kind of choice: `model/moe/choice/<kind>.py`."""

    def Choose(self, options: Any, context: "BuildContext", num_slots: int, top_k: int, /) -> "nn.Module":
        """Build the module that turns scores into chosen slots."""


class ChoiceOptions(ComponentOptions):
    """Options of a choice: how scores become chosen slots."""

    balances: ClassVar[bool] = False
    """Whether the choice itself fills every slot evenly, so that no balancing goes with it."""

    def share(self, num_slots: int, top_k: int) -> float:
        """Return the share of the slots that a token uses on average, at most."""
        return top_k / num_slots

    def component(self) -> ChoiceModule:
        return cast(ChoiceModule, component_module(self))


class BalanceModule(Protocol):
    """A kind of balancing: `model/moe/balance/<kind>.py`."""

    def Balance(self, options: Any, num_slots: int, /) -> "Balancer":
        """Build the module that keeps the slots' loads even."""


class BalanceOptions(ComponentOptions):
    """Options of a balancing: what keeps the slots' loads even."""

    acts_by: ClassVar[str | None] = None
    """What the balancing moves: the router's `gradient`, or the `choice` by a bias; None: it does nothing."""

    def component(self) -> BalanceModule:
        return cast(BalanceModule, component_module(self))


class IndexerModule(Protocol):
    """A kind of indexer: `model/sparse_attention/indexer/<kind>.py`."""

    def Indexer(self, options: Any, context: "BuildContext", /) -> "Indexer":
        """Build the module that ranks the keys of each query."""


class IndexerOptions(ComponentOptions):
    """Options of a sparse attention's indexer."""

    supports_adaptive_k: ClassVar[bool] = True
    """Whether it has scores from which an adaptive budget can decide."""

    def component(self) -> IndexerModule:
        return cast(IndexerModule, component_module(self))


class BudgetModule(Protocol):
    """A kind of budget: `model/sparse_attention/budget/<kind>.py`."""

    def Budget(self, options: Any, /) -> "Budget":
        """Build the module that decides how many keys each query keeps."""


class BudgetOptions(ComponentOptions):
    """Options of a budget: how many keys a query keeps."""

    adaptive: ClassVar[bool] = False
    """Whether the number of keys depends on the indexer's scores."""

    def component(self) -> BudgetModule:
        return cast(BudgetModule, component_module(self))
