"""Record what the routers of a model choose, in any loop, by ordinary forward hooks.

    with record_routing(model) as recording:
        model(**batch)
    record = recording.build()

The hooks keep references alone. What they saw is counted when the model's forward pass is over, and then let go.

N tokens of a batch, in their flattened order; S slots, K chosen slots.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from speciate.recording.families import READ
from speciate.recording.router_call import RouterCall, Site
from speciate.recording.scores import are_probabilities, margins, order_by, probabilities
from speciate.recording.shadows import Shadows
from speciate.recording.sites import UnreadableModel, find_sites
from speciate.recording.token_stream import TokenStream, token_streams
from speciate.selection.record_builder import RecordBuilder, SelectorShape
from speciate.selection.routing_record import Integers, RoutingRecord
from speciate.selection.text import Text


class Sink(Protocol):
    """What takes the decisions besides the record, such as a writer of a trace."""

    def add(self, shape: SelectorShape, row_N: Integers, decisions: dict[str, Any]) -> None:
        """Take decisions of one selector, named as the arguments of `RecordBuilder.add`."""


class Recording:
    """What has been recorded so far; `build` returns the record."""

    def __init__(self, sites: Sequence[Site], source: str, *, shadows: int = 0, seed: int = 0) -> None:
        self.sites = sites
        self.builder = RecordBuilder(source)
        self.shadows = Shadows(shadows, seed)
        self.texts: Sequence[Text] | None = None
        """The documents that the next batch's rows are of; None: each row is a document of its own."""
        self.start_B: Sequence[int] | None = None
        """Position of each row's first token within its document; None: 0."""
        self.with_phases = False
        """Whether the tokens of a prompt and those generated after it are told apart."""
        self.sinks: list[Sink] = []
        self.active = True
        """Whether forward passes are recorded now."""
        self._streams: dict[str, TokenStream] = {}
        self._calls: list[tuple[Site, RouterCall, Tensor | None]] = []
        self._num_rows = 0
        for site in sites:
            self._add_notes(site)

    def begin(self, streams: dict[str, TokenStream]) -> None:
        """Begin a forward pass over these tokens."""
        self._streams = streams
        self._calls = []

    def emit(self, site: Site, call: RouterCall) -> None:
        """Take what a hook saw.

        Outside of a forward pass (a block that is computed again for its gradient) it is left out.

        Raises:
            UnreadableModel: the router decided about something else than the tokens.
        """
        if not self._streams:
            return
        stream = self._stream_of(site)
        if len(call.slot_NK) != len(stream.token_N):
            raise UnreadableModel(
                f"{site.path}: the router decided about {len(call.slot_NK)} tokens of {len(stream.token_N)}"
            )
        shadow_logits = self.shadows.logits(site, call, stream.real_N)
        self._calls.append((site, replace(call, hidden_ND=None), shadow_logits))

    def end(self) -> None:
        """Count what the forward pass chose."""
        calls, self._calls = self._calls, []
        counted: dict[int, tuple[Integers, dict[str, Integers]]] = {}
        for site, call, shadow_logits in calls:
            stream = self._stream_of(site)
            if id(stream) not in counted:
                counted[id(stream)] = self._rows_of(stream)
            self._count(site, call, shadow_logits, stream=stream, rows=counted[id(stream)])
        if self.texts is None and self._streams:
            self._num_rows += max(_num_rows(stream) for stream in self._streams.values())
        self._streams = {}

    def build(self) -> RoutingRecord:
        """Return the record of all forward passes so far.

        Raises:
            ValueError: there was none.
        """
        record = self.builder.build()
        kept = record.documents[["document", "phase"]].agg("/".join, axis=1)
        shadows = {}
        for name, builder in self.shadows.builders.items():
            shadow = builder.build()
            names = shadow.documents[["document", "phase"]].agg("/".join, axis=1)
            shadows[name] = shadow.of_documents(names.isin(kept).to_numpy()).selectors
        return replace(record, shadows=shadows)

    def _stream_of(self, site: Site) -> TokenStream:
        return self._streams.get(site.stream, self._streams["decoder"])

    def _add_notes(self, site: Site) -> None:
        known = READ.get(site.family)
        if known is not None and known.note:
            self.builder.add_note("family", f"{site.family}: {known.note}")
        if site.rule.scores is None:
            self.builder.add_note(
                "no_probabilities",
                f"{site.family}: nobody has looked at the routers of this family, so that their choices are recorded "
                "without probabilities.",
            )
        for kind, text in site.notes:
            self.builder.add_note(kind, text)

    def _rows_of(self, stream: TokenStream) -> tuple[Integers, dict[str, Integers]]:
        """Return the record's row of each real token, and what is known of these tokens."""
        real_N = stream.real_N.cpu().numpy()
        batch_N = stream.batch_N.cpu().numpy()[real_N]
        count = _num_rows(stream)
        texts = self.texts or [Text(f"text {self._num_rows + row}", "") for row in range(count)]
        phase = ("generation" if stream.is_continued else "prompt") if self.with_phases else ""
        row_B = np.array([self._row(text, phase) for text in texts[:count]], dtype=np.int64)
        start_B = np.zeros(count, dtype=np.int64) if self.start_B is None else np.array(self.start_B, dtype=np.int64)
        return row_B[batch_N], {
            "token_N": stream.token_N.cpu().numpy()[real_N].astype(np.int64),
            "position_N": stream.position_N.cpu().numpy()[real_N] + start_B[batch_N],
        }

    def _row(self, text: Text, phase: str) -> int:
        builders = [self.builder, *self.shadows.builders.values()]
        rows = [builder.row(text.document, label=text.label, group=text.group, phase=phase) for builder in builders]
        return rows[0]

    def _count(
        self,
        site: Site,
        call: RouterCall,
        shadow_logits: Tensor | None,
        *,
        stream: TokenStream,
        rows: tuple[Integers, dict[str, Integers]],
    ) -> None:
        row_N, tokens = rows
        shape, decisions = decisions_of(site, call, stream.real_N)
        self.builder.add(shape, row_N, **tokens, **decisions)
        for sink in self.sinks:
            sink.add(shape, row_N, {**tokens, **decisions})
        if shadow_logits is not None:
            position_N = tokens["position_N"]
            logits_NRS = shadow_logits[stream.real_N]
            self.shadows.add_random(shape, row_N, logits_NRS, rule=site.rule, position_N=position_N)
            self.shadows.add_hash(shape, row_N, tokens["token_N"], position_N)


def decisions_of(site: Site, call: RouterCall, real_N: Tensor) -> tuple[SelectorShape, dict[str, Any]]:
    """Return what a call decided about real tokens, as the arguments of `RecordBuilder.add`."""
    slot_NK, logits_NS = call.slot_NK[real_N], None
    weight_NK = None if call.weight_NK is None else call.weight_NK[real_N].float()
    decisions: dict[str, Any] = {}
    if call.logits_NS is not None:
        logits_NS = call.logits_NS[real_N].float()
        scores = site.rule.scores
        if are_probabilities(logits_NS):
            logits_NS, scores = logits_NS.clamp_min(torch.finfo(torch.float32).tiny).log(), "softmax"
        if scores is not None:
            decisions["probs_NS"] = probabilities(logits_NS, scores).cpu().numpy()
        if call.by_scores:
            decisions["margin_N"] = margins(logits_NS, slot_NK).cpu().numpy()
    rank_by = weight_NK if logits_NS is None else logits_NS.gather(1, slot_NK.clamp_min(0))
    if slot_NK.shape[1] > 1 and rank_by is not None and site.has_order:
        order_NK = order_by(rank_by, slot_NK)
        slot_NK = slot_NK.gather(1, order_NK)
        weight_NK = None if weight_NK is None else weight_NK.gather(1, order_NK)
    if weight_NK is not None:
        decisions["weight_NK"] = weight_NK.masked_fill(slot_NK < 0, torch.nan).cpu().numpy()
    num_slots = site.num_slots if call.logits_NS is None else call.logits_NS.shape[1]
    if num_slots is None:
        raise UnreadableModel(f"{site.path}: neither the router nor its configuration tells the number of experts")
    shape = SelectorShape(site.path, site.layer, num_slots, slot_NK.shape[1], ordered=site.has_order)
    return shape, {"choice_NK": slot_NK.cpu().numpy(), **decisions}


def _num_rows(stream: TokenStream) -> int:
    return int(stream.batch_N[-1]) + 1 if len(stream.batch_N) else 0


@contextmanager
def record_routing(
    model: nn.Module, *, source: str = "the model", shadows: int = 0, seed: int = 0
) -> Iterator[Recording]:
    """Record the routing of every forward pass of a model inside the `with` block.

    Args:
        model: a model of transformers.
        source: what it is called in the record and in messages.
        shadows: number of random routers beside each router; with any, a hash of token ids is one more. 0: none.
        seed: seed of the shadows.

    Raises:
        UnreadableModel: it has no router, or one that cannot be read; names the family.
    """
    sites = find_sites(model, source)
    recording = Recording(sites, source, shadows=shadows, seed=seed)
    handles = [handle for site in sites for handle in site.attach(_emitter(recording, site))]

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if recording.active:
            with torch.no_grad():
                recording.begin(token_streams(module, args, kwargs))

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        with torch.no_grad():
            recording.end()

    handles.append(model.register_forward_pre_hook(before, with_kwargs=True))
    handles.append(model.register_forward_hook(after))
    try:
        yield recording
    finally:
        for handle in handles:
            handle.remove()


def _emitter(recording: Recording, site: Site) -> Any:
    def emit(call: RouterCall) -> None:
        with torch.no_grad():
            recording.emit(site, call)

    return emit
