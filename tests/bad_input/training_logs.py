"""Define what can be wrong with the training logs of other programs."""

from collections.abc import Callable

from tests.bad_input.case import Case, Place
from tests.bad_input.small import Command

GOOD = '{"step": 1, "moe_load/max_vio/max": 0.5}\n{"step": 2, "moe_load/max_vio/max": 0.6}\n'


def log(content: str | bytes, *arguments: str, name: str = "log.jsonl") -> Callable[[Place], Command]:
    """Return the command about a log with this content."""

    def make(place: Place) -> Command:
        data = content.encode() if isinstance(content, str) else content
        (place.folder / name).write_bytes(data)
        return Command("doctor", ("--logs", name, *arguments))

    return make


CASES = [
    Case(
        "Training logs",
        "there is no such file",
        lambda place: Command("doctor", ("--logs", "none.jsonl")),
        "none.jsonl: there is no such file",
    ),
    Case(
        "Training logs",
        "a log without routing metrics",
        log('{"step": 1, "loss": 2.5, "router/temperature": 1.0}\n'),
        "log.jsonl: has no routing metric that is known. It has 2 names: router/temperature, loss. Looked for KINDS",
    ),
    Case(
        "Training logs",
        "a log that is no JSON",
        log("step 1 | loss 2.5\nstep 2 | loss 2.4\n"),
        "log.jsonl: is no log: line 1 is no JSON object, and so are 2 of its lines",
    ),
    Case(
        "Training logs",
        "a last line that was cut off",
        log(GOOD + '{"step": 3, "moe_l'),
        "note: log.jsonl: its last line, 3, is cut off, and was left out.",
        status=0,
    ),
    Case(
        "Training logs",
        "a value that is not a number",
        log(GOOD + '{"step": 3, "moe_load/max_vio/max": NaN}\n'),
        "note: moe_load/max_vio/max: 1 values are not finite, and were left out; first at step 3.",
        status=0,
    ),
    Case(
        "Training logs",
        "steps that go back",
        log(GOOD + GOOD),
        "note: log.jsonl: steps go back from 2 to 1: the run was resumed, or the file holds several runs. Where a"
        " step was logged twice, the last value counts.",
        status=0,
    ),
    Case(
        "Training logs",
        "a step that is no whole number",
        log('{"step": 1.5, "moe_load/max_vio/max": 0.5}\n'),
        "log.jsonl: line 1: step: a step is a whole number, not 1.5",
    ),
    Case(
        "Training logs",
        "values that contradict each other",
        log('{"step": 1, "moe_load/max_vio/max": 0.5, "train/moe/max_vio/max": 0.9}\n'),
        "note: names contradict each other on max_vio of the max over layers (train) at 1 steps; first at step 1:"
        " moe_load/max_vio/max 0.5, train/moe/max_vio/max 0.9.",
        status=0,
    ),
    Case(
        "Training logs",
        "numbers of experts and of choices that the log excludes",
        log('{"step": 1, "moe_load/max_vio/max": 5.5}\n', "--experts", "8", "--chosen", "2"),
        "log.jsonl: holds no possible value: moe_load/max_vio/max: 5.5 at step 1 gives max_vio 5.5, and that lies"
        " between 0 and 3 with 8 experts and 2 chosen; 1 such values were left out.",
    ),
    Case(
        "Training logs",
        "more experts a token than there are",
        log(GOOD, "--experts", "8", "--chosen", "9"),
        "--chosen: a token that chooses 9 of 8 experts has no choice",
    ),
    Case(
        "Training logs",
        "a CSV without steps",
        log("time,moe_load/max_vio/max\n1,0.5\n", name="log.csv"),
        "log.csv: its first line names no column of steps; looked for: KINDS",
    ),
    Case(
        "Training logs",
        "a CSV that TensorBoard exported",
        log("Wall time,Step,Value\n1.0,1,0.5\n", name="log.csv"),
        "log.csv: a CSV from TensorBoard does not name what it holds; give the event file, or a CSV with a column for"
        " each name",
    ),
    Case(
        "Training logs",
        "a file that is no event file",
        log("step 1 | loss 2.5\n", name="events.out.tfevents.1"),
        "events.out.tfevents.1: is damaged, or no event file: the length of record 1 fails its checksum",
    ),
    Case(
        "Training logs",
        "JSON that is no log",
        log('{"model": "mine"}', name="config.json"),
        "config.json: is no log: it has neither `log_history` nor a list of objects",
    ),
    Case(
        "Training logs",
        "a folder without logs",
        lambda place: Command("doctor", ("--logs", ".")),
        ".: holds no log: no file *tfevents*, *.jsonl, *.csv or trainer_state.json",
    ),
]
