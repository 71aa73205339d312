"""What one call of one router chose, and where the routers of a model are.

N decisions (the tokens of a batch, in their flattened order; B rows of T tokens), S slots, K chosen slots, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from speciate.selection.module_path import layer_of


@dataclass(eq=False)
class RouterCall:
    """One call of one router of experts, as its experts were really called."""

    slot_NK: Tensor
    """Chosen slots, integer; -1: none."""
    weight_NK: Tensor | None
    """Weights of the chosen slots, as the model applies them."""
    logits_NS: Tensor | None
    """What the router calls its logits, without the balancing bias; they may be probabilities already."""
    hidden_ND: Tensor | None = None
    """What the router saw."""
    token_N: Tensor | None = None
    """Index of each decision's token in the flattened batch; negative: padding. None: one decision a token."""


@dataclass(eq=False)
class KeyCall:
    """One call of an indexer of sparse attention: the keys that each query may attend to."""

    key_BTk: Tensor
    """Index of each chosen key among all keys, the cached ones included; -1: none."""
    seen_BT: Tensor | None = None
    """How many of the first keys each query could choose from; None: those up to itself."""


@dataclass(eq=False)
class SharesCall:
    """One call of a selector whose choice falls on slots in unequal parts, or whose null is not uniform."""

    chosen_NS: Tensor
    """Rows sum to one."""
    null_NS: Tensor
    """What an unlearned selector would choose; rows sum to one. (1, S) where it is the same for all."""
    probs_NS: Tensor | None
    """Probabilities before the choice; rows sum to one."""
    token_N: Tensor | None = None
    """As of a RouterCall."""


Call = RouterCall | KeyCall | SharesCall
Emit = Callable[[Call], None]


@dataclass(frozen=True)
class Rule:
    """How a router chooses, as far as an untrained copy of it needs to know."""

    scores: str | None
    """A name of scores.FUNCTIONS; None if unknown."""
    num_groups: int = 1
    """Number of groups of experts; 1: none."""
    kept_groups: int = 1
    """Number of groups that a token may choose from."""
    best_in_group: int = 1
    """Number of best experts whose scores add up to a group's."""


@dataclass(frozen=True, eq=False)
class Site:
    """One router of a model."""

    path: str
    """The router's module path."""
    family: str
    rule: Rule
    attach: Callable[[Emit], list[RemovableHandle]]
    """Hook the router, so that each call is emitted."""
    routers: tuple[nn.Module, ...] = ()
    """The module whose logits decide the choice of experts; empty for a selector of something else."""
    by_scores: bool = True
    """Whether scores decide. Otherwise (a table of token ids) they make weights alone, and the choice has no margin."""
    notes: tuple[tuple[str, str], ...] = field(default=())
    """(kind, text) of what a reader of the record must know of this router."""

    @property
    def layer(self) -> int:
        """The first number in the path; -1 where it has none."""
        return layer_of(self.path)

    @property
    def reroutes(self) -> bool:
        """Whether another choice follows from other logits."""
        return self.by_scores and len(self.routers) == 1

    @property
    def stream(self) -> str:
        """Return `encoder` or `decoder`: whose tokens reach the router, in a model that has both."""
        return "encoder" if "encoder" in self.path.split(".") else "decoder"
