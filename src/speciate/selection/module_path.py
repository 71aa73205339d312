"""What the path of a module, which is its name, tells of it."""

import re


def layer_of(path: str) -> int:
    """Return the first number in a module's path; -1 where there is none, and for a part outside the blocks."""
    if path.startswith("parts."):
        return -1
    number = re.search(r"(?:^|\.)(\d+)(?:\.|$)", path)
    return int(number[1]) if number else -1
