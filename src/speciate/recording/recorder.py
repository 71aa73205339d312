"""Record what the routers of a model choose, in any loop, by ordinary forward hooks.

    with record_routing(model) as recording:
        model(**batch)
    record = recording.build()

The hooks keep references alone. What they saw is counted when the model's forward pass is over, and then let go.

N tokens of a batch, in their flattened order; S slots, K chosen slots.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from speciate.recording.decisions import Shares, decisions_of, kept_decisions, shares_of
from speciate.recording.families import READ
from speciate.recording.key_buckets import bucketed, num_buckets
from speciate.recording.router_call import Call, KeyCall, RouterCall, SharesCall, Site
from speciate.recording.scores import are_probabilities
from speciate.recording.shadows import Shadows
from speciate.recording.sites import UnreadableModel, find_sites
from speciate.recording.text_batches import context_of
from speciate.recording.token_stream import TokenStream, token_streams
from speciate.selection.record_builder import RecordBuilder
from speciate.selection.record_sums import SelectorShape
from speciate.selection.routing_record import Integers, RoutingRecord
from speciate.selection.text import Text

MOST_KEYS = 1 << 17
"""Number of tokens of the longest text, where nothing says it."""


class Sink(Protocol):
    """What takes the decisions besides the record, such as a writer of a trace."""

    def add(self, shape: SelectorShape, document_N: Sequence[Text], phase: str, decisions: dict[str, Any]) -> None:
        """Take decisions of one router of experts.

        Args:
            shape: the router.
            document_N: the text that each decision's token is of.
            phase: `prompt`, `generation` or empty.
            decisions: arrays by the names of the arguments of `RecordBuilder.add`: choice_NK, position_N, ...
        """


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
        self.most_keys = MOST_KEYS
        """Largest number of tokens that an indexer of sparse attention sees; it decides the number of its slots."""
        self._streams: dict[str, TokenStream] = {}
        self._calls: list[tuple[Site, Call, Tensor | None]] = []
        self._slots_of: dict[str, tuple[float, int]] = {}
        """Path of a selector whose decisions choose different numbers of slots -> their sum, and its decisions."""
        self._probs_of: dict[str, bool] = {}
        self._num_rows = 0
        for site in sites:
            self._add_notes(site)

    def begin(self, streams: dict[str, TokenStream]) -> None:
        """Begin a forward pass over these tokens."""
        self._streams = streams
        self._calls = []

    def emit(self, site: Site, call: Call) -> None:
        """Take what a hook saw.

        Outside of a forward pass (a block that is computed again for its gradient) it is left out.

        Raises:
            UnreadableModel: the router decided about something else than the tokens.
        """
        if not self._streams:
            return
        shadow_logits = None
        if isinstance(call, RouterCall):
            stream = self._stream_of(site)
            if call.token_N is None and len(call.slot_NK) != len(stream.token_N):
                raise UnreadableModel(
                    f"{site.path}: the router decided about {len(call.slot_NK)} tokens of {len(stream.token_N)}"
                )
            shadow_logits = self.shadows.logits(site, call, kept_decisions(call.token_N, stream))
            call = replace(call, hidden_ND=None)
        self._calls.append((site, call, shadow_logits))

    def end(self) -> None:
        """Count what the forward pass chose."""
        calls, self._calls = self._calls, []
        rows_of: dict[int, StreamRows] = {}
        for site, call, shadow_logits in calls:
            stream = self._stream_of(site)
            if id(stream) not in rows_of:
                rows_of[id(stream)] = self._rows_of(stream)
            self._count(site, call, shadow_logits, rows=rows_of[id(stream)])
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
        means = {path: slots / decisions for path, (slots, decisions) in self._slots_of.items()}
        selectors = tuple(
            replace(one, num_chosen=means[one.path]) if one.path in means else one for one in record.selectors
        )
        return replace(record, selectors=selectors, shadows=shadows)

    def _stream_of(self, site: Site) -> TokenStream:
        return self._streams.get(site.stream, self._streams["decoder"])

    def _add_notes(self, site: Site) -> None:
        known = READ.get(site.family)
        if known is not None and known.caution:
            self.builder.add_note("family", f"{site.family}: {known.caution}")
        if site.rule.scores is None:
            self.builder.add_note(
                "no_probabilities",
                f"{site.family}: nobody has looked at the routers of this family, so that their choices are recorded "
                "without probabilities.",
            )
        for kind, text in site.notes:
            self.builder.add_note(kind, text)

    def _rows_of(self, stream: TokenStream) -> "StreamRows":
        """Return the record's row of each token, and where the token is in its document."""
        count = _num_rows(stream)
        texts = self.texts or [Text(f"text {self._num_rows + row}", "") for row in range(count)]
        phase = ("generation" if stream.is_continued else "prompt") if self.with_phases else ""
        row_B = np.array([self._row(text, phase) for text in texts[:count]], dtype=np.int64)
        start_B = np.zeros(count, dtype=np.int64) if self.start_B is None else np.array(self.start_B, dtype=np.int64)
        batch_N = stream.batch_N.cpu().numpy()
        position_N = stream.position_N.cpu().numpy() + start_B[batch_N]
        token_N = stream.token_N.cpu().numpy().astype(np.int64)
        return StreamRows(stream, row_B[batch_N], token_N, position_N, batch_N, texts, phase)

    def _row(self, text: Text, phase: str) -> int:
        builders = [self.builder, *self.shadows.builders.values()]
        rows = [builder.row(text.document, label=text.label, group=text.group, phase=phase) for builder in builders]
        return rows[0]

    def _count(self, site: Site, call: Call, shadow_logits: Tensor | None, *, rows: "StreamRows") -> None:
        if isinstance(call, KeyCall):
            call = bucketed(call, rows.stream, num_buckets(self.most_keys))
        kept_N = kept_decisions(call.token_N, rows.stream)
        row_N, tokens = rows.of_decisions(call.token_N, kept_N)
        if isinstance(call, SharesCall):
            self._count_shares(shares_of(site, call, kept_N, row_N), row_N, tokens)
            return
        shape, decisions = decisions_of(site, call, kept_N, are_probs=self._are_probs(site, call, kept_N))
        self.builder.add(shape, row_N, **tokens, **decisions)
        if self.sinks:
            texts, phase = rows.texts_of(call.token_N, kept_N), rows.phase
            for sink in self.sinks:
                sink.add(shape, texts, phase, {**tokens, **decisions})
        if shadow_logits is not None:
            position_N = tokens["position_N"]
            self.shadows.add_random(shape, row_N, shadow_logits[kept_N], rule=site.rule, position_N=position_N)
            self.shadows.add_hash(shape, row_N, tokens["token_N"], position_N)

    def _are_probs(self, site: Site, call: RouterCall, kept_N: Tensor) -> bool:
        """Tell whether a router's logits are probabilities already: its first call decides.

        A single token's logits can look like probabilities by chance, and a generated token is a call of its own.
        """
        if site.path not in self._probs_of:
            self._probs_of[site.path] = call.logits_NS is not None and are_probabilities(call.logits_NS[kept_N])
        return self._probs_of[site.path]

    def _count_shares(self, shares: Shares, row_N: Integers, tokens: dict[str, Integers]) -> None:
        decided_N = shares.decided_N
        if not decided_N.any():
            return
        self.builder.add_tally(shares.shape, shares.row_D, shares.tally)
        self.builder.add_to_sample(
            shares.shape,
            row_N[decided_N],
            shares.choice_NS[decided_N],
            position_N=tokens["position_N"][decided_N],
            token_N=tokens["token_N"][decided_N],
        )
        slots, decisions = self._slots_of.get(shares.shape.path, (0.0, 0))
        count = int(decided_N.sum())
        self._slots_of[shares.shape.path] = slots + count * shares.mean_chosen, decisions + count


@dataclass(frozen=True, eq=False)
class StreamRows:
    """The tokens of a forward pass, and which rows of the record they belong to."""

    stream: TokenStream
    row_N: Integers
    token_N: Integers
    position_N: Integers
    batch_N: Integers
    texts: Sequence[Text]
    phase: str

    def texts_of(self, token_N: Tensor | None, kept_N: Tensor) -> list[Text]:
        """Return the text of each decision that is kept; arguments as for `of_decisions`."""
        return [self.texts[row] for row in self.batch_N[_kept_tokens(token_N, kept_N)].tolist()]

    def of_decisions(self, token_N: Tensor | None, kept_N: Tensor) -> tuple[Integers, dict[str, Any]]:
        """Return the row of each decision that is kept, and what is known of its token.

        Args:
            token_N: index of each decision's token; None: there is one decision a token.
            kept_N: the decisions that are kept.
        """
        at = _kept_tokens(token_N, kept_N)
        return self.row_N[at], {"token_N": self.token_N[at], "position_N": self.position_N[at]}


def _kept_tokens(token_N: Tensor | None, kept_N: Tensor) -> Integers:
    """Return the index of the token of each decision that is kept."""
    kept: npt.NDArray[np.bool_] = kept_N.cpu().numpy()
    if token_N is None:
        return np.flatnonzero(kept)
    index_N: Integers = token_N.cpu().numpy()
    return index_N[kept]


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
    recording.most_keys = context_of(model) or MOST_KEYS
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
    def emit(call: Call) -> None:
        with torch.no_grad():
            recording.emit(site, call)

    return emit
