"""The base class of every objective: the loss to minimise, and the hooks of evaluation and the observer.

B blocks of T tokens, S = T - 1 predictions of a block.
"""

import abc

import pandas as pd
from torch import Tensor, nn

from speciate.data.blocks import BlockSet
from speciate.model.transformer import Transformer


class Objective(nn.Module, abc.ABC):
    """A loss over blocks of tokens. A component overrides the hooks that it needs; the rest have the defaults here."""

    @abc.abstractmethod
    def forward(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return the mean loss of the predictions that count, in nats; a scalar with gradient."""

    @abc.abstractmethod
    def loss_mask(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return which predictions count, (B, S) boolean."""

    @abc.abstractmethod
    def token_nll(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return each token's negative log-likelihood, or its bound, in nats, (B, S), without gradient."""

    def nll_estimates(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return independent unbiased estimates of `token_nll`, (estimates, B, S); one where it is exact."""
        return self.token_nll(model, token_BT, document_BT).unsqueeze(0)

    def probe_nll(
        self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return each prediction's nats, without gradient, and which predictions count, (B, S) each.

        Interventions on selectors compare these nats. An objective whose `token_nll` takes many passes gives what a
        single one shows, on draws that the block alone decides.
        """
        return self.token_nll(model, token_BT, document_BT), self.loss_mask(model, token_BT, document_BT)

    @property
    def is_estimated(self) -> bool:
        """Whether `token_nll` is a Monte Carlo estimate, so that the spread of `nll_estimates` is its error."""
        return False

    def before_update(self, progress: float) -> None:
        """Prepare for an optimizer step; `progress` is the share of the training that is done."""

    def run_probe(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None) -> None:
        """Run every module whose selections and metrics are observed, on probe blocks."""
        model.hidden(token_BT, document_BT)

    @property
    def noise_levels(self) -> tuple[float, ...]:
        """The shares of masked tokens at which `run_at_level` shows a block; none where nothing is masked."""
        return ()

    def run_at_level(
        self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None, level: float
    ) -> tuple[Tensor, Tensor]:
        """Run the model on blocks at one noise level; return which tokens are masked and which may be, (B, T) each.

        A token's own draw decides, so what is masked at one level is masked at every higher one.
        """
        raise NotImplementedError(f"{type(self).__module__} masks nothing")

    def details(self, model: Transformer, blocks: BlockSet) -> pd.DataFrame | None:
        """Return a table of single tokens (what, item, position, token, x, y); None: it has none."""
        return None
