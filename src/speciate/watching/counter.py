"""Count what the selectors of a model choose in its forward passes, by document.

Hooks count only while the watched module's own forward runs, so a block that gradient checkpointing computes again in
the backward pass is not counted twice. Outside of a check they return at once.

Shape suffixes: N decisions, S slots, K chosen slots, G documents.
"""

import functools
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from speciate.recording.router_call import RouterCall, Site
from speciate.recording.sites import find_sites
from speciate.selection.selection import Selection, record_selections, selectors
from speciate.selection.tally import Array
from speciate.watching.counts import WatchedSelector
from speciate.watching.documents import match_tokens, of_own, of_transformer


class ChoiceCounter:
    """Hooks on one model, and the choices that they have counted since the last `take`."""

    def __init__(self, model: nn.Module, name: str = "the watched model") -> None:
        """Hook the model's routers: this package's own selectors, or those that `recording` finds.

        Raises:
            ValueError: the model has no router, or one that cannot be read; names it.
        """
        self.model = model
        self.active = False
        """Whether forward passes are counted now."""
        self.in_training_only = False
        """Whether those of a model in evaluation mode are left out."""
        self.shapes: dict[str, WatchedSelector] = {}
        """Each selector, as its first call showed it."""
        self.own = bool(selectors(model))
        self._sites = [] if self.own else find_sites(model, name)
        self._within = False
        self._stack = ExitStack()
        self._record: dict[str, Selection] = {}
        self._calls: list[tuple[Site, RouterCall]] = []
        self._num_documents = 0
        self._chosen: dict[str, list[tuple[int, Tensor]]] = {}
        self._null: dict[str, Array] = {}
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
        null = self._null
        self.drop()
        return chosen, null

    def drop(self) -> None:
        """Forget what has been counted."""
        self._chosen, self._null, self._num_documents = {}, {}, 0

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._within = self.active and (model.training or not self.in_training_only)
        if self._within and self.own:
            self._record = self._stack.enter_context(record_selections(model))

    def _emit(self, site: Site, call: RouterCall) -> None:
        if self._within:
            self._calls.append((site, call))

    def _end(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        if not self._within:
            return
        self._within = False
        self._stack.close()
        calls, self._calls = self._calls, []
        record, self._record = self._record, {}
        if output is None:
            return  # the forward pass failed, and its error is on the way
        with torch.no_grad():
            # an exported model of this package is called as those of transformers are
            own = self.own and "input_ids" not in kwargs
            documents = {"decoder": of_own(args, kwargs)} if own else of_transformer(model, args, kwargs)
            count = max(int(document_N.max()) + 1 for document_N in documents.values())
            for path, selection in record.items():
                self._add_selection(path, selection, documents["decoder"], count)
            for site, call in calls:
                self._add_call(site, call, documents, count)
        self._num_documents += count

    def _add_selection(self, path: str, selection: Selection, document_of_token_N: Tensor, count: int) -> None:
        """Add a call of one of this package's selectors."""
        num_slots = selection.chosen_NS.shape[1]
        null_S = selection.null_NS.expand_as(selection.probs_NS).double().mean(0)
        even = bool(torch.allclose(null_S, torch.full_like(null_S, 1 / num_slots), rtol=1e-9, atol=0))
        if path not in self.shapes:
            k = float((selection.chosen_NS > 0).sum(1).double().mean()) if even else 1.0
            self.shapes[path] = WatchedSelector(path, _layer_of(path), num_slots, k)
        document_N = document_of_token_N[selection.token_N]
        chosen_GS = torch.zeros(count, num_slots, dtype=torch.float64, device=document_N.device)
        kept_N = document_N >= 0
        chosen_GS.index_add_(0, document_N[kept_N], selection.chosen_NS[kept_N].double())
        self._chosen.setdefault(path, []).append((self._num_documents, chosen_GS))
        self._null[path] = null_S.cpu().numpy()

    def _add_call(self, site: Site, call: RouterCall, documents: Mapping[str, Tensor], count: int) -> None:
        """Add a call of a router that `recording` reads."""
        slot_NK = call.slot_NK
        num_slots = site.num_slots
        if num_slots is None:
            if call.logits_NS is None:
                raise ValueError(f"{site.path}: the number of its experts is unknown, so their load cannot be watched")
            num_slots = call.logits_NS.shape[-1]
        if site.path not in self.shapes:
            self.shapes[site.path] = WatchedSelector(site.path, site.layer, num_slots, float(slot_NK.shape[1]))
        document_N = match_tokens(documents, len(slot_NK), site.path, site.stream)
        place_NK = document_N[:, None].to(slot_NK.device) * num_slots + slot_NK
        # what is padding, or was chosen by no token, is counted in a cell of its own, so that no device waits
        nowhere = count * num_slots
        place_NK = place_NK.where((slot_NK >= 0) & (document_N[:, None].to(slot_NK.device) >= 0), nowhere)
        counted = torch.bincount(place_NK.flatten(), minlength=nowhere + 1)[:nowhere]
        self._chosen.setdefault(site.path, []).append((self._num_documents, counted.view(count, num_slots).double()))
        if site.path not in self._null:
            self._null[site.path] = torch.full((num_slots,), 1 / num_slots, dtype=torch.float64).numpy()


def _layer_of(path: str) -> int:
    return next((int(part) for part in path.split(".") if part.isdecimal()), -1)
