"""Time alternatives fairly on a machine that others use too: interleaved rounds, CPU seconds, medians."""

import json
import statistics
import time
from collections.abc import Callable


def medians(cases: dict[str, Callable[[], object]], rounds: int, warm_rounds: int = 1) -> dict[str, float]:
    """Return the median CPU seconds of each case over `rounds` rounds; every round runs every case once, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(warm_rounds + rounds):
        for name, case in cases.items():
            started = time.process_time()
            case()
            if round_number >= warm_rounds:
                seconds[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(title: str, seconds: dict[str, float], ours: str, bars: dict[str, float]) -> None:
    """Print one JSON line: milliseconds of each case, and ours over each peer next to its bar."""
    ratios = {peer: {"ratio": round(seconds[ours] / seconds[peer], 3), "bar": bar} for peer, bar in bars.items()}
    milliseconds = {name: round(1000 * value, 1) for name, value in seconds.items()}
    print(json.dumps({"benchmark": title, "cpu_ms": milliseconds, "ours": ours, "ours_over": ratios}), flush=True)
