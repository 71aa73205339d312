"""Test that every arm of the studies that two cores run has a model and an optimizer whose patterns match it."""

import pathlib

import pytest

from speciate.config.study import read_study
from speciate.training.build_model import build_model

ROOT = pathlib.Path(__file__).parents[2]
ELSEWHERE = {
    *("attention_slimpajama", "moe_emergence", "gsa_slimpajama", "atat_openwebtext", "moe_arch", "moe_arch_tenth"),
}
"""Studies whose models are too large to be built here."""
STUDIES = [
    ROOT / "config.yaml",
    *(
        file
        for file in sorted((ROOT / "studies").glob("*.yaml"))
        if file.stem not in ELSEWHERE and not file.stem.startswith("diffusion_")
    ),
]
VOCABULARY = 300


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_arm_can_begin(file: pathlib.Path) -> None:
    """A pattern of `lr_scales` that matches nothing, such as that of a router that does not learn, is an error."""
    study = read_study(file)
    for ablation in study.ablations:
        run = study.run(ablation, study.seeds[0])
        model = build_model(run, VOCABULARY)
        assert sum(parameter.numel() for parameter in model.parameters()) > 1000
        optimizer = run.optimizer.component().build(run.optimizer, model)
        assert optimizer.param_groups, ablation
