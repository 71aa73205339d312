"""What a selector chooses among: experts, running or skipping a block, ranges of keys, masking or keeping a token."""

from collections.abc import Iterable

EXPERTS, DEPTH, KEYS, MASKS = "experts", "depth", "keys", "masks"
KINDS = {
    EXPERTS: "a router chooses experts for each token",
    DEPTH: "a Mixture-of-Depths lets tokens skip the block",
    KEYS: "an indexer of sparse attention chooses the keys that each token attends to",
    MASKS: "an estimator of importance chooses the tokens that are masked",
}
"""Kind of a selector -> what it does."""
SLOT_WORDS = {
    EXPERTS: ("expert", "experts"),
    DEPTH: ("choice", "choices"),
    KEYS: ("range of keys", "ranges of keys"),
    MASKS: ("choice", "choices"),
}
"""Kind of a selector -> what one of its slots is called, and several."""


def kind_of(path: str, num_slots: int) -> str:
    """Return the kind of a selector, from the module of a run in which it stands; any other is a router of experts."""
    if path == "parts.importance" and num_slots == 2:
        return MASKS
    if ".depth." in f"{path}." and num_slots == 2:
        return DEPTH
    return KEYS if path.endswith("mixer.selector") else EXPERTS


def slot_names(kind: str, count: int) -> tuple[str, ...]:
    """Return what the slots of a selector are called."""
    if kind == DEPTH:
        return ("skip", "run")
    if kind == MASKS:
        return ("keep", "mask")
    if kind == KEYS:
        ranges = [f"{2**power} to {2 ** (power + 1) - 1} back" for power in range(1, count - 2)]
        return ("first token", "itself", "1 back", *ranges)[:count]
    return tuple(f"expert {slot}" for slot in range(count))


def slot_words(selectors: Iterable[tuple[str, int]]) -> tuple[str, str]:
    """Return what a slot of these selectors, each a path and a number of slots, is called, and several of them.

    Selectors of different kinds have only the word `slot` in common.
    """
    words = {SLOT_WORDS[kind_of(path, num_slots)] for path, num_slots in selectors}
    return words.pop() if len(words) == 1 else ("slot", "slots")
