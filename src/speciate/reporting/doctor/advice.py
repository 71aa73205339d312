"""What to do next: a sentence for each thing that the Judgement asks for, the most urgent first."""

from collections.abc import Iterator

import numpy as np

from speciate.analysis.routing.judgement import Judgement
from speciate.reporting.formats import format_count, format_percent, pluralise

MOST_NAMES = 6


def advice(judgement: Judgement, *, was_knocked_out: bool) -> list[str]:
    """Return the sentences.

    Args:
        judgement: what is said of the record.
        was_knocked_out: whether experts were masked to see what the model needs.
    """
    return list(_advice(judgement, was_knocked_out))


def _advice(judgement: Judgement, was_knocked_out: bool) -> Iterator[str]:
    states: dict[str, list[str]] = {}
    for verdict in judgement.verdicts:
        states.setdefault(verdict.state, []).append(str(verdict.layer) if verdict.layer >= 0 else verdict.path)
    if "collapsed" in states:
        yield (
            f"{_layers(states['collapsed'])} collapsed. While it trains: look whether the balancing loss or bias acts"
            " at all (its weight, and whether it is computed over enough tokens), lower the router’s learning rate, and"
            " watch the largest share from the first step with speciate.watch. Collapse happens early, and more steps"
            " rarely undo it."
        )
    loads_alone = "experts" not in judgement.tables
    if not states:
        yield "Log MaxVio of each layer, for example with speciate.watch: nothing in this log measures a load."
    if "undecided" in states and loads_alone:
        yield (
            f"{_layers(states['undecided'])} undecided. Give the numbers of experts and of choices (--experts,"
            " --chosen), or log MaxVio of each layer, for example with speciate.watch."
        )
    elif "undecided" in states:
        yield f"{_layers(states['undecided'])} undecided. {_needed(judgement)}"
    if "telling" in states:
        yield (
            f"{_layers(states['telling'])} telling the labels apart, but the record cannot say whether tokens or"
            " geometry explain it. Record with the model and its texts, so that token ids and routers that never"
            " learned are there."
        )
    if "unlabelled" in states and loads_alone:
        yield "Judge the model itself, on labelled texts: a log of loads cannot tell what its experts are used for."
    elif "unlabelled" in states:
        yield "Give each text a label (--label FIELD): without labels nothing can be said of specialisation."
    if "token" in states:
        yield (
            f"{_layers(states['token'])} explained by the tokens. To see more than vocabulary, compare texts that use"
            " the same words: translations, paraphrases, or code and prose on one subject."
        )
    if "untrained" in states:
        yield (
            f"{_layers(states['untrained'])} no better than a router that never learned. What the labels share in the"
            " hidden states is there without training; do not read it as something that the router has learned."
        )
    yield from _about_experts(judgement, was_knocked_out)


def _layers(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
    kind = ("Layer " if len(names) == 1 else "Layers ") if all(name.isdigit() for name in names) else ""
    return f"{kind}{shown} {'is' if len(names) == 1 else 'are'}"


def _needed(judgement: Judgement) -> str:
    layers = judgement.tables.get("layers")
    if layers is not None and "documents_needed" in layers:
        needed = layers.loc[layers["state"] == "undecided", "documents_needed"].to_numpy(dtype=float)
        needed = needed[np.isfinite(needed)]
        if len(needed):
            count = format_count(float(needed.max()))
            return f"About {count} documents would settle it, if the effect is as large as it looks."
    return "Give more documents of each label; tokens of the same document do not help."


def _about_experts(judgement: Judgement, was_knocked_out: bool) -> Iterator[str]:
    layers, experts = judgement.tables.get("layers"), judgement.tables.get("experts")
    if layers is not None and "dead_experts" in layers and layers["dead_experts"].sum() > 0:
        dead = int(layers["dead_experts"].sum())
        rows = layers[layers["dead_experts"] > 0]
        bound = rows["dead_share_high"].max() if "dead_share_high" in rows else np.nan
        known = f" Each takes at most {format_percent(bound, 3)} of the tokens (95%)." if np.isfinite(bound) else ""
        yield (
            f"No token chose {pluralise(dead, 'expert')}.{known} Before you remove {'it' if dead == 1 else 'them'},"
            " give texts of every kind that the model must serve."
        )
    if not was_knocked_out and experts is not None and "removable" in experts and bool(experts["removable"].any()):
        count = int(experts["removable"].sum())
        yield (
            f"{pluralise(count, 'expert')} {'has' if count == 1 else 'have'} so small a share that removing"
            f" {'it' if count == 1 else 'them'} would move few tokens. A share is not a need: try --knock-out first."
        )
    elif not was_knocked_out and experts is not None:
        yield "Lift says where an expert is used. Only a knock-out tells where it is needed: --knock-out, with a model."
