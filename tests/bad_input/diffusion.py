"""Define impossible masked diffusion: schedules, importances, stages and oracles that contradict themselves."""

from typing import Any

from tests.bad_input.case import Case
from tests.bad_input.studies import study

AT = "ablations.dense.objective"
LEARNED = {"kind": "learned"}
TEACHER = "base.start"


def diffusion(wrong: str, says: str, *change: tuple[str, Any], causal: bool = False, **options: Any) -> Case:
    """Make a case of masked diffusion with these options."""
    objective = ("base.objective", {"kind": "masked_diffusion", **options})
    return study(wrong, f"study.yaml: {says}", objective, ("base.model.causal", causal), *change)


CASES = [
    diffusion(
        "masked diffusion of a model that sees only what came before",
        "ablations.dense: model.causal: masked_diffusion needs a model that sees the whole block, so False here",
        causal=True,
    ),
    study(
        "next-token prediction by a model that sees the whole block",
        "study.yaml: ablations.dense: model.causal: causal needs a model that sees only what came before, so True here",
        ("base.model.causal", False),
    ),
    diffusion(
        "a schedule that does not reach 1",
        f"{AT}.noise: points: a schedule must run from (0, 0) to (1, 1), not from (N, N) to (N, N)",
        noise={"kind": "points", "points": [[0, 0], [1, 0.9]]},
    ),
    diffusion(
        "a schedule that falls",
        f"{AT}.noise: points: both numbers must rise, and they do not from (N, N) to (N, N)",
        noise={"kind": "points", "points": [[0, 0], [0.5, 0.8], [0.7, 0.6], [1, 1]]},
    ),
    study(
        "an importance of an objective that masks nothing",
        "study.yaml: ablations.dense.objective.importance: unknown key of causal; masked_diffusion has it",
        ("base.objective", {"kind": "causal", "importance": LEARNED}),
    ),
    diffusion(
        "masking by an importance that there is not",
        f"{AT}: masking: needs an importance, and importance is none",
        masking="inverse",
    ),
    diffusion(
        "stages out of order",
        f"{AT}: borders: must rise strictly within (0, 1), and are [0.7, 0.3]",
        importance=LEARNED,
        curriculum="default",
        borders=[0.7, 0.3],
    ),
    diffusion(
        "stages without a curriculum",
        f"{AT}: borders: need a curriculum, and curriculum is none",
        importance=LEARNED,
        borders=[0.3, 0.7],
    ),
    diffusion(
        "an importance as published that the original does not have",
        f"{AT}: mode: the original has no importance random",
        importance="random",
        mode="as_published",
    ),
    diffusion(
        "an odd number of evaluation masks",
        f"{AT}.eval_draws: input should be a multiple of 2, not 7",
        eval_draws=7,
    ),
    diffusion(
        "an oracle that has nobody to ask",
        "ablations.dense: objective.importance: an oracle needs a causal model; set "
        "start: {kind: oracle_model, origin: {kind: run, ablation: NAME}}",
        importance="oracle",
    ),
    diffusion(
        "an oracle that asks an ablation that there is not",
        "ablations.dense.start.origin.ablation: no ablation is called gpt",
        (TEACHER, {"kind": "oracle_model", "origin": {"kind": "run", "ablation": "gpt"}}),
        importance="oracle",
    ),
    diffusion(
        "an oracle that asks a model that sees the whole block",
        "ablations.auxiliary.start.origin.ablation: auxiliary cannot start from mdlm: "
        "an oracle must be a causal model, and model.causal is False there",
        (
            "ablations",
            {
                "mdlm": {"about": "uniform masks"},
                "auxiliary": {
                    "about": "x",
                    "change": {
                        "objective": {"importance": "oracle"},
                        "start": {"kind": "oracle_model", "origin": {"kind": "run", "ablation": "mdlm"}},
                    },
                },
            },
        ),
        ("analysis.reference", "mdlm"),
        ("analysis.controls", []),
        ("hypotheses", {}),
    ),
    study(
        "an oracle model of a run without an oracle",
        "study.yaml: ablations.dense: start: oracle_model is only for a run with objective.importance: oracle",
        (TEACHER, {"kind": "oracle_model", "origin": {"kind": "run", "ablation": "auxiliary"}}),
    ),
]
