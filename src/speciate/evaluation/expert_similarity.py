"""How alike the experts of a finished model are: by their weights, and by what they do with the same tokens.

    weights   the mean cosine of matched hidden units: each unit of one expert is matched with one of the other so that
              the sum of cosines is largest (Hungarian method); a unit is its input and its output weights
    outputs   the mean cosine of both experts' outputs for the same token, whether the router sent it there or not
    CKA       |A'B|^2 / (|A'A| |B'B|), Frobenius norms, of both outputs with each column's mean removed (Kornblith et
              al. 2019): 1 where one is a rotation of the other

Each is a mean over pairs of experts. Copies have 1 in all three, as at the start of an upcycled model.

N tokens, E experts, F hidden units of U weights, D width, P pairs.
"""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from speciate.data.blocks import BlockSet
from speciate.model.moe.experts import Experts
from speciate.model.transformer import Transformer
from speciate.selection.metrics import collect_metrics, record_metric
from speciate.training.objective_base import Objective
from speciate.training.probe import run_selectors

BLOCKS = 8
"""Probe blocks whose tokens the experts are compared on."""
MAX_EXPERTS = 8
"""Experts of a layer that are compared, at equal distances; 28 pairs at most."""


@torch.no_grad()
def similarity_metrics(model: Transformer, objective: Objective, blocks: BlockSet) -> list[list[object]]:
    """Return [path, name, at, value] of the similarities of every layer's experts; empty for a model without experts.

    Args:
        model: in evaluation mode.
        objective: decides what runs on probe blocks.
        blocks: the probe set, whose first blocks are used.
    """
    inputs: dict[Experts, Tensor] = {}

    def keep(module: Any, args: tuple[Any, ...]) -> None:
        inputs[module] = args[0]

    layers = [module for module in model.modules() if isinstance(module, Experts) and len(module.in_weight) > 1]
    handles = [module.register_forward_pre_hook(keep) for module in layers]
    device = next(model.parameters()).device
    arrays = (blocks.tokens[:BLOCKS], blocks.document[:BLOCKS], blocks.domain[:BLOCKS])
    token_BT, document_BT, domain_B = (torch.from_numpy(array).long().to(device) for array in arrays)
    try:
        if layers:
            run_selectors(model, objective, token_BT, document_BT, domain_B=domain_B)
    finally:
        for handle in handles:
            handle.remove()
    with collect_metrics(model) as collector:
        for experts, x_ND in inputs.items():
            record_similarity(experts, x_ND)
    return collector.rows()


def record_similarity(experts: Experts, x_ND: Tensor) -> None:
    """Record the similarities of one layer's experts, whose inputs are `x_ND`."""
    chosen = torch.linspace(0, len(experts.in_weight) - 1, min(MAX_EXPERTS, len(experts.in_weight))).round().long()
    y_END = torch.stack([output_of(experts, x_ND, expert) for expert in chosen.tolist()]).double()
    unit_EFU = units(experts)[chosen.to(x_ND.device)]
    first_P, second_P = torch.tensor(list(itertools.combinations(range(len(chosen)), 2)), device=x_ND.device).T
    pairs = list(zip(first_P.tolist(), second_P.tolist(), strict=True))
    cosines = [F.cosine_similarity(y_END[one], y_END[other], dim=-1).mean() for one, other in pairs]
    record_metric(experts, "expert_output_similarity", torch.stack(cosines))
    record_metric(experts, "expert_cka", torch.stack([linear_cka(y_END[one], y_END[other]) for one, other in pairs]))
    matched = [matched_cosine(unit_EFU[one], unit_EFU[other]) for one, other in pairs]
    record_metric(experts, "expert_weight_similarity", torch.tensor(matched, dtype=torch.float64))


def output_of(experts: Experts, x_ND: Tensor, expert: int) -> Tensor:
    """Return one expert's output for every token, (N, D)."""
    count_E = torch.zeros(len(experts.in_weight), dtype=torch.long, device=x_ND.device)
    count_E[expert] = len(x_ND)
    return experts.run_looped(x_ND, count_E)


def units(experts: Experts) -> Tensor:
    """Return each hidden unit's weights, of unit length, (E, F, U): those of its inputs, gate included, and outputs."""
    num_experts, hidden, width = experts.out_weight.shape
    in_EFI = experts.in_weight.detach().view(num_experts, width, -1, hidden).permute(0, 3, 1, 2).flatten(2)
    unit_EFU = torch.cat([in_EFI, experts.out_weight.detach()], dim=-1).double()
    return F.normalize(unit_EFU, dim=-1)


def matched_cosine(one_FU: Tensor, other_FU: Tensor) -> float:
    """Return the mean cosine of two experts' units, matched so that it is largest."""
    from scipy import optimize  # takes a second of CPU, which a model without experts need not pay

    cosine_FF = (one_FU @ other_FU.T).cpu().numpy()
    row_F, column_F = optimize.linear_sum_assignment(cosine_FF, maximize=True)
    return float(cosine_FF[row_F, column_F].mean())


def linear_cka(one_ND: Tensor, other_ND: Tensor) -> Tensor:
    """Return the linear CKA of two matrices over the same rows, a scalar; NaN where one of them is constant."""
    one_ND, other_ND = (matrix_ND - matrix_ND.mean(0) for matrix_ND in (one_ND, other_ND))
    shared, scale = (one_ND.T @ other_ND).square().sum(), (one_ND.T @ one_ND).norm() * (other_ND.T @ other_ND).norm()
    result: Tensor = shared / scale
    return result
