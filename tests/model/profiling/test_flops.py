"""Test the FLOPs of a training step against torch's own counter, and the peak rates of devices."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from speciate.config.components import component_module, options_of
from speciate.model.depth.skipper import Predictor
from speciate.model.profiling import flops
from speciate.model.transformer import Transformer
from speciate.selection.selection import auxiliary_loss, record_selections, selectors

MOE = {"kind": "moe", "num_experts": 4, "hidden": 20, "router": "learned", "balance": "none"}
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"ffn": {"kind": "dense", "hidden": 40}},
    "untied": {"ffn": {"kind": "dense", "hidden": 40}, "tied_head": False},
    "llama": {
        "ffn": {"kind": "dense", "hidden": 40, "activation": "swiglu"},
        "mixer": {"num_kv_heads": 2},
        "position": "rotary",
        "norm": "rms",
        "biases": False,
    },
    "top1": {"ffn": {"kind": "moe", "num_experts": 4, "hidden": 20, "router": "learned", "balance": "auxiliary"}},
    "top2": {
        "ffn": {"kind": "moe", "num_experts": 4, "top_k": 2, "hidden": 20, "router": "learned", "balance": "none"}
    },
    "frozen": {"ffn": {"kind": "moe", "num_experts": 4, "hidden": 20, "router": "frozen", "balance": "none"}},
    "mod": {"depth": {"kind": "mod", "capacity": 0.5}, "ffn": {"kind": "dense", "hidden": 40}},
    "mod_random": {"depth": {"kind": "mod", "capacity": 0.25, "choice": "random"}, "ffn": MOE},
    "mod_published": {"depth": {"kind": "mod_published", "capacity": 0.75}, "ffn": MOE},
    "hash": {"ffn": {"kind": "moe", "num_experts": 4, "hidden": 20, "router": "hash", "balance": "none"}},
    "shared": {
        "ffn": {
            "kind": "moe",
            "num_experts": 4,
            "num_shared": 2,
            "hidden": 20,
            "balance": "none",
            "router": {"kind": "learned", "shape": "mlp", "hidden": 10, "noise": "learned"},
        }
    },
    "expert choice": {
        "ffn": {
            "kind": "moe",
            "num_experts": 4,
            "top_k": 2,
            "hidden": 20,
            "router": "learned",
            "balance": "none",
            "choice": {"kind": "expert", "non_causal": True, "capacity_factor": 0.5},
        }
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_a_step_has_the_products_that_torch_counts(transformer: Callable[..., Transformer], name: str) -> None:
    model = transformer(**MODELS[name])
    options = options_of("training/objective", "causal")(kind="causal")
    objective = component_module(options).Objective(options)
    token_BT = torch.randint(50, (6, 16))
    # attention as plain products: a fused kernel computes its scores twice, and the model's FLOPs count them once
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        with record_selections(model) as record:
            loss = objective(model, token_BT)
        (loss + auxiliary_loss(record) if selectors(model) else loss).backward()
    counted = counter.get_total_flops()
    # a module that reads a detached x computes no gradient of x
    detached = sum(2 * part.up.weight.numel() for part in model.modules() if isinstance(part, Predictor))
    # the balancing loss adds a dot product of two vectors per layer, and no work per token
    expected = (flops.flops_per_token(model, 16) - detached) * token_BT.numel()
    assert expected == pytest.approx(counted, rel=1e-12)


def test_of_more_experts_a_token_uses_no_more(transformer: Callable[..., Transformer]) -> None:
    def of(num_experts: int) -> float:
        ffn = {"kind": "moe", "num_experts": num_experts, "hidden": 20, "router": "hash", "balance": "none"}
        return flops.flops_per_token(transformer(ffn=ffn), 16)

    assert of(16) == of(2)


def test_the_peak_is_the_tables_or_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.delenv(flops.VARIABLE, raising=False)
    assert flops.peak_flops(cpu, "float32") is None
    for name, expected in (
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("Unheard of", None),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert flops.peak_flops(gpu, "bfloat16") == expected
    monkeypatch.setenv(flops.VARIABLE, "2e12")
    assert flops.peak_flops(cpu, "float32") == 2e12
    for wrong in ("fast", "-1", "inf", "nan"):
        monkeypatch.setenv(flops.VARIABLE, wrong)
        with pytest.raises(ValueError, match=r"SPECIATE_PEAK_FLOPS: .* is neither a positive number of FLOP/s"):
            flops.peak_flops(cpu, "float32")
    monkeypatch.setenv(flops.VARIABLE, "measure")
    monkeypatch.setattr(flops, "measure_peak_flops", lambda device, precision: 3e12)
    assert flops.peak_flops(cpu, "float32") == 3e12


def test_a_measured_peak_is_a_rate() -> None:
    assert 1e8 < flops.measure_peak_flops(torch.device("cpu"), "float32", size=128, rounds=2) < 1e14
