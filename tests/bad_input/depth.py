"""Define impossible Mixtures of Depths, optimizers that leave nothing to optimize, and runs that cannot be sized."""

from collections.abc import Callable

from tests.bad_input.case import Case, Place
from tests.bad_input.small import Command
from tests.bad_input.studies import study

DEPTH = "base.model.block.depth"
AT = "ablations.dense.model.block.depth"


def sizing(**given: str) -> Callable[[Place], Command]:
    """Return the command `size` for the small study."""

    def make(place: Place) -> Command:
        place.study()
        options = {"study": "study.yaml", "vocabulary": "280", "output": "size.csv", **given}
        return Command("size", tuple(part for name, value in options.items() for part in (f"--{name}", value)))

    return make


CASES = [
    study(
        "no token runs through a block",
        f"study.yaml: {AT}.capacity: input should be greater than 0, not 0.0",
        (DEPTH, {"kind": "mod", "capacity": 0.0}),
    ),
    study(
        "more tokens run through a block than there are",
        f"study.yaml: {AT}.capacity: input should be less than or equal to 1, not 1.5",
        (DEPTH, {"kind": "mod", "capacity": 1.5}),
    ),
    study(
        "a capacity that is none of a context's tokens",
        "study.yaml: ablations.dense.model: capacity: N of a context of N tokens is none of them",
        (DEPTH, {"kind": "mod_published", "capacity": 0.001}),
    ),
    study(
        "a control of the depth that its published form does not have",
        f"study.yaml: {AT}.choice: unknown key of mod_published; mod has it",
        (DEPTH, {"kind": "mod_published", "choice": "random"}),
    ),
    study(
        "a choice of tokens that there is not",
        f"study.yaml: {AT}.choice: input should be 'learned' or 'random', not 'oracle'",
        (DEPTH, {"kind": "mod", "choice": "oracle"}),
    ),
    study(
        "an optimizer for sharded weights that needs whole matrices",
        "study.yaml: ablations.dense: training.parallel: fsdp splits matrices, and muon_published needs them whole",
        ("base.optimizer", {"kind": "muon_published"}),
        ("base.training.parallel", "fsdp"),
    ),
    Case(
        "Size",
        "an arm that the study does not have",
        sizing(ablation="hybrid"),
        "--ablation: no ablation is called hybrid; available: KINDS",
    ),
    Case(
        "Size",
        "a share of the peak above all of it",
        sizing(mfu="1.5"),
        "--mfu: must be above 0 and at most 1, not 1.5",
    ),
    Case(
        "Size",
        "a device of unknown peak",
        sizing(device="abacus"),
        "--device: no peak speed is known of 'abacus'; known: KINDS",
    ),
    Case("Size", "no vocabulary", sizing(vocabulary="0"), "--vocabulary: must be at least 1, not 0"),
]
