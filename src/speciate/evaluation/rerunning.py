"""Let other tokens run through a block: what the interventions on a Mixture-of-Depths share.

B blocks of T tokens.
"""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from speciate.evaluation.overrides import Call
from speciate.model.depth.skipper import TokenChoice


def run_tokens(call: Call, run_BT: Tensor) -> TokenChoice:
    """Return the choice of the tokens `run_BT` (boolean); the weights of their updates stay the router's."""
    choice: TokenChoice = call.output
    tokens = call.args[1]
    run_BT = run_BT & tokens.real_BT
    chosen_NS = F.one_hot(run_BT.flatten().long(), 2).to(choice.selection.probs_NS.dtype)
    return TokenChoice(replace(choice.selection, chosen_NS=chosen_NS), run_BT, choice.gate_BT, None)
