"""The families of transformers' models whose routing is recorded, those that are refused, and why.

A family is a folder of `transformers.models`. Most share one interface and need a line here; what deviates is a file
of `recording/reader`. Importing this file does not import torch.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """What must be known of a family besides its modules."""

    scores: str = "softmax"
    """What its router makes of logits before the choice: a name of scores.FUNCTIONS."""
    biased: bool = False
    """Whether the choice adds a learned bias to each expert's score."""
    grouped: bool = False
    """Whether the choice may be limited to some groups of experts."""
    scores_setting: str = ""
    """The setting of its config that names the scores instead; empty: none."""
    remark: str = ""
    """What else a reader of its record must know; empty: nothing."""
    needs_images: str = ""
    """Which of its routers run on images alone, and are not recorded from texts; empty: none."""

    @property
    def caution(self) -> str:
        """Return what a reader of a record of this family must know, in sentences; empty: nothing."""
        causes = [
            text for text, holds in (("a learned bias", self.biased), ("groups of experts", self.grouped)) if holds
        ]
        decided = (
            f"The choice depends on {' and '.join(causes)}, too; probabilities and margins are those without, so that "
            "a margin below 0 is a choice that the scores alone would not have made."
        )
        return " ".join(filter(None, (decided if causes else "", self.remark)))


SIGMOID = Family("sigmoid")
BIASED_SIGMOID = Family("sigmoid", biased=True)
GROUPED_SIGMOID = Family("sigmoid", biased=True, grouped=True)
GROUPED_SOFTMAX = Family(grouped=True)

READ: dict[str, Family] = {
    "afmoe": BIASED_SIGMOID,
    "aria": Family(),
    "axk1": GROUPED_SIGMOID,
    "axk2": GROUPED_SIGMOID,
    "bailing_hybrid": GROUPED_SIGMOID,
    "beam": GROUPED_SIGMOID,
    "cohere2_moe": Family(scores_setting="expert_selection_fn"),
    "dbrx": Family(),
    "deepseek_ocr2": GROUPED_SOFTMAX,
    "deepseek_v2": GROUPED_SOFTMAX,
    "deepseek_v3": GROUPED_SIGMOID,
    "deepseek_v32": GROUPED_SIGMOID,
    "deepseek_v4": Family(
        biased=True,
        scores_setting="scoring_func",
        remark="Its first layers look the experts of a token id up in a table; there the scores make weights alone.",
    ),
    "diffusion_gemma": Family(),
    "dots1": GROUPED_SIGMOID,
    "dots3_note": Family("sigmoid", biased=True, grouped=True, needs_images="the routers of the vision tower"),
    "ernie4_5_moe": Family(biased=True),
    "ernie4_5_vl_moe": Family(biased=True, needs_images="the routers of image tokens"),
    "exaone_moe": GROUPED_SIGMOID,
    "flex_olmo": Family(),
    "flint": SIGMOID,
    "gemma4": Family(),
    "glm4_moe": GROUPED_SIGMOID,
    "glm4_moe_lite": GROUPED_SIGMOID,
    "glm4v_moe": GROUPED_SIGMOID,
    "glm5_next": GROUPED_SIGMOID,
    "glm_moe_dsa": GROUPED_SIGMOID,
    "gpt_oss": Family(),
    "granitemoe": Family(),
    "granitemoe_swa": Family(),
    "granitemoehybrid": Family(),
    "granitemoeshared": Family(),
    "hunyuan_v1_moe": Family(),
    "hy_v3": BIASED_SIGMOID,
    "hy_v4": GROUPED_SIGMOID,
    "inkling": Family(
        "sigmoid", biased=True, remark="Shared experts, which compete with the chosen ones for weight, are left apart."
    ),
    "inkling2": Family(biased=True, scores_setting="scoring_func"),
    "jamba": Family(),
    "jetmoe": Family(),
    "kimi_linear": GROUPED_SIGMOID,
    "kolibri1": BIASED_SIGMOID,
    "laguna": BIASED_SIGMOID,
    "lfm2_moe": BIASED_SIGMOID,
    "llama4": SIGMOID,
    "longcat_flash": Family(
        biased=True,
        remark="The last slots are the zero-computation experts, which return the token as it is.",
    ),
    "mellum": Family(),
    "mimo_v2_flash": GROUPED_SIGMOID,
    "minimax": Family(),
    "minimax_m2": BIASED_SIGMOID,
    "minimax_m3_vl": BIASED_SIGMOID,
    "mistral4": GROUPED_SOFTMAX,
    "mistral_large4": GROUPED_SOFTMAX,
    "mixtral": Family(),
    "muse_spark": BIASED_SIGMOID,
    "nemotron_h": GROUPED_SIGMOID,
    "olmoe": Family(),
    "openai_privacy_filter": Family(),
    "phimoe": Family(),
    "qwen2_moe": Family(),
    "qwen3_5_moe": Family(),
    "qwen3_moe": Family(),
    "qwen3_next": Family(),
    "qwen3_omni_moe": Family(needs_images="the routers of the talker, which reads what the thinker heard and saw"),
    "qwen3_vl_moe": Family(),
    "qwen4_exp": Family(),
    "solar_open": GROUPED_SIGMOID,
    "step3p7": BIASED_SIGMOID,
    "switch_transformers": Family(remark="A token that finds its expert full is served by none, and is not counted."),
    "unlimited_ocr": GROUPED_SOFTMAX,
    "zaya": Family(biased=True, remark="The last slot is the skipped layer: no expert serves the token there."),
}
"""Family -> how it is read."""

REFUSED: dict[str, str] = {
    "doge": "its mixture of experts takes a token's scores from other tokens, since it views (tokens, 2, keys) as "
    "(2, tokens, keys), so that no choice is the token's own",
    "nllb_moe": "its experts are called with a mask in place of an index, so that experts 0 and 1 serve every token, "
    "whatever the router chooses",
    "vitpose_backbone": "its experts are chosen by the argument dataset_index; no router learns anything",
}
"""Family with experts -> why its routing is not recorded."""


def family_of(module: object) -> str:
    """Return the folder of `transformers.models` that a module's class is defined in; else the class's package."""
    package = type(module).__module__.split(".")
    return package[2] if package[:2] == ["transformers", "models"] else package[0]


def scores_of(family: str, config: Any) -> str | None:
    """Return the name of the scores that a family's router makes of logits; None for a family that is not known."""
    known = READ.get(family)
    if known is None:
        return None
    return str(vars(config)[known.scores_setting]) if known.scores_setting else known.scores
