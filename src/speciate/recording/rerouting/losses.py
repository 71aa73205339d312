"""Losses of texts under changes of a model, and what a change costs by label, with a bootstrap over documents.

G documents, U units of them (documents of one group are one), B rows of T tokens.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from speciate.selection.text import Text

Array = npt.NDArray[np.float64]
DRAWS = 999
"""Draws of the bootstrap."""
BOUNDS = (0.025, 0.975)
ALL = ""
"""Stands for all texts together, in place of a label."""


class LossSums:
    """Sums of losses by document."""

    def __init__(self, num_documents: int) -> None:
        self.nats_G: Array = np.zeros(num_documents)
        self.tokens_G: Array = np.zeros(num_documents)

    def add(self, row_B: Sequence[int], output: Any, token_BT: Tensor, mask_BT: Tensor) -> None:
        """Add a batch.

        Args:
            row_B: the document of each row.
            output: what the model returned, with logits of the next token, (B, T, V).
            token_BT: the tokens.
            mask_BT: 1 at tokens, 0 at padding.

        Raises:
            ValueError: the model predicts no next token.
        """
        logits = vars(output).get("logits")
        if logits is None or logits.dim() != 3 or logits.shape[:2] != token_BT.shape:
            raise ValueError("--knock-out: needs a model that predicts the next token of each")
        for row, document in enumerate(row_B):
            real_S = mask_BT[row, 1:].bool()
            next_S = token_BT[row, 1:][real_S]
            nats = F.cross_entropy(logits[row, :-1][real_S].float(), next_S, reduction="sum")
            self.nats_G[document] += float(nats)
            self.tokens_G[document] += len(next_S)


class Cost(NamedTuple):
    """What a change costs on the texts of a label, in nats per predicted token."""

    label: str
    """Empty: all texts together."""
    tokens: int
    """Predicted tokens."""
    nats: float
    low: float
    """Lower bound of a 95 % interval over documents; NaN with fewer than two units."""
    high: float


class Costs:
    """Compares losses with those of the model as it is."""

    def __init__(self, base: LossSums, texts: Sequence[Text], *, seed: int) -> None:
        """Begin.

        Args:
            base: losses of the model as it is.
            texts: the documents.
            seed: seed of the bootstrap.
        """
        self.base = base
        names = list(dict.fromkeys(text.label for text in texts if text.label))
        label_G = np.array([text.label for text in texts])
        self.members = {ALL: np.ones(len(texts), dtype=bool), **{name: label_G == name for name in names}}
        units = [text.group or text.document for text in texts]
        self.unit_G = np.unique(units, return_inverse=True)[1]
        self.seed = seed

    def of(self, changed: LossSums) -> list[Cost]:
        """Return the cost for all texts together, and for each label."""
        return [self._of_label(label, kept_G, changed) for label, kept_G in self.members.items()]

    def _of_label(self, label: str, kept_G: npt.NDArray[np.bool_], changed: LossSums) -> Cost:
        unit = np.unique(self.unit_G[kept_G], return_inverse=True)[1]
        more_U = np.bincount(unit, (changed.nats_G - self.base.nats_G)[kept_G])
        tokens_U = np.bincount(unit, self.base.tokens_G[kept_G])
        total = tokens_U.sum()
        low = high = np.nan
        if len(more_U) > 1 and total:
            draw = np.random.default_rng(self.seed)
            times_DU = draw.multinomial(len(more_U), np.full(len(more_U), 1 / len(more_U)), size=DRAWS)
            drawn_D = times_DU @ more_U / np.maximum(times_DU @ tokens_U, 1)
            low, high = (float(bound) for bound in np.quantile(drawn_D, BOUNDS))
        return Cost(label, int(total), float(more_U.sum() / max(total, 1)), low, high)


def spearman(x: Array, y: Array) -> float:
    """Return Spearman's rank correlation, ties with their mean rank; NaN where one of the two is constant."""
    if len(x) < 3 or any(np.ptp(values) == 0 for values in (x, y)):
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)
