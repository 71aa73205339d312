"""Count by hand the parameters of the four systems' studies, and test that each study resolves as it is written."""

import csv
import pathlib

import pytest

from speciate.cli import execute
from speciate.config.study import read_study

STUDIES = pathlib.Path(__file__).parents[2] / "studies"
SYSTEMS = ("moe_emergence", "gsa_slimpajama", "atat_openwebtext", "moe_arch", "moe_arch_tenth")


def linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return inputs * outputs + bias * outputs


def of_gpt2() -> dict[str, tuple[int, int]]:
    """GPT-2 small has 124,439,808 parameters; four layers of eight copies and a router of 768 x 8 make 257 million."""
    width, layers, tokens, positions, experts, upcycled = 768, 12, 50257, 1024, 8, 4
    norms = (2 * layers + 1) * 2 * width
    attention = linear(width, 3 * width) + linear(width, width)
    dense = linear(width, 4 * width) + linear(4 * width, width)
    router = width * experts
    rest = (tokens + positions) * width + norms + layers * attention
    assert rest + layers * dense == 124_439_808

    def with_experts(chosen: int, router: int = router) -> int:
        return rest + (layers - upcycled) * dense + upcycled * (chosen * dense + router)

    return {
        "dense": (rest + layers * dense, rest + layers * dense),
        "moe_main": (with_experts(experts), with_experts(1)),
        "top2": (with_experts(experts), with_experts(2)),
        "frozen": (with_experts(experts, router=0), with_experts(1, router=0)),  # what never learns is no parameter
    }


def of_gsa() -> dict[str, tuple[int, int]]:
    """Count 896 x 14 with 8 query heads of 112, 2 key heads, and an untied head of Qwen2.5's 151,665 tokens."""
    width, layers, tokens, key_width, hidden = 896, 14, 151_665, 2 * 112, 2304
    attention = width * (width + 2 * key_width) + width * width
    block = 2 * width + 3 * width * hidden
    rest = 2 * tokens * width + width + layers * block
    gates = linear(width, key_width) + linear(width, width)
    # 4 queries of 64, one key of 64 that they share, a weight of each head, and a bias of each head's score
    indexer = width * 4 * 64 + width * 64 + width * 4 + 4
    sizes = {
        "attention": rest + layers * attention,
        "gated": rest + layers * (attention + gates),
        "sparse": rest + layers * (attention + indexer),
        "gsa": rest + layers * (attention + gates + indexer),
        "published": rest + layers * (attention + gates),  # no gradient reaches its indexer
    }
    return {arm: (size, size) for arm, size in sizes.items()}


def of_atat() -> dict[str, tuple[int, int]]:
    """Count 768 x 12 without positions, an untied head, [MASK] as the token 50,257, and the estimator of 2 x 256."""
    width, layers = 768, 12
    block = linear(width, 3 * width) + linear(width, width) + linear(width, 4 * width) + linear(4 * width, width)
    rest = layers * block + (2 * layers + 1) * 2 * width
    inner = 256
    layer = 4 * linear(inner, inner) + linear(inner, 4 * inner) + linear(4 * inner, inner) + 4 * inner
    estimator = 50_258 * inner + 2 * layer + 2 * inner + linear(inner, 1)
    mdlm = rest + 2 * 50_258 * width
    sizes = {
        "ar": rest + 2 * 50_257 * width,
        "mdlm": mdlm,
        "atat": mdlm + estimator,
        "atat_published": mdlm + estimator,
    }
    return {arm: (size, size) for arm, size in sizes.items()}


def of_tenth() -> dict[str, tuple[int, int]]:
    """Count the tenth of moe_arch: 25 layers of attention, 4 of Mamba, 3 of Routing Mamba; 16 of experts, 16 dense."""
    width, tokens, layers, experts, expert = 640, 50_257, 32, 16, 3 * 640 * 880
    attention = width * (width + 2 * 2 * 64) + width * width
    dense = 3 * width * 1760
    router = width * 128 + 128 * experts
    inner, state, rank, taps = 1280, 16, 40, 4
    space = inner * taps + inner + inner * (rank + 2 * state) + rank * inner + inner + inner * state + inner
    projections = 3 * width * inner
    skip = width + width * 128 + 128 + 1
    norms = (2 * layers + 1) * width
    rest = tokens * width + norms + 25 * attention + 4 * (projections + space) + 16 * dense + layers * skip
    of_experts = 16 * (experts * expert + router)
    published = rest + of_experts + 3 * (experts * (projections + space) + router) + 3 * tokens * width
    heads = 3 * (attention + dense + 3 * width)
    repaired = rest + of_experts + 3 * (experts * projections + space + router) + heads
    # of 4 tokens 3 run through a layer, of its experts 2; whether they do, each token's scores say
    run = 25 * attention + 4 * (projections + space) + 16 * dense + 2 * layers * width
    run += 16 * (2 * expert + router) + 3 * (2 * projections + space + router)
    active = tokens * width + width + layers * skip + heads + 0.75 * run
    # as published only the feed-forward layer is skipped, and every routed Mamba block runs on every token
    always = tokens * width + (layers + 1) * width + layers * skip + 3 * tokens * width
    always += 25 * attention + 4 * (projections + space) + 3 * (experts * (projections + space) + router)
    skipped = layers * width + 16 * dense + 16 * (2 * expert + router)
    return {"repaired": (repaired, round(active)), "published": (published, round(always + 0.75 * skipped))}


BY_HAND = {
    "moe_emergence": (50_257, of_gpt2),
    "gsa_slimpajama": (151_665, of_gsa),
    "atat_openwebtext": (50_257, of_atat),
    "moe_arch_tenth": (50_257, of_tenth),  # tests/tools/test_size.py counts moe_arch itself
}


@pytest.mark.parametrize("study", BY_HAND)
def test_parameters_are_those_counted_by_hand(study: str, tmp_path: pathlib.Path) -> None:
    vocabulary, counted = BY_HAND[study]
    expected = counted()
    arms = [part for arm in expected for part in ("--ablation", arm)]
    file, output = STUDIES / f"{study}.yaml", tmp_path / "size.csv"
    execute(["size", "--study", str(file), "--vocabulary", str(vocabulary), *arms, "--output", str(output)])
    with output.open() as lines:
        rows = {(row["ablation"], row["quantity"], row["about"]): float(row["value"]) for row in csv.DictReader(lines)}
    actual = {arm: tuple(rows[arm, quantity, "all"] for quantity in ("parameters", "active")) for arm in expected}
    assert actual == expected


@pytest.mark.parametrize("study", SYSTEMS)
def test_a_study_of_a_system_resolves_and_says_what_it_tests(study: str, capsys: pytest.CaptureFixture[str]) -> None:
    execute(["config", "--study", str(STUDIES / f"{study}.yaml")])
    assert f"studies/{study}.yaml" in capsys.readouterr().out
    found = read_study(STUDIES / f"{study}.yaml")
    assert len(found.seeds) >= 3
    assert found.hypotheses
    for hypothesis in found.hypotheses.values():
        assert len(hypothesis.statement.split()) <= 25, hypothesis.statement
    predicted = {arm for hypothesis in found.hypotheses.values() for arm in hypothesis.arms}
    unasked = set(found.ablations) - predicted - {found.analysis.reference, *found.analysis.controls}
    assert unasked <= {"shakedown"}  # a preset that only tries whether everything runs
    assert all(
        run.training.num_steps > run.training.checkpoint_every for run in found.runs() if run.ablation not in unasked
    )


def test_the_texts_of_the_large_studies_are_cut_into_shards_that_fetch_can_use() -> None:
    for study in SYSTEMS[1:]:
        (domain,) = read_study(STUDIES / f"{study}.yaml").domains.values()
        assert domain.shards >= 15
        # a source with a limit is fetched by one job
        assert all(source.sharded for source in domain.sources.values())


def test_the_presets_of_moe_emergence_differ_one_thing_at_a_time() -> None:
    study = read_study(STUDIES / "moe_emergence.yaml")
    found = {}
    for arm in ("moe_main", "main_short", "main_no_noise", "no_lb", "no_lb_noise", "no_lb_no_z", "no_lb_as_long"):
        run = study.run(arm, study.seeds[0])
        ffn = run.model.block_of(9).ffn.model_dump()
        balanced, noisy = ffn["balance"]["kind"] == "auxiliary", ffn["router"]["noise_std"] > 0
        found[arm] = (run.training.num_steps, balanced, noisy, ffn["z_weight"] > 0)
    assert found == {
        "moe_main": (10_000, True, True, True),
        "main_short": (2_000, True, True, True),
        "main_no_noise": (2_000, True, False, True),
        "no_lb": (2_000, False, False, True),
        "no_lb_noise": (2_000, False, True, True),
        "no_lb_no_z": (2_000, False, False, False),
        "no_lb_as_long": (10_000, False, False, True),
    }
