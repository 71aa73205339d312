"""Compute every number of the table by hand for moe_arch's "5 B" configuration, as released and repaired."""

import csv
import pathlib
from typing import Any

import pytest

from speciate.cli import execute
from speciate.config.study import read_study
from speciate.tools.size import format_number, printed_unit

STUDY = pathlib.Path(__file__).parents[2] / "studies" / "moe_arch.yaml"
D, V, T = 2048, 50_000, 2048
ATTENTION = D * (D + 2 * 512) + D * D  # 16 query heads and 4 key and value heads of 128; the output
DENSE = 3 * D * 5632
EXPERTS, EXPERT = 16, 3 * D * 2816
ROUTER = D * 128 + 128 * EXPERTS
INNER, STATE, RANK, TAPS = 4096, 16, 128, 4
# convolution and its bias, the projection to steps and states, the steps' own, A, D
SPACE = INNER * TAPS + INNER + INNER * (RANK + 2 * STATE) + RANK * INNER + INNER + INNER * STATE + INNER
SPACE_MATRICES = INNER * TAPS + INNER * (RANK + 2 * STATE) + RANK * INNER
PROJECTIONS = 3 * D * INNER  # in, gate, out
MAMBA = PROJECTIONS + SPACE
SKIP = D + D * 128 + 128 + 1  # scores; the predictor, its last bias
# 25 layers of attention, 4 of Mamba, 3 of Routing Mamba; 16 mixtures of experts, 16 dense layers
PARAMETERS = {
    "published": {
        "token embedding": V * D,
        "norm": 65 * D,
        "parts": 3 * V * D,
        "mixer attention": 25 * ATTENTION,
        "mixer mamba": 4 * MAMBA,
        "mixer rom": 3 * (16 * MAMBA + ROUTER),
        "ffn dense": 16 * DENSE,
        "ffn moe": 16 * (EXPERTS * EXPERT + ROUTER),
        "depth mod_published": 32 * SKIP,
    },
    "repaired": {
        "token embedding": V * D,
        "norm": 65 * D,
        "parts": 3 * (ATTENTION + DENSE + 3 * D),
        "mixer attention": 25 * ATTENTION,
        "mixer mamba": 4 * MAMBA,
        "mixer rom": 3 * (16 * PROJECTIONS + SPACE + ROUTER),
        "ffn dense": 16 * DENSE,
        "ffn moe": 16 * (EXPERTS * EXPERT + ROUTER),
        "depth mod": 32 * SKIP,
    },
}
ACTIVE = {
    "published": {
        "norm": (33 + 0.75 * 32) * D,
        "mixer rom": 3 * (16 * MAMBA + ROUTER),  # every expert runs on every token
        "ffn dense": 0.75 * 16 * DENSE,
        "ffn moe": 0.75 * 16 * (2 * EXPERT + ROUTER),
    },
    "repaired": {
        "norm": (1 + 0.75 * 64) * D,
        "mixer attention": 0.75 * 25 * ATTENTION,
        "mixer mamba": 0.75 * 4 * MAMBA,
        "mixer rom": 0.75 * 3 * (2 * PROJECTIONS + SPACE + ROUTER),
        "ffn dense": 0.75 * 16 * DENSE,
        "ffn moe": 0.75 * 16 * (2 * EXPERT + ROUTER),
    },
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], float]:
    """Return (arm, quantity, about) -> value, as the tool writes them."""
    output = tmp_path_factory.mktemp("size") / "size.csv"
    options = {"study": STUDY, "vocabulary": V, "device": "H100", "mfu": 0.4, "output": output}
    execute(["size", *(part for name, value in options.items() for part in (f"--{name}", str(value)))])
    with output.open() as file:
        return {(row["ablation"], row["quantity"], row["about"]): float(row["value"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize("arm", PARAMETERS)
def test_parameters(rows: dict[tuple[str, str, str], float], arm: str) -> None:
    found = {about: value for (name, quantity, about), value in rows.items() if (name, quantity) == (arm, "parameters")}
    total = sum(PARAMETERS[arm].values())
    assert found == {**PARAMETERS[arm], "all": total}
    # not 5 billion
    assert round(total / 1e9, 2) == {"published": 7.04, "repaired": 6.81}[arm]


@pytest.mark.parametrize("arm", PARAMETERS)
def test_active_parameters(rows: dict[tuple[str, str, str], float], arm: str) -> None:
    found = {about: value for (name, quantity, about), value in rows.items() if (name, quantity) == (arm, "active")}
    active = {**PARAMETERS[arm], **ACTIVE[arm]}
    assert found == pytest.approx({**active, "all": sum(active.values())}, rel=1e-12)
    assert round(sum(active.values()) / 1e9, 2) == {"published": 2.89, "repaired": 1.47}[arm]


def forward(arm: str) -> float:
    """Count a token's forward FLOPs: two for each matrix element that it meets, plus the mixers' other work."""
    scores, states = 4 * T * D, 4 * INNER * STATE
    skip, moe, head = SKIP - 1, 2 * EXPERT + ROUTER, 2 * V * D * (T - 1) / T
    mamba = PROJECTIONS + SPACE_MATRICES
    if arm == "published":
        matrices = 25 * ATTENTION + (4 + 3 * 16) * mamba + 3 * ROUTER + 0.75 * 16 * (DENSE + moe) + 32 * skip
        heads = sum(2 * V * D * (T - 1 - ahead) / T for ahead in (1, 2, 3))
        return 2 * matrices + 25 * scores + (4 + 3 * 16) * states + head + heads
    rom = 2 * PROJECTIONS + SPACE_MATRICES + ROUTER
    matrices = 0.75 * (25 * ATTENTION + 4 * mamba + 3 * rom + 16 * (DENSE + moe)) + 32 * skip + 3 * (ATTENTION + DENSE)
    heads = sum(2 * V * D * (T - 1 - ahead) / T + scores for ahead in (1, 2, 3))
    # 1536 of 2048 tokens run, and they see only each other
    beside = 0.75 * (25 * 0.75 * scores + (4 + 3) * states)
    return 2 * matrices + beside + head + heads


@pytest.mark.parametrize("arm", PARAMETERS)
def test_operations_and_time(rows: dict[tuple[str, str, str], float], arm: str) -> None:
    token = 3 * forward(arm)
    assert rows[arm, "operations", "a token, forward and backward"] == pytest.approx(token / 1e9, rel=1e-9)
    tokens = 95_368 * 512 * T
    assert rows[arm, "tokens", "the run"] == pytest.approx(tokens / 1e9) == pytest.approx(100, rel=1e-4)
    speed = 0.4 * 989e12 / token
    assert rows[arm, "speed", "H100, bfloat16, MFU 0.4"] == pytest.approx(speed, rel=1e-9)
    hours = rows[arm, "time", "H100, bfloat16, MFU 0.4"]
    assert hours == pytest.approx(tokens / speed / 3600, rel=1e-9)
    assert round(hours) == {"published": 1307, "repaired": 810}[arm]


@pytest.mark.parametrize("arm", PARAMETERS)
def test_memory(rows: dict[tuple[str, str, str], float], arm: str) -> None:
    parts, total = PARAMETERS[arm], sum(PARAMETERS[arm].values())
    assert rows[arm, "memory", "weights"] == rows[arm, "memory", "gradients"] == pytest.approx(4 * total / 1e9)
    # AdamW keeps two numbers for each element of the embedding, norms and vectors; Muon keeps one for each of a matrix
    if arm == "published":
        vectors = (4 + 3 * 16) * (SPACE - SPACE_MATRICES + INNER * TAPS)
        adamw = 4 * V * D + parts["norm"] + vectors + 16 * EXPERTS * EXPERT + 32
    else:
        vectors = 7 * (SPACE - SPACE_MATRICES + INNER * TAPS)
        lines = 32 * (D + 128 + 1)  # a tensor with a side of one does not count as a matrix
        adamw = V * D + parts["norm"] + 9 * D + vectors + (16 + 3) * ROUTER + 32 * D * 128 + lines
    assert rows[arm, "memory", "optimizer state"] == pytest.approx(4 * (total + adamw) / 1e9, rel=1e-9)
    # with recomputation, 8 blocks of 2048 tokens keep each layer's input, and everything of one layer
    assert 1 < rows[arm, "memory", "activations"] < 20
    parts_of = ("weights", "gradients", "optimizer state", "activations")
    assert rows[arm, "memory", "a device"] == pytest.approx(sum(rows[arm, "memory", part] for part in parts_of))


def test_the_arms_stand_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    execute(["size", "--study", str(STUDY), "--vocabulary", str(V), "--ablation", "published"])
    printed = capsys.readouterr().out
    assert "published" in printed and "repaired" not in printed
    assert "7,043,051,552" in printed


def line(printed: str, about: str) -> list[str]:
    """Return the words of a printed row after its name."""
    (found,) = [text for text in printed.splitlines() if about in text]
    return found.partition(about)[2].split()


def test_a_small_study_is_printed_in_units_that_suit_it(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    smoke, table = STUDY.with_name("smoke.yaml"), tmp_path / "size.csv"
    options = ["--vocabulary", "512", "--ablation", "auxiliary", "--output", str(table)]
    execute(["size", "--study", str(smoke), *options])
    printed = capsys.readouterr().out
    with table.open() as file:
        rows = {(row["quantity"], row["about"]): row for row in csv.DictReader(file)}
    tokens = 1e9 * float(rows["tokens", "the run"]["value"])
    assert rows["tokens", "the run"]["unit"] == "billion"
    study = read_study(smoke)
    training = study.run("auxiliary", study.seeds[0]).training
    assert tokens == pytest.approx(training.num_steps * training.blocks_per_step * study.block_length)
    assert 1e3 < tokens < 1e6
    assert line(printed, "tokens      the run") == [format_number(tokens / 1e3), "thousand"]
    operations = 1e18 * float(rows["operations", "the run"]["value"])
    assert 1e9 < operations < 1e12
    assert line(printed, "operations  the run") == [format_number(operations / 1e9), "GFLOP"]
    assert {text.split()[-1] for text in printed.splitlines() if text.startswith("memory")} == {"MB"}
    numbers = [
        float(word.replace(",", ""))
        for text in printed.splitlines()
        for word in text.split()[-2:-1]
        if word[0].isdigit()
    ]
    assert numbers and min(numbers) > 0


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (100.0, "billion", "100 billion"),
        (1e-9 * 4096, "billion", "4.10 thousand"),
        (5e-10, "billion", "0.50 "),
        (2100.0, "EFLOP", "2.10 ZFLOP"),
        (3e-7, "EFLOP", "300 GFLOP"),
        (0.5, "device-hours", "30 device-minutes"),
        (1e-6, "device-hours", "0.0036 device-seconds"),
        (1307.0, "device-hours", "1,307 device-hours"),
        (12345.0, "tokens/s", "12,345 tokens/s"),
    ],
)
def test_units(value: float, unit: str, shown: str) -> None:
    printed, size = printed_unit(value, unit)
    assert f"{format_number(value / size)} {printed}" == shown


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ablation": "hybrid"}, "--ablation: no ablation is called hybrid; available: published, repaired"),
        ({"vocabulary": "0"}, "--vocabulary: must be at least 1, not 0"),
        ({"device": "abacus"}, "--device: no peak speed is known of 'abacus'"),
        ({"mfu": "1.5"}, "--mfu: must be above 0 and at most 1, not 1.5"),
    ],
)
def test_what_cannot_be_sized(change: dict[str, Any], says: str) -> None:
    options = {"study": str(STUDY), "vocabulary": str(V), **change}
    with pytest.raises(ValueError, match=says):
        execute(["size", *(part for name, value in options.items() for part in (f"--{name}", value))])
