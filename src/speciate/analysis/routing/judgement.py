"""The Judgement: the tables, verdicts and sentences that a RoutingRecord yields; the page reads nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from speciate.selection.routing_record import Note

STATES = {
    "collapsed": "few experts take most choices, whatever the text",
    "specialised": "its choices tell the labels apart, by more than chance, tokens and untrained routers explain",
    "token": "its choices tell the labels apart, and the identity of the tokens explains it",
    "untrained": "its choices tell the labels apart, and no better than a router that was never trained",
    "telling": "its choices tell the labels apart; the record cannot show whether tokens or untrained routers do, too",
    "indifferent": "its choices do not depend on the label, or by less than matters",
    "undecided": "these texts are too few to tell",
    "unlabelled": "not collapsed; without labels nothing can be said of specialisation",
}
"""State of a layer -> what it means."""

TABLES: dict[str, dict[str, str]] = {
    "layers": {
        "path": "module path, or `layer 3`",
        "layer": "number of the layer",
        "phase": "prompt, generation or empty",
        "num_slots": "number of experts, E",
        "num_chosen": "experts chosen for a token, k",
        "decisions": "tokens that were routed",
        "units": "exchangeable units of documents, the n of every test",
        "max_share": "largest share of the choices that one expert takes; an even router has 1/E",
        "max_share_low": "lower bound of its interval over documents",
        "max_share_high": "upper bound",
        "max_share_limit": "share above which the layer is called collapsed",
        "max_vio": "MaxVio: E times the largest share, minus 1",
        "noise_floor": "the MaxVio that an even router would show with as many decisions",
        "cv": "coefficient of variation of the shares",
        "gini": "Gini coefficient of the shares",
        "effective_experts": "exp of the entropy of the shares",
        "effective_experts_high": "upper bound of its interval",
        "effective_experts_limit": "number below which the layer is called collapsed",
        "dead_experts": "experts that no token chose",
        "dead_share_high": "upper bound (95 %) of the true share of an expert that no token chose",
        "commitment_nats": "mean KL of the probabilities from an even router's; NaN without probabilities",
        "drift_nats": "the part that is the same for every token",
        "information_nats": "the part that depends on the token",
        "information_bits": "I(expert; label), bits; labels weigh alike",
        "null_mean_bits": "what chance gives",
        "null_high_bits": "upper bound of the band that holds it",
        "excess_bits": "information minus what chance gives",
        "excess_low_bits": "lower bound of its interval over documents",
        "excess_high_bits": "upper bound",
        "p_value": "of no dependence on the label, documents permuted",
        "q_value": "the same, Benjamini-Hochberg over layers",
        "token_explained_bits": "the part of the excess that the identity of the tokens explains",
        "beyond_token_bits": "I(expert; label | token) minus its chance level, among tokens of every label",
        "beyond_token_p": "its p-value",
        "beyond_token_q": "the same, Benjamini-Hochberg over layers",
        "shared_token_share": "share of the sampled tokens that beyond_token_bits is about",
        "shadow_bits": "mean excess of routers that were never trained, on the same hidden states",
        "shadow_high_bits": "largest excess of them",
        "beyond_shadow_bits": "excess minus the mean excess of the untrained routers",
        "beyond_shadow_low_bits": "lower bound of what the router knows beyond one more untrained router",
        "beyond_shadow_p": "p-value of no more information than one more untrained router would have",
        "beyond_shadow_q": "the same, Benjamini-Hochberg over layers",
        "split_half": "correlation of the lifts between two halves of the documents, Spearman-Brown corrected",
        "document_bits": "I(expert; document) beyond chance: do choices differ between documents at all?",
        "document_p": "its p-value: halves of documents paired at random",
        "position_bits": "I(expert; position) beyond chance, within documents",
        "position_p": "its p-value: signs of documents drawn",
        "type_bits": "I(expert; type of token) beyond chance, within documents",
        "type_p": "its p-value: signs of documents drawn",
        "documents": "documents (or windows, where the record has no documents) with a routed token",
        "documents_needed": "about how many documents would settle the state; NaN where it is settled",
        "state": "one of STATES",
        "sentence": "the verdict in a sentence, with its numbers",
    },
    "experts": {
        "path": "module path",
        "layer": "number of the layer",
        "phase": "prompt, generation or empty",
        "expert": "number of the expert",
        "share": "its share of the choices",
        "share_low": "lower bound over documents",
        "share_high": "upper bound",
        "first_share": "its share of the first choices; NaN where the order is unknown",
        "probability": "its mean probability; NaN without probabilities",
        "is_dead": "whether no token chose it",
        "removable": "whether its share is so small, at its upper bound, that removing it moves few tokens",
    },
    "lifts": {
        "path": "module path",
        "layer": "number of the layer",
        "phase": "prompt, generation or empty",
        "expert": "number of the expert",
        "label": "the label",
        "share": "the expert's share among the choices for texts of the label",
        "lift": "that share over the mean of the labels' shares",
        "lift_low": "lower bound over documents",
        "lift_high": "upper bound",
        "p_value": "of no preference, documents permuted",
        "q_value": "Benjamini-Hochberg over layers, experts and labels",
        "token_lift": "the lift that the identity of the tokens predicts",
        "shadow_lift": "the most extreme lift of the same size of expert among untrained routers",
        "placebo_lift": "the lift with the documents' labels shuffled once",
    },
    "pairs": {
        "path": "module path",
        "layer": "number of the layer",
        "phase": "prompt, generation or empty",
        "expert": "one expert",
        "other": "the other",
        "together": "tokens that chose both",
        "expected": "the number that their loads alone would give",
        "ratio": "together over expected",
        "p_value": "of no co-activation beyond the loads; documents as units",
        "q_value": "Benjamini-Hochberg over all pairs of all layers",
    },
    "tokens": {
        "path": "module path",
        "layer": "number of the layer",
        "phase": "prompt, generation or empty",
        "expert": "number of the expert",
        "token": "token id",
        "piece": "its text; empty if unknown",
        "count": "how often it chose the expert, in the sample",
        "share": "the share of its occurrences that chose the expert",
        "lift": "that share over the expert's share of all tokens",
    },
    "types": {
        "path": "module path",
        "layer": "number of the layer",
        "phase": "prompt, generation or empty",
        "expert": "number of the expert",
        "type": "type of token: word, number, punctuation, space, ...",
        "share": "the expert's share among the choices of such tokens",
        "lift": "over its share of all",
    },
    "positions": {
        "path": "module path",
        "layer": "number of the layer",
        "phase": "prompt, generation or empty",
        "position": "first position of a bin within the document",
        "expert": "number of the expert",
        "share": "the expert's share at these positions",
    },
    "agreement": {
        "path": "module path; only with two records",
        "layer": "number of the layer",
        "phase": "prompt, generation or empty",
        "same_first": "share of tokens whose first choice is the same",
        "overlap": "mean share of the k choices in common",
        "rank_overlap": "mean over depths 1..k of the share of first choices in common; NaN where the order is unknown",
        "kappa": "agreement beyond what the loads alone give",
        "kappa_low": "lower bound over documents",
        "kappa_high": "upper bound",
        "tokens": "tokens compared",
        "divergence_bits": "Jensen-Shannon divergence of the loads",
        "divergence_low": "lower bound over documents",
        "divergence_high": "upper bound",
        "null_bits": "the divergence that two halves of one record show",
        "p_value": "of loads that differ by no more than the two records' documents swapped at random",
        "q_value": "Benjamini-Hochberg over layers",
        "moved_expert": "the expert whose share moved most",
        "moved_share": "by how much",
    },
    "moves": {
        "path": "module path; only with two records",
        "layer": "number of the layer",
        "phase": "prompt, generation or empty",
        "expert": "number of the expert",
        "share": "its share of the choices in the first record",
        "other_share": "in the second",
        "moved": "second minus first",
        "moved_low": "lower bound over documents",
        "moved_high": "upper bound",
        "q_value": "of no move; Benjamini-Hochberg over layers and experts",
    },
    "flips": {
        "path": "module path; only with two records that have margins",
        "layer": "number of the layer",
        "phase": "prompt, generation or empty",
        "margin": "upper bound of a bin of the margin in the first record, logits",
        "tokens": "tokens in the bin",
        "flipped": "share of them whose choices differ",
    },
}
"""Table -> column -> meaning. A table that a record cannot fill is absent, and `Judgement.unsaid` has the reason."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one layer."""

    path: str
    layer: int
    phase: str
    state: str
    sentence: str


@dataclass(frozen=True, eq=False)
class Judgement:
    """Everything that is said of one record, or of two compared."""

    source: str
    against: str
    """The other record's source; empty without one."""
    headline: str
    """The verdict on the whole, in one sentence or two."""
    verdicts: tuple[Verdict, ...]
    tables: Mapping[str, pd.DataFrame]
    unsaid: tuple[Note, ...]
    """A sentence for each thing that could not be said, with the reason and what would settle it."""
    notes: tuple[Note, ...] = ()
    """What the reader of the record found."""
    facts: Mapping[str, int | float | str] = field(default_factory=dict)
    """num_tokens, num_documents, num_labels, confidence, permutations, seed, ..."""
