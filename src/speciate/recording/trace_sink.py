"""Write what is recorded as a trace, too: every decision of every token, for other programs and later questions.

    with TraceSink(functools.partial(TraceWriter, path), find_sites(model)) as sink:
        record_model(model, tokenizer, texts, sinks=[sink])

The writer is that of `speciate.traces.write`, which is opened at the first decision: a model tells k and E by then.
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from speciate.recording.router_call import Site
from speciate.selection.record_sums import SelectorShape
from speciate.selection.text import Text


class TraceSink:
    """Hands decisions on to a writer of a trace. Keys that an indexer chose are no experts, and are left out."""

    def __init__(self, open_writer: Callable[..., Any], sites: Sequence[Site]) -> None:
        """Begin.

        Args:
            open_writer: (num_experts, num_chosen, paths) -> a writer, which is a context.
            sites: the model's routers, for their paths.
        """
        self._open_writer = open_writer
        self._paths = {site.layer: site.path for site in sites if site.rule.scores is None or site.routers}
        self._writer: Any = None
        self._shape: SelectorShape | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)

    def add(self, shape: SelectorShape, document_N: Sequence[Text], phase: str, decisions: dict[str, Any]) -> None:
        """Write decisions of one router.

        Raises:
            ValueError: a trace cannot hold them: another router has another k or E, or the same layer.
        """
        if self._writer is None:
            self._shape = shape
            opened = self._open_writer(
                num_experts=shape.num_slots, num_chosen=int(shape.num_chosen), paths=dict(self._paths)
            )
            self._writer = opened.__enter__()
        assert self._shape is not None
        if (shape.num_slots, shape.num_chosen) != (self._shape.num_slots, self._shape.num_chosen):
            raise ValueError(
                f"{shape.path}: chooses {shape.num_chosen} of {shape.num_slots} experts, and {self._shape.path} "
                f"{self._shape.num_chosen} of {self._shape.num_slots}; a trace has one k and one number of experts"
            )
        if self._paths.get(shape.layer, shape.path) != shape.path:
            raise ValueError(
                f"{shape.path}: {self._paths[shape.layer]} is in layer {shape.layer}, too; "
                "a trace has one router a layer"
            )
        self._writer.add(
            shape.layer,
            decisions["choice_NK"],
            document=[text.document for text in document_N],
            label=[text.label for text in document_N],
            phase=phase,
            position=decisions["position_N"],
            token=decisions["token_N"],
            weight=decisions.get("weight_NK"),
        )
