"""How a selector inside masked diffusion chooses at each noise level: its load, and what its choice tells of the level.

    level_information    I(slot; level), every level with the same weight: H(mean over l of f_l) - mean over l of H(f_l)
    ..._masked, _visible the same within the tokens that are masked, and within those that are not
    mask_information     I(slot; masked | level): the mean over levels of the information at each of them
    slots_lost_to_noise  effective slots, 2^H(f_l), at the lowest level minus those at the highest

f_l holds the slots' shares of the choices at level l, H is in bits. A router sees whether a token is masked, and at
higher levels more of them are, so the first information is above 0 even where the router knows nothing more of the
level. The second and the third are what it knows beyond that. All blocks are seen at all levels, with nested masks, so
the levels differ in nothing else.

L levels, M = 2 (visible, masked), S slots, N decisions.
"""

import numpy as np
import torch
from scipy.special import entr

from speciate.data.blocks import BlockSet
from speciate.model.token_batch import in_domains
from speciate.model.transformer import Transformer
from speciate.selection.metrics import collect_metrics, record_metric
from speciate.selection.selection import Selector, record_selections, selectors
from speciate.selection.tally import Array
from speciate.training.objective_base import Objective
from speciate.training.probe import batches

LAYERS = "blocks."
"""Paths of the selectors that are looked at: an importance decides what is masked, so its choices follow the level."""


@torch.no_grad()
def level_metrics(model: Transformer, objective: Objective, blocks: BlockSet) -> list[list[object]]:
    """Return [path, name, at, value] for every layer's selector; empty where nothing is masked.

    Args:
        model: in evaluation mode.
        objective: says at which levels its model can be seen.
        blocks: the probe set.
    """
    layers = {path: module for path, module in selectors(model).items() if path.startswith(LAYERS)}
    if not layers or not objective.noise_levels:
        return []
    counts = count_choices(model, objective, blocks)
    with collect_metrics(model) as collector:
        for path, count_LMS in counts.items():
            record_levels(layers[path], objective.noise_levels, count_LMS)
    return collector.rows()


def count_choices(model: Transformer, objective: Objective, blocks: BlockSet) -> dict[str, Array]:
    """Return each layer's choices by level, whether the token is masked, and slot: (L, M, S) by path."""
    device = next(model.parameters()).device
    arrays = (blocks.tokens, blocks.document, blocks.domain)
    token_BT, document_BT, domain_B = (torch.from_numpy(array).long().to(device) for array in arrays)
    counts: dict[str, Array] = {}
    for index, level in enumerate(objective.noise_levels):
        for start, batch_BT in batches(token_BT):
            rows = slice(start, start + len(batch_BT))
            with record_selections(model) as record, in_domains(domain_B[rows]):
                masked_BT, maskable_BT = objective.run_at_level(model, batch_BT, document_BT[rows], level)
            for path, selection in record.items():
                if not path.startswith(LAYERS):
                    continue
                chosen_NS = selection.chosen_NS.double()
                shape = (len(objective.noise_levels), 2, chosen_NS.shape[1])
                count_LMS = counts.setdefault(path, np.zeros(shape))
                masked_N, maskable_N = (part_BT.flatten()[selection.token_N] for part_BT in (masked_BT, maskable_BT))
                for is_masked in (False, True):
                    of_kind_N = maskable_N & (masked_N == is_masked)
                    count_LMS[index, int(is_masked)] += chosen_NS[of_kind_N].sum(0).cpu().numpy()
    return counts


def record_levels(selector: Selector, levels: tuple[float, ...], count_LMS: Array) -> None:
    """Record the informations and the load of one selector, from its choices by level and mask."""
    count_LS = count_LMS.sum(axis=1)
    record_metric(selector, "level_information", information(count_LS))
    record_metric(selector, "level_information_masked", information(count_LMS[:, 1]))
    record_metric(selector, "level_information_visible", information(count_LMS[:, 0]))
    at_level_L = [
        information(count_MS, count_MS.sum(axis=1) / count_MS.sum()) for count_MS in count_LMS if count_MS.sum()
    ]
    record_metric(selector, "mask_information", torch.tensor(at_level_L, dtype=torch.float64))
    slots_by_level: list[float] = []
    for level, count_S in zip(levels, count_LS, strict=True):
        if count_S.sum():
            share_S = count_S / count_S.sum()
            slots_by_level.append(float(2 ** entropy_bits(share_S)))
            record_metric(selector, "level_max_share", float(share_S.max()), at=level)
            record_metric(selector, "level_effective_slots", slots_by_level[-1], at=level)
    if slots_by_level:
        record_metric(selector, "slots_lost_to_noise", slots_by_level[0] - slots_by_level[-1])


def information(count_GS: Array, weight_G: Array | None = None) -> float:
    """Return I(slot; group) in bits, groups weighted by `weight_G` or alike; a group without a choice has no weight."""
    total_G = count_GS.sum(axis=1)
    chosen_G = total_G > 0
    if not chosen_G.any():
        return float("nan")
    weight_G = chosen_G.astype(np.float64) if weight_G is None else weight_G
    weight_G = weight_G[chosen_G] / weight_G[chosen_G].sum()
    share_GS = count_GS[chosen_G] / total_G[chosen_G, None]
    bits = float(entropy_bits(weight_G @ share_GS) - weight_G @ entropy_bits(share_GS))
    return max(bits, 0.0)


def entropy_bits(share: Array) -> Array:
    """Return the entropy of shares, whose last axis is the slot, in bits."""
    result: Array = entr(share).sum(axis=-1) / np.log(2)
    return result
