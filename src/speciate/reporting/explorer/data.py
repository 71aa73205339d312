"""ExplorerData: texts, and what the selectors of one or several models chose for every token of them.

The page that shows it (write.py) reads nothing else. Two sources fill it: a RoutingRecord with its Judgement
(from_record.py), and a finished study with its steps of training (study.py).

Shape suffixes: P tokens of all documents, M tokens of one check, K chosen slots, S slots.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.config.contracts.slots import KINDS

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
EXPERT_COLUMNS = {
    "slot": "number of the expert",
    "share": "its share of the choices",
    "share_low": "lower bound of the interval",
    "share_high": "upper bound",
    "dead": "whether no token chose it",
    "cost": "nats per token that the model loses without it",
    "cost_low": "lower bound of the interval",
    "cost_high": "upper bound",
    "control": "nats per token that the model loses if as many random tokens are rerouted",
}
"""Columns of `Layer.experts`; only `slot` must be there, and NaN stands for what is not known."""
LIFT_COLUMNS = {
    "slot": "number of the expert",
    "label": "the label",
    "lift": "its share among texts of the label, over the mean of the labels",
    "low": "lower bound of the interval",
    "high": "upper bound",
    "q": "q-value of no preference",
    "token_lift": "the lift that the tokens' identity predicts",
    "shadow_lift": "the most extreme lift of routers that never learned",
    "placebo_lift": "the lift with shuffled labels",
    "cost": "nats per token that texts of the label lose without the expert",
    "control": "the same for as many random tokens",
}
"""Columns of `Layer.lifts`; `slot`, `label` and `lift` must be there."""


@dataclass(frozen=True)
class Document:
    """One text; its tokens follow those of the document before it."""

    name: str
    label: str
    num_tokens: int
    generated_by: str = ""
    """Name of the model that generated it, beside which alone it is shown; empty for a text that all models read."""


@dataclass(frozen=True, eq=False)
class Check:
    """The choices of one selector at one step of training."""

    step: int
    """Optimizer steps so far; -1 where the source knows no steps."""
    token_M: Integers | None
    """Tokens that were observed, in ascending order; None: all of them."""
    choice_MK: npt.NDArray[np.int16]
    """Chosen slots, the first choice first where the order is known; -1 fills the rest."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One selector of one model."""

    path: str
    kind: str
    """One of `KINDS`."""
    slots: tuple[str, ...]
    """Names of the slots."""
    checks: tuple[Check, ...]
    """In the order of their steps; the last one is the finished model."""
    ordered: bool = True
    """Whether the order of the chosen slots is known."""
    sentence: str = ""
    """The verdict on this layer."""
    weight_MK: Floats | None = None
    """Weights of the last check's choices, from 0 to 1."""
    margin_M: Floats | None = None
    """Logit of the last chosen slot minus that of the best one not chosen, of the last check."""
    key_MJ: npt.NDArray[np.int16] | None = None
    """How many tokens back each chosen key stands, of the last check; -1 fills the rest."""
    score_M: Floats | None = None
    """Importance of each token, of the last check; NaN where unknown."""
    experts: pd.DataFrame | None = None
    """A row for each expert; see `EXPERT_COLUMNS`."""
    lifts: pd.DataFrame | None = None
    """A row for each expert and label; see `LIFT_COLUMNS`."""
    unsaid: tuple[str, ...] = ()
    """A sentence for each thing that is not known about its experts."""


@dataclass(frozen=True, eq=False)
class Model:
    """One model, or one run of a study."""

    name: str
    about: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True, eq=False)
class ExplorerData:
    """Everything that an explorer shows."""

    title: str
    documents: tuple[Document, ...]
    token_P: Integers
    """Token ids; -1 where unknown."""
    pieces: Mapping[int, str]
    """Token id -> its text. A token whose text is unknown is shown by its id."""
    models: tuple[Model, ...]
    order_P: Integers | None = None
    """Step at which a sampler lifted each token's mask, from 0; -1 for tokens that were not generated so."""
    aligned: bool = True
    """Whether expert 3 of one model is expert 3 of the others; between seeds it is not, so the page can match them."""
    notes: tuple[str, ...] = ()
    """What a reader should know of the texts and choices, in sentences."""
    left_out: tuple[str, ...] = field(default=())
    """What was left out to keep the page small, in sentences."""

    def __post_init__(self) -> None:
        self.check()

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the documents' labels in order of first appearance, without the empty one."""
        return tuple(label for label in dict.fromkeys(document.label for document in self.documents) if label)

    def check(self) -> None:
        """Raise ValueError naming what does not fit together."""
        num_tokens = sum(document.num_tokens for document in self.documents)
        if num_tokens != len(self.token_P):
            raise ValueError(f"explorer: the documents have {num_tokens} tokens, and there are {len(self.token_P)}")
        names = {model.name for model in self.models}
        for document in self.documents:
            if document.generated_by and document.generated_by not in names:
                raise ValueError(f"explorer: {document.name}: there is no model {document.generated_by}")
        if self.order_P is not None and len(self.order_P) != num_tokens:
            raise ValueError(f"explorer: there are {num_tokens} tokens, but an order of {len(self.order_P)}")
        for model in self.models:
            for layer in model.layers:
                _check_layer(f"explorer: {model.name}, {layer.path}", layer, num_tokens)


def _check_layer(where: str, layer: Layer, num_tokens: int) -> None:
    if layer.kind not in KINDS:
        raise ValueError(f"{where}: kind {layer.kind} is none of {', '.join(KINDS)}")
    if not layer.checks:
        raise ValueError(f"{where}: has no check")
    for check in layer.checks:
        count = num_tokens if check.token_M is None else len(check.token_M)
        if len(check.choice_MK) != count:
            raise ValueError(f"{where}, step {check.step}: {len(check.choice_MK)} choices for {count} tokens")
        if check.choice_MK.size and not -1 <= check.choice_MK.min() <= check.choice_MK.max() < len(layer.slots):
            raise ValueError(f"{where}, step {check.step}: a slot is out of range; there are {len(layer.slots)}")
    count = len(layer.checks[-1].choice_MK)
    for name in ("weight_MK", "margin_M", "key_MJ", "score_M"):
        value = vars(layer)[name]
        if value is not None and len(value) != count:
            raise ValueError(f"{where}: {name} has {len(value)} tokens, not {count}")
    for table, needed in ((layer.experts, ("slot",)), (layer.lifts, ("slot", "label", "lift"))):
        if table is not None and (absent := [name for name in needed if name not in table]):
            raise ValueError(f"{where}: a table has no column {', '.join(absent)}")
