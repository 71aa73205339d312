"""Count what the selectors of a model choose in its forward passes, by document.

`recording` knows where the selectors are and what each call of one chose. Hooks count only while the watched module's
own forward runs, so a block that gradient checkpointing computes again in the backward pass is not counted twice.
Outside of a check they return at once.

Shape suffixes: N decisions, S slots, K chosen slots, G documents.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from speciate.recording.router_call import Call, KeyCall, RouterCall, SharesCall, Site
from speciate.recording.sites import find_sites
from speciate.selection.tally import Array
from speciate.watching.counts import WatchedSelector
from speciate.watching.documents import PADDING, document_of_decisions, document_of_tokens


class ChoiceCounter:
    """Hooks on one model, and the choices that they have counted since the last `take`."""

    def __init__(self, model: nn.Module, name: str = "the watched model") -> None:
        """Hook the model's selectors.

        Raises:
            ValueError: the model has no router, or one that cannot be read; names it.
        """
        self.active = False
        """Whether forward passes are counted now."""
        self.in_training_only = False
        """Whether those of a model in evaluation mode are left out."""
        self.shapes: dict[str, WatchedSelector] = {}
        """Each selector, as its first call showed it."""
        self._sites = find_sites(model, name)
        self._within = False
        self._calls: list[tuple[Site, RouterCall | SharesCall]] = []
        self._num_documents = 0
        self._chosen: dict[str, list[tuple[int, Tensor]]] = {}
        self._null: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.register_forward_hook(self._end, with_kwargs=True, always_call=True),
        ]
        for site in self._sites:
            self._handles += site.attach(functools.partial(self._emit, site))

    def close(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @property
    def num_documents(self) -> int:
        """Return how many documents have been counted since the last `take`."""
        return self._num_documents

    def take(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return each selector's choices by document, (G, S), and its null shares, (S,); and begin anew."""
        chosen: dict[str, Array] = {}
        for path, parts in self._chosen.items():
            total_GS = torch.zeros(self._num_documents, self.shapes[path].num_slots, dtype=torch.float64)
            for start, count_GS in parts:
                total_GS[start : start + len(count_GS)] += count_GS.cpu()
            chosen[path] = total_GS.numpy()
        null = {path: null_S.cpu().numpy() for path, null_S in self._null.items()}
        self.drop()
        return chosen, null

    def drop(self) -> None:
        """Forget what has been counted."""
        self._chosen, self._null, self._num_documents = {}, {}, 0

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._within = self.active and (model.training or not self.in_training_only)

    def _emit(self, site: Site, call: Call) -> None:
        # the keys of an indexer have no experts that could take over
        if self._within and not isinstance(call, KeyCall):
            self._calls.append((site, call))

    def _end(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        within, calls = self._within, self._calls
        self._within, self._calls = False, []
        if not within or output is None:
            return  # a forward pass that failed has no output, and its error is on the way
        with torch.no_grad():
            documents = document_of_tokens(model, args, kwargs)
            count = max(int(document_N.max()) + 1 for document_N in documents.values())
            for site, call in calls:
                if isinstance(call, SharesCall):
                    self._add_shares(site, call, documents, count)
                else:
                    self._add_choices(site, call, documents, count)
        self._num_documents += count

    def _add_shares(self, site: Site, call: SharesCall, documents: Mapping[str, Tensor], count: int) -> None:
        """Add a call whose choices are shares of slots, or whose null need not be even."""
        chosen_NS = call.chosen_NS.double()
        num_slots = chosen_NS.shape[1]
        null_S = call.null_NS.double().mean(0)
        if site.path not in self.shapes:
            even = bool(torch.allclose(null_S, torch.full_like(null_S, 1 / num_slots), rtol=1e-9, atol=0))
            chosen = float((chosen_NS > 0).sum(1).double().mean()) if even else 1.0
            self.shapes[site.path] = WatchedSelector(site.path, site.layer, num_slots, chosen)
        document_N = document_of_decisions(documents, site, len(chosen_NS), call.token_N)
        real_N = document_N != PADDING
        chosen_GS = torch.zeros(count, num_slots, dtype=torch.float64, device=document_N.device)
        chosen_GS.index_add_(0, document_N[real_N], chosen_NS[real_N])
        self._chosen.setdefault(site.path, []).append((self._num_documents, chosen_GS))
        self._null[site.path] = null_S

    def _add_choices(self, site: Site, call: RouterCall, documents: Mapping[str, Tensor], count: int) -> None:
        """Add a call of a router of experts."""
        if call.logits_NS is None:
            raise ValueError(f"{site.path}: the number of its experts is unknown, so their load cannot be watched")
        slot_NK, num_slots = call.slot_NK, call.logits_NS.shape[-1]
        if site.path not in self.shapes:
            self.shapes[site.path] = WatchedSelector(site.path, site.layer, num_slots, float(slot_NK.shape[1]))
        document_N1 = document_of_decisions(documents, site, len(slot_NK), call.token_N)[:, None].to(slot_NK.device)
        # what is padding, or was chosen by no token, is counted in a cell of its own, so that no device waits
        nowhere = count * num_slots
        place_NK = torch.where((slot_NK >= 0) & (document_N1 != PADDING), document_N1 * num_slots + slot_NK, nowhere)
        counted = torch.bincount(place_NK.flatten(), minlength=nowhere + 1)[:nowhere]
        self._chosen.setdefault(site.path, []).append((self._num_documents, counted.view(count, num_slots).double()))
        even_S = torch.full((num_slots,), 1 / num_slots, dtype=torch.float64)
        self._null.setdefault(site.path, even_S)
