"""verdict.json: the verdicts of a Judgement for programs, and which of them make a check fail.

    {
      "version": 1,
      "source": "...",  "against": "",              what was read
      "headline": "...",                            the verdict on the whole
      "states": {"collapsed": 1, ...},              number of layers in each state, all states listed
      "layers": [{"path", "layer", "phase", "state", "sentence", and every number of table `layers`}, ...],
      "unsaid": [{"kind", "text"}, ...],            what could not be said, and why
      "notes": [{"kind", "text"}, ...],             what the reader of the record found
      "facts": {"num_tokens": ..., ...}
    }

A number that does not exist is null.
"""

import math
from collections.abc import Iterable
from typing import Any

from speciate.analysis.routing.judgement import STATES, Judgement, Verdict

VERSION = 1


def verdict_dict(judgement: Judgement) -> dict[str, Any]:
    """Return what verdict.json holds."""
    counts = dict.fromkeys(STATES, 0)
    for verdict in judgement.verdicts:
        counts[verdict.state] += 1
    return {
        "version": VERSION,
        "source": judgement.source,
        "against": judgement.against,
        "headline": judgement.headline,
        "states": counts,
        "layers": [
            {str(name): _plain(value) for name, value in row.items()}
            for row in judgement.tables["layers"].to_dict("records")
        ],
        "unsaid": [{"kind": note.kind, "text": note.text} for note in judgement.unsaid],
        "notes": [{"kind": note.kind, "text": note.text} for note in judgement.notes],
        "facts": {name: _plain(value) for name, value in judgement.facts.items()},
    }


def failing(judgement: Judgement, states: Iterable[str]) -> list[Verdict]:
    """Return the verdicts that are in one of the states.

    Raises:
        ValueError: there is no such state; names those that there are.
    """
    asked = set(states)
    unknown = sorted(asked - set(STATES))
    if unknown:
        raise ValueError(f"there is no state {', '.join(unknown)}; the states are {', '.join(STATES)}")
    return [verdict for verdict in judgement.verdicts if verdict.state in asked]


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
