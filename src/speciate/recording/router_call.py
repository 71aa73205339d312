"""What one call of one router chose, and where the routers of a model are.

N decisions (the tokens of a batch, in their flattened order), S slots, K chosen slots, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor
from torch.utils.hooks import RemovableHandle


@dataclass(eq=False)
class RouterCall:
    """One call of one router, as its experts were really called."""

    slot_NK: Tensor
    """Chosen slots, integer; -1: none."""
    weight_NK: Tensor | None
    """Weights of the chosen slots, as the model applies them."""
    logits_NS: Tensor | None
    """What the router calls its logits, without the balancing bias; they may be probabilities already."""
    hidden_ND: Tensor | None = None
    """What the router saw."""
    by_scores: bool = True
    """Whether the scores decide the choice. Otherwise (a table of token ids) they make weights alone."""


Emit = Callable[[RouterCall], None]


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
    has_order: bool = True
    """Whether a decision's slots have an order, the best first."""
    num_slots: int | None = None
    """Number of slots, S; None: as many as there are logits."""
    notes: tuple[tuple[str, str], ...] = field(default=())
    """(kind, text) of what a reader of the record must know of this router."""

    @property
    def layer(self) -> int:
        """The first number in the path; -1 where it has none."""
        return next((int(part) for part in self.path.split(".") if part.isdecimal()), -1)

    @property
    def stream(self) -> str:
        """Return `decoder` or `encoder`, the tokens that reach a router of a model that has both."""
        return "decoder" if "decoder" in self.path.split(".") else "encoder"
