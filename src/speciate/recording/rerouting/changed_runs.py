"""Run a model on texts as it is, and with the logits of one router changed.

N tokens of a batch, K chosen slots of a token, in the order of their logits.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from speciate.recording.rerouting.losses import LossSums
from speciate.recording.rerouting.reroute import Alter, altered_logits, of_other_tokens, without_slots
from speciate.recording.router_call import Call, Emit, RouterCall, Site
from speciate.recording.scores import order_by
from speciate.recording.text_batches import TextBatch, input_device


class ChangedRuns:
    """Runs the batches of some texts. What a router chooses as the model is decides what the controls take away."""

    def __init__(self, model: nn.Module, parts: Sequence[TextBatch], row_of: Mapping[str, int], *, seed: int) -> None:
        """Begin.

        Args:
            model: the model, in evaluation mode.
            parts: the batches.
            row_of: name of a document -> its row among the losses.
            seed: seed of the controls.
        """
        self.model, self.parts, self.row_of, self.seed = model, parts, row_of, seed
        self.passes = 0
        """Forward passes so far."""
        self.num_slots: dict[str, int] = {}
        """Path of a router -> its number of slots."""
        self._slots: dict[str, list[Tensor]] = {}
        self._device = input_device(model)

    def unchanged(self, sites: Sequence[Site]) -> LossSums:
        """Run the model as it is, and remember what these routers choose."""
        self._slots = {site.path: [] for site in sites}
        handles = [handle for site in sites for handle in site.attach(self._remember(site))]
        try:
            return self._run(lambda number: nullcontext())
        finally:
            for handle in handles:
                handle.remove()

    def without(self, site: Site, expert: int) -> LossSums:
        """Run the model with an expert's logit at -inf."""

        def alter(number: int, slot_NK: Tensor) -> Alter:
            gone_NS = torch.zeros(len(slot_NK), self.num_slots[site.path], dtype=torch.bool)
            gone_NS[:, expert] = True
            return without_slots(gone_NS)

        return self._changed(site, alter)

    def without_random(self, site: Site, expert: int) -> LossSums:
        """Run the model with as many choices of the same ranks taken from random tokens of the same blocks.

        One that would have lost its first choice makes another token lose its own first choice.
        """

        def alter(number: int, slot_NK: Tensor) -> Alter:
            num_slots = self.num_slots[site.path]
            lost_NK = (slot_NK == expert)[self._permutation(number, within_rows=True, salt=expert + 1)]
            gone_NS = torch.zeros(len(slot_NK), num_slots + 1, dtype=torch.bool)
            gone_NS.scatter_(1, slot_NK.masked_fill(~lost_NK | (slot_NK < 0), num_slots), True)
            return without_slots(gone_NS[:, :num_slots])

        return self._changed(site, alter)

    def shuffled(self, site: Site) -> LossSums:
        """Run the model with the logits of one router given to other tokens, so that the load stays."""
        return self._changed(
            site,
            lambda number, slot_NK: of_other_tokens(self._permutation(number, within_rows=False, salt=0)),
            alters_sums=False,
        )

    def _changed(self, site: Site, alter: Callable[[int, Tensor], Alter], *, alters_sums: bool = True) -> LossSums:
        (router,) = site.routers

        def change(number: int) -> AbstractContextManager[None]:
            slot_NK = self._slots[site.path][number].long()
            num_slots = self.num_slots[site.path]
            return altered_logits(
                router, len(slot_NK), num_slots, alter=alter(number, slot_NK), alters_sums=alters_sums
            )

        return self._run(change)

    @torch.no_grad()
    def _run(self, change: Callable[[int], AbstractContextManager[None]]) -> LossSums:
        sums = LossSums(len(self.row_of))
        for number, part in enumerate(self.parts):
            token_BT, mask_BT = part.token_BT.to(self._device), part.mask_BT.to(self._device)
            with change(number):
                output = self.model(input_ids=token_BT, attention_mask=mask_BT, use_cache=False)
            self.passes += 1
            sums.add([self.row_of[text.document] for text in part.texts], output, token_BT, mask_BT)
        return sums

    def _remember(self, site: Site) -> Emit:
        def emit(call: Call) -> None:
            assert isinstance(call, RouterCall) and call.logits_NS is not None
            order_NK = order_by(call.logits_NS.float().gather(1, call.slot_NK.clamp_min(0)), call.slot_NK)
            self.num_slots[site.path] = call.logits_NS.shape[1]
            self._slots[site.path].append(call.slot_NK.gather(1, order_NK).to(torch.int16).cpu())

        return emit

    def _permutation(self, number: int, *, within_rows: bool, salt: int) -> Tensor:
        """Return a random permutation of a batch's tokens, (N,), which leaves padding where it is."""
        mask_BT = self.parts[number].mask_BT
        draw = np.random.default_rng((self.seed, salt, number))
        real_N, place_N = mask_BT.flatten().bool().numpy(), np.arange(mask_BT.numel())
        row_N = place_N // mask_BT.shape[1] if within_rows else np.zeros_like(place_N)
        in_place, drawn = (np.lexsort((key_N, row_N)) for key_N in (place_N, draw.random(len(place_N))))
        from_N = place_N.copy()
        from_N[in_place[real_N[in_place]]] = drawn[real_N[drawn]]
        return torch.from_numpy(from_N)
