"""Planted choices: groups of documents with tastes of their own, of domains that differ in them or do not.

Shape suffixes: R draws, G groups, D domains, S slots, V tokens.
"""

from dataclasses import dataclass

import numpy as np

from speciate.analysis.draws import Integers
from speciate.selection.tally import Array

CODE, MATHS, PROSE = [75] * 110, [1378, 1264, 1183, 1168, 1140, 1033, 1026], [1721, 1710, 1515, 1213, 821, 700, 512]
"""Decisions in the groups of the default study's probe set, as it was with 7 templates and 7 articles."""


def uneven(count: int, median: int, spread: float) -> list[int]:
    """Return sizes of documents: log-normal quantiles, at least 5."""
    from scipy.special import ndtri

    quantile_G = ndtri((np.arange(count) + 0.5) / count)
    return [max(5, round(median * float(np.exp(spread * value)))) for value in quantile_G]


@dataclass(frozen=True)
class Setting:
    """What the groups of three domains are like."""

    label: str
    groups: tuple[list[int], list[int], list[int]]
    """Number of decisions of each group, by domain."""
    concentration: tuple[float, float, float] = (40.0, 40.0, 40.0)
    """How alike the tastes of a domain's groups are: a Dirichlet law with this sum; the larger, the more alike."""
    load: tuple[float, ...] = (1 / 8,) * 8
    """Shares of the slots."""

    @property
    def sizes_G(self) -> Integers:
        return np.concatenate([np.array(sizes, dtype=np.int64) for sizes in self.groups])

    @property
    def domain_G(self) -> Integers:
        return np.repeat(np.arange(3), [len(sizes) for sizes in self.groups])


def shares_by_domain(load: tuple[float, ...], effect: float) -> Array:
    """Return the domains' shares, (D, S): domain d has slot d more often by 2 `effect`, and slot d + 3 less often."""
    share_DS = np.tile(np.array(load), (3, 1))
    for domain in range(3):
        share_DS[domain, domain % len(load)] *= 1 + 2 * effect
        share_DS[domain, (domain + 3) % len(load)] *= 1 - effect
    result: Array = share_DS / share_DS.sum(axis=1, keepdims=True)
    return result


def tastes(draw: np.random.Generator, share_GS: Array, concentration_G: Array, num: int) -> Array:
    """Draw Dirichlet tastes about `share_GS`, (R, G, S)."""
    taste_RGS = draw.standard_gamma(np.maximum(share_GS * concentration_G[:, None], 1e-4), (num, *share_GS.shape))
    result: Array = taste_RGS / np.maximum(taste_RGS.sum(axis=-1, keepdims=True), 1e-300)
    return result


def choices(setting: Setting, effect: float, num: int, seed: int) -> Array:
    """Draw choices, (R, G, S)."""
    draw = np.random.default_rng(seed)
    domain_G = setting.domain_G
    share_GS = shares_by_domain(setting.load, effect)[domain_G]
    taste_RGS = tastes(draw, share_GS, np.array(setting.concentration)[domain_G], num)
    return draw.multinomial(np.broadcast_to(setting.sizes_G, taste_RGS.shape[:2]), taste_RGS).astype(np.float64)


def choices_by_token(setting: Setting, effect: float, seed: int, num_tokens: int = 24) -> Array:
    """Draw choices of a router that looks at the token, (G, V, S): domains differ in their tokens, documents too.

    `effect` is the share of decisions that go by the domain instead of the token. Tokens that some domain has fewer
    than five times are left out.
    """
    draw = np.random.default_rng(seed)
    domain_G, num_slots = setting.domain_G, len(setting.load)
    law_DV = draw.dirichlet(np.full(num_tokens, 1.0), size=3)
    law_GV = tastes(draw, law_DV[domain_G], np.full(len(domain_G), 40.0), 1)[0]
    count_GV = draw.multinomial(setting.sizes_G, law_GV)
    by_token_VS = draw.dirichlet(np.full(num_slots, 0.5), size=num_tokens)
    share_GVS = (1 - effect) * by_token_VS + effect * np.eye(num_slots)[domain_G][:, None]
    concentration_G = np.array(setting.concentration)[domain_G]
    tilt_GS = draw.gamma(concentration_G[:, None] / num_slots, size=(len(domain_G), num_slots))
    share_GVS = share_GVS * tilt_GS[:, None]
    share_GVS = share_GVS / share_GVS.sum(axis=-1, keepdims=True)
    counts_GVS = draw.multinomial(count_GV, share_GVS).astype(np.float64)
    count_DV = np.stack([count_GV[domain_G == domain].sum(axis=0) for domain in range(3)])
    return counts_GVS[:, (count_DV >= 5).all(axis=0)]
