"""Synthetic records with planted truths: documents with tastes of their own, tokens that depend on the label, and
routers that follow one thing each."""

from dataclasses import dataclass

import numpy as np

from speciate.selection.record_builder import RecordBuilder, SelectorShape
from speciate.selection.routing_record import RoutingRecord, SelectorRecord

VOCABULARY = 60


@dataclass(frozen=True)
class Texts:
    """Texts of several labels."""

    document_N: np.ndarray
    position_N: np.ndarray
    token_N: np.ndarray
    label_D: np.ndarray
    label_names: tuple[str, ...]

    @property
    def label_N(self) -> np.ndarray:
        return self.label_D[self.document_N]


def texts(draw: np.random.Generator, *, labels: int = 3, documents: int = 16, tokens: int = 120) -> Texts:
    """Return texts of `labels` labels: documents have mixtures of their own."""
    label_D = np.repeat(np.arange(labels), documents)
    base = np.exp(2.0 * draw.standard_normal((labels, VOCABULARY)))
    length_D = draw.integers(tokens // 2, tokens * 3 // 2, len(label_D))
    parts = []
    for document, length in enumerate(length_D.tolist()):
        mixture = draw.dirichlet(base[label_D[document]] / base[label_D[document]].sum() * 40 + 0.05)
        parts.append(draw.choice(VOCABULARY, size=length, p=mixture))
    document_N = np.repeat(np.arange(len(label_D)), length_D)
    position_N = np.concatenate([np.arange(length) for length in length_D.tolist()])
    names = tuple(f"label {label}" for label in range(labels))
    return Texts(document_N, position_N, np.concatenate(parts), label_D, names)


def choose(draw: np.random.Generator, score_NS: np.ndarray, k: int = 1) -> np.ndarray:
    """Return the k largest of the scores plus Gumbel noise, the first choice first."""
    noisy = score_NS + draw.gumbel(size=score_NS.shape)
    return np.argsort(-noisy, axis=1)[:, :k]


def document_taste(draw: np.random.Generator, given: Texts, slots: int, scale: float = 0.3) -> np.ndarray:
    """Return scores that each document has of its own: what makes tokens of one document alike."""
    return scale * draw.standard_normal((len(given.label_D), slots))[given.document_N]


def router(kind: str, draw: np.random.Generator, given: Texts, slots: int = 8, k: int = 1) -> np.ndarray:
    """Return the choices of a router that follows one thing, (N, k)."""
    score = document_taste(draw, given, slots)
    if kind == "collapsed":
        score[:, 2] += 6.0
    elif kind == "label":
        # labels have the same tastes for other experts, and none so strong that the load comes near to a collapse
        one = draw.uniform(-1.2, 1.2, slots)
        score += np.stack([np.roll(one, 3 * label) for label in range(len(given.label_names))])[given.label_N]
    elif kind == "token":
        score += 4.0 * draw.standard_normal((VOCABULARY, slots))[given.token_N]
    elif kind == "geometry":  # an untrained router: labels differ in its inputs, by one common law
        score += 0.25 * draw.standard_normal((len(given.label_names), slots))[given.label_N]
    elif kind == "position":
        score[:, 0] += 3.0 * (given.position_N < 4)
    elif kind != "indifferent":
        raise ValueError(kind)
    return choose(draw, score, k)


def selectors_of(given: Texts, choices: dict[str, np.ndarray], slots: int, **options: bool) -> RoutingRecord:
    """Return a record in which each named router is a layer."""
    builder = RecordBuilder("planted")
    has_tokens, labelled = options.get("tokens", True), options.get("labels", True)
    row_D = np.array(
        [
            builder.row(f"document {place}", label=given.label_names[label] if labelled else "")
            for place, label in enumerate(given.label_D.tolist())
        ]
    )
    builder.pieces = {token: f" word{token}" if token % 3 else f"{token}" for token in range(VOCABULARY)}
    for layer, (name, choice_NK) in enumerate(choices.items()):
        builder.add(
            SelectorShape(f"layers.{layer}.{name}", layer, slots, choice_NK.shape[1]),
            row_D[given.document_N],
            choice_NK,
            position_N=given.position_N,
            token_N=given.token_N if has_tokens else None,
        )
    return builder.build()


def planted_record(
    seed: int,
    kinds: tuple[str, ...] = ("collapsed", "label", "token", "geometry", "indifferent"),
    *,
    slots: int = 8,
    k: int = 1,
    shadows: int = 8,
    **size: int,
) -> RoutingRecord:
    """Return a record with a layer for each kind of router, and untrained routers beside each layer."""
    draw = np.random.default_rng(seed)
    given = texts(draw, **size)
    record = selectors_of(given, {kind: router(kind, draw, given, slots, k) for kind in kinds}, slots)
    controls: dict[str, tuple[SelectorRecord, ...]] = {}
    for number in range(shadows):
        untrained = {kind: router("geometry", draw, given, slots, k) for kind in kinds}
        controls[f"shadow {number}"] = selectors_of(given, untrained, slots).selectors
    return RoutingRecord(
        source="planted",
        documents=record.documents,
        selectors=record.selectors,
        sample=record.sample,
        shadows=controls,
    )
