"""Test that the language model within a multimodal one is recorded from texts as it is alone.

The parts for images and sounds are built without weights: if a text reached them, its run would fail.
"""

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from tests.recording.families import BLOCK_LENGTH, TEXTS, Decisions, LetterTokenizer, recorded
from tests.recording.tiny import MODELS, tiny_config, tiny_model

from speciate.recording.record_model import record_model

WHOLE = {
    "aria": "AriaForConditionalGeneration",
    "deepseek_ocr2": "DeepseekOcr2ForConditionalGeneration",
    "ernie4_5_vl_moe": "Ernie4_5_VLMoeForConditionalGeneration",
    "gemma4": "Gemma4ForConditionalGeneration",
    "glm4v_moe": "Glm4vMoeForConditionalGeneration",
    "glm5_next": "Glm5NextForConditionalGeneration",
    "llama4": "Llama4ForConditionalGeneration",
    "minimax_m3_vl": "MiniMaxM3SparseForConditionalGeneration",
    "mistral_large4": "MistralLarge4ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "qwen4_exp": "Qwen4ExpForConditionalGeneration",
    "step3p7": "Step3p7ForConditionalGeneration",
    "unlimited_ocr": "UnlimitedOcrForConditionalGeneration",
}
"""Family -> its class with all modalities."""


def whole_model(family: str) -> Any:
    """Return a family's multimodal model around its tiny language model."""
    (file,) = (MODELS / family).glob("modeling_*.py")
    whole_class = vars(importlib.import_module(f"transformers.models.{family}.{file.stem}"))[WHOLE[family]]
    config = whole_class.config_class(text_config=tiny_config(family))
    if family == "qwen3_omni_moe":
        config.vision_start_token_id = 60  # its checkpoints bring it
    with torch.device("meta"):
        model = whole_class(config)
    alone: Any = tiny_model(family)
    language_model = model.get_decoder()
    path = next(path for path, module in model.named_modules() if module is language_model)
    model.set_submodule(path, alone if type(alone) is type(language_model) else alone.get_decoder())
    if "lm_head" in dict(model.named_children()):
        model.lm_head = torch.nn.Linear(32, 64, bias=False)
    return model.eval()


@pytest.mark.parametrize("family", WHOLE)
def test_texts_are_routed_as_by_the_language_model_alone(family: str) -> None:
    decisions, model = Decisions(), whole_model(family)
    record_model(model, LetterTokenizer(), TEXTS, block_length=BLOCK_LENGTH, batch_size=8, sinks=[decisions])
    alone = recorded(family).decisions
    assert len(decisions.shapes) == len(alone.shapes)
    for path, other in zip(decisions.shapes, alone.shapes, strict=True):
        assert path.endswith(other.removeprefix("model."))
        np.testing.assert_array_equal(decisions.all(path, "choice_NK"), alone.all(other, "choice_NK"))
