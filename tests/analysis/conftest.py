"""Make fake runs in the files that training and evaluation write, with behaviours planted in their selectors.

Shape suffixes: P positions, R documents, S slots, V tokens, B blocks, T positions of a block.
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from speciate.analysis import tables
from speciate.config.run import canonical_json
from speciate.config.stage_specs import Arm, CompareSpec, MeasureSpec, Prediction
from speciate.stages import compare, measure

DOMAINS = ("code", "math", "prose")
ARMS = {
    "dense": "One feed-forward layer",
    "auxiliary": "Planted: balanced, and every domain has experts of its own",
    "unbalanced_fast": "Planted: one expert takes nearly all from a tenth of the training on",
    "frozen": "Planted control: tokens have experts, domains have none of their own, and nothing ever changes",
    "hash": "Planted control: each token has one expert",
}
CONTROLS = ("frozen", "hash")


@dataclasses.dataclass(frozen=True)
class Size:
    """Set how large a fake study is."""

    blocks: int = 12
    prefix: int = 6
    length: int = 64
    documents: int = 16
    vocabulary: int = 120
    slots: int = 8
    layers: int = 2
    num_steps: int = 100
    steps: tuple[int, ...] = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
    permutations: int = 199
    resamples: int = 199


def write_mixture(folder: pathlib.Path, size: Size) -> None:
    """Write the probe set: blocks alternate by domain; each block is a few whole documents, two documents per group."""
    draw = np.random.default_rng(7)
    num_blocks = size.blocks * len(DOMAINS)
    domain_B = np.arange(num_blocks) % len(DOMAINS)
    rank_V = np.arange(size.vocabulary)
    token_BT = np.zeros((num_blocks, size.length), dtype=np.uint16)
    document_BT = np.zeros((num_blocks, size.length), dtype=np.int32)
    for block, domain in enumerate(domain_B):
        # each domain has its own Zipf law over the same tokens: the order of two thirds of them is shuffled
        order_V = np.random.default_rng(domain).permutation(rank_V)
        weight_V = 1 / (1 + np.where(rank_V % 3 == 0, rank_V, order_V))
        token_BT[block] = draw.choice(size.vocabulary, size.length, p=weight_V / weight_V.sum())
        of_domain = (np.arange(size.length) * 2 // size.length + 2 * (block // len(DOMAINS))) % size.documents
        document_BT[block] = domain * size.documents + of_domain
    documents = pd.DataFrame(
        {
            "document": np.arange(len(DOMAINS) * size.documents),
            "domain": np.repeat(DOMAINS, size.documents),
            "id": [f"{domain}{number}" for domain in DOMAINS for number in range(size.documents)],
            "group": [f"group{number // 2}" for _ in DOMAINS for number in range(size.documents)],
        }
    )
    folder.mkdir(parents=True)
    (folder / "mixture.json").write_text(json.dumps({"labels": DOMAINS, "vocabulary": size.vocabulary}))
    documents.to_parquet(folder / "probe.documents.parquet", index=False)
    np.save(folder / "probe.tokens.npy", token_BT)
    np.save(folder / "probe.document.npy", document_BT)
    np.save(folder / "probe.domain.npy", domain_B.astype(np.int32))
    np.save(folder / "probe.types.npy", np.where(domain_B[:, None] == 0, token_BT % 7, 0).astype(np.uint8))


def planted_probs(
    arm: str, seed: int, layer: int, step: int, *, size: Size, token_P: np.ndarray, domain_P: np.ndarray
) -> np.ndarray:
    """Return a router's probabilities in `arm` at `step`, (P, S): softmax of token tastes and planted effects."""
    taste_VS = np.random.default_rng([seed, layer, 1]).normal(size=(size.vocabulary, size.slots))
    noise_PS = np.random.default_rng([seed, layer, 2]).normal(size=(len(token_P), size.slots))
    progress = min(step / (0.4 * size.num_steps), 1)
    logit_PS = taste_VS[token_P] + 0.5 * noise_PS
    if arm == "hash":
        logit_PS = 30.0 * np.eye(size.slots)[taste_VS.argmax(axis=1)[token_P]]
    if arm == "auxiliary":
        own_DS = np.arange(size.slots) % len(DOMAINS) == np.arange(len(DOMAINS))[:, None]
        logit_PS = logit_PS + progress * 1.5 * own_DS[domain_P]
    if arm == "unbalanced_fast" and layer == 0:
        logit_PS[:, seed] += 6 * progress
    prob_PS = np.exp(logit_PS - logit_PS.max(axis=1, keepdims=True))
    return prob_PS / prob_PS.sum(axis=1, keepdims=True)


def tally_of(prob_PS: np.ndarray, choice_PS: np.ndarray, document_P: np.ndarray, num_documents: int) -> dict:
    """Compute the fields of a Tally again, from their definitions."""
    member_RP = (np.arange(num_documents)[:, None] == document_P).astype(np.float64)
    entropy_P = -(prob_PS * np.log(np.maximum(prob_PS, 1e-300))).sum(axis=1)
    num_slots = prob_PS.shape[1]
    return {
        "decisions_G": member_RP.sum(axis=1),
        "chosen_GS": member_RP @ choice_PS,
        "probs_GS": member_RP @ prob_PS,
        "null_GS": member_RP.sum(axis=1, keepdims=True) / num_slots * np.ones(num_slots),
        "divergence_G": member_RP @ (np.log(num_slots) - entropy_P),
        "entropy_G": member_RP @ entropy_P,
    }


def write_run(folder: pathlib.Path, mixture: pathlib.Path, arm: str, seed: int, *, size: Size) -> None:
    """Write the files of one run."""
    token_P, document_P = (np.load(mixture / f"probe.{part}.npy").reshape(-1) for part in ("tokens", "document"))
    domain_P = np.repeat(np.load(mixture / "probe.domain.npy"), size.length)
    documents = pd.read_parquet(mixture / "probe.documents.parquet")
    early: dict[str, np.ndarray] = {"steps": np.array(size.steps, dtype=np.int64)}
    final: dict[str, np.ndarray] = {"positions": np.array(len(token_P))}
    seen = size.prefix * len(DOMAINS) * size.length
    for layer in range(size.layers if arm != "dense" else 0):
        path = f"blocks.{layer}.ffn.router"

        def look(step: int, stop: int, layer: int = layer) -> tuple[dict, np.ndarray]:
            prob_PS = planted_probs(arm, seed, layer, step, size=size, token_P=token_P, domain_P=domain_P)[:stop]
            choice_PS = np.eye(size.slots, dtype=np.uint8)[prob_PS.argmax(axis=1)]
            return tally_of(prob_PS, choice_PS, document_P[:stop], len(documents)), choice_PS

        checks = [look(step, seen) for step in size.steps]
        early |= {f"{path}/{name}": np.stack([check[name] for check, _ in checks]) for name in checks[0][0]}
        early[f"{path}/choice"] = np.stack([np.packbits(choice_PS, axis=1) for _, choice_PS in checks])
        fields, choice_PS = look(size.num_steps, len(token_P))
        final |= {f"{path}/{name}": value for name, value in fields.items()} | {f"{path}/choice": choice_PS}
    folder.mkdir(parents=True)
    safetensors.numpy.save_file(early, folder / "telemetry.safetensors")
    safetensors.numpy.save_file(final, folder / "probe.safetensors")
    write_losses(folder, documents, arm, seed, size=size)


def noted(arm: str, seed: int, progress: float) -> list[list[object]]:
    """Return the metrics of two modules: a recall that grows and is higher in layer 1, and a share at two bins."""
    level = {"dense": 0.9, "auxiliary": 0.5}.get(arm, 0.4) + 0.01 * seed
    rows: list[list[object]] = [
        [f"blocks.{layer}.mixer", "recall", None, level * progress + layer / 10] for layer in (0, 1)
    ]
    return [*rows, ["objective", "share", 1.0, 0.25], ["objective", "share", 2.0, 0.75]]


def write_losses(folder: pathlib.Path, documents: pd.DataFrame, arm: str, seed: int, *, size: Size) -> None:
    """Write likelihood.parquet, metrics.jsonl, run.json: near 4 nats, dense a little worse, seeds a little apart."""
    level = 4 + 0.03 * seed + {"dense": 0.06, "unbalanced_fast": 0.005, "frozen": 0.04, "hash": 0.05}.get(arm, 0)
    hardness_R = np.random.default_rng(11).normal(0, 0.2, len(documents))
    noise_R = np.random.default_rng([seed, sum(map(ord, arm))]).normal(0, 0.02, len(documents))
    tokens_R = 100 + np.arange(len(documents)) % 50
    nats_R = tokens_R * (level + hardness_R + noise_R)
    likelihood = documents.assign(nats=nats_R, tokens=tokens_R, bytes=3 * tokens_R)
    likelihood.to_parquet(folder / "likelihood.parquet", index=False)
    lines: list[dict] = []
    for step in range(1, size.num_steps + 1):
        loss = level + 4 * np.exp(-step / size.num_steps * 6)
        lines.append({"step": step, "loss": loss, "auxiliary": 0.01, "grad_norm": 1.0, "lr": 0.003})
        if step % (size.num_steps // 5) == 0:
            lines.append({"step": step, "validation": dict.fromkeys(DOMAINS, loss + 0.1)})
            lines.append({"step": step, "measured": noted(arm, seed, step / size.num_steps)})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "measured.json").write_text(json.dumps(noted(arm, seed, 1.0)))
    shown = {"what": ["tokens"], "item": [0], "position": [3], "token": [7], "x": [0.5], "y": [level], "text": ["so"]}
    pd.DataFrame(shown).to_parquet(folder / "details.parquet", index=False)
    experts = 1 if arm == "dense" else size.slots
    facts = {
        "ablation": arm,
        "seed": seed,
        "parameters_total": 1000 + 100 * experts,
        "parameters_active": 1100,
        "num_steps": size.num_steps,
        "train_tokens": size.num_steps * 2048,
        "skipped": 1,
        "spikes": [{"step": 9, "loss": 9.0, "z": 7.5}] * seed,
    }
    (folder / "run.json").write_text(json.dumps(facts))


def measure_spec(arm: str, seed: int, size: Size) -> MeasureSpec:
    return MeasureSpec(
        ablation=arm,
        seed=seed,
        num_steps=size.num_steps,
        languages=("code",),
        permutations=size.permutations,
        resamples=size.resamples,
        confidence=0.95,
        armed_after=0.1,
        draw_seed=0,
    )


def predict(name: str, statistic: str, arm: str, reference: str, *, direction: str, margin: float = 0.0) -> Prediction:
    statement = f"The {statistic} of {arm} against {reference}: {direction}, margin {margin}"
    values = (name, statement, statistic, arm, reference, direction, margin)
    keys = ("name", "statement", "statistic", "arm", "reference", "direction", "margin")
    return Prediction.model_validate(dict(zip(keys, values, strict=True)))


def compare_spec(seeds: tuple[int, ...]) -> CompareSpec:
    return CompareSpec(
        domains=DOMAINS,
        arms=tuple(Arm(name=name, about=about) for name, about in ARMS.items()),
        seeds=seeds,
        reference="auxiliary",
        controls=CONTROLS,
        confidence=0.95,
        margin=0.05,
        hypotheses=(
            predict("collapse", "max_share", "unbalanced_fast", "auxiliary", direction="greater", margin=0.1),
            predict("balance", "max_share", "unbalanced_fast", "auxiliary", direction="less", margin=0.1),
            predict("invisible", "loss", "unbalanced_fast", "auxiliary", direction="equivalent", margin=0.05),
            predict("learned", "information_bits", "auxiliary", "frozen", direction="greater"),
        ),
    )


COSTS = {"auxiliary": 0.2, "unbalanced_fast": 0.01, "frozen": 0.1, "hash": 0.1}
"""Planted cost of load-matched random choice, with an interval of plus and minus .02."""


def planted_interventions(arm: str, seed: int, size: Size, costs: dict[str, float] | None = None) -> pd.DataFrame:
    """Return the rows of one run: each domain needs its own slots, which in `auxiliary` are those it prefers."""
    kinds = [
        ("load_matched", -1),
        *((kind, e) for kind in ("masked_slot", "masked_control") for e in range(size.slots)),
    ]
    rows = []
    for layer, (kind, slot), domain in itertools.product(range(size.layers), kinds, (*DOMAINS, "all")):
        cost = (costs or COSTS)[arm]
        if slot >= 0:
            cost = 0.3 if kind == "masked_slot" and domain in DOMAINS and slot % 3 == DOMAINS.index(domain) else 0.1
        bounds = {"cost_nats": cost, "cost_low_nats": cost - 0.02, "cost_high_nats": cost + 0.02, "clean_nats": 4.0}
        named = {"selector": f"blocks.{layer}.ffn.router", "layer": layer, "intervention": kind, "slot": slot}
        rows.append({"ablation": arm, "seed": seed, **named, "domain": domain, **bounds})
    return pd.DataFrame(rows).assign(tokens=1000, documents=10, blocks=12)


def write_study(folder: pathlib.Path, size: Size, seeds: tuple[int, ...] = (0, 1)) -> None:
    """Write a whole study under `folder`: mixture, runs, measures, tables."""
    write_mixture(folder / "mixture", size)
    for arm in ARMS:
        for seed in seeds:
            run_folder = folder / "runs" / arm / f"seed{seed}"
            write_run(run_folder, folder / "mixture", arm, seed, size=size)
            output = folder / "measures" / arm / f"seed{seed}"
            output.mkdir(parents=True)
            measured = measure.measure(measure_spec(arm, seed, size), run_folder, folder / "mixture")
            for name, rows in measured.items():
                tables.write_parquet(rows, name, output / f"{name}.parquet")
            if arm != "dense":
                file = folder / "interventions" / arm / f"seed{seed}" / "interventions.parquet"
                file.parent.mkdir(parents=True)
                rows = tables.conform("interventions", planted_interventions(arm, seed, size))
                tables.write_parquet(rows, "interventions", file)
    (folder / "tables").mkdir()
    (folder / "tables" / "spec.json").write_text(canonical_json(compare_spec(seeds)))
    folders = [folder / "measures" / arm / f"seed{seed}" for arm in ARMS for seed in seeds]
    interventions = compare.read_interventions(compare_spec(seeds), list(folder.glob("interventions/*/*/*.parquet")))
    measures = compare.read_measures(compare_spec(seeds), folders)
    for name, rows in compare.compare(compare_spec(seeds), measures, interventions).items():
        tables.write_parquet(rows, name, folder / "tables" / f"{name}.parquet")
        tables.write_csv(rows, folder / "tables" / f"{name}.csv")


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return the folder of a small fake study with two seeds of every arm."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder / "fake", Size())
    return folder / "fake"


@pytest.fixture(scope="session")
def small() -> Size:
    return Size()


@pytest.fixture(scope="session")
def measure_spec_of() -> Callable[[str, int, Size], MeasureSpec]:
    return measure_spec


@pytest.fixture(scope="session")
def compare_spec_of() -> Callable[[tuple[int, ...]], CompareSpec]:
    return compare_spec


@pytest.fixture(scope="session")
def table(study: pathlib.Path) -> Callable[[str], pd.DataFrame]:
    """Return a table of the fake study by name."""
    return lambda name: tables.read_table(study / "tables" / f"{name}.parquet", name)
