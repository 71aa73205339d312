"""Test that the observer measures by the domain of each document, whatever block the document is in."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

from speciate.config.components import component_module
from speciate.config.run import RunSpec, TelemetrySpec
from speciate.data.blocks import BlockSet
from speciate.model.transformer import Transformer
from speciate.training.observer import Observer
from speciate.training.probe import BLOCKS_AT_ONCE, batches, observe


def block_set(label_G: list[str], num_blocks: int) -> BlockSet:
    """Make blocks of two alternating packs with two documents each; document g is of domain label_G[g]."""
    draw = np.random.Generator(np.random.Philox(3))
    document = 2 * np.arange(num_blocks)[:, None] + (np.arange(16) >= 9)
    names = [str(row) for row in range(len(label_G))]
    return BlockSet(
        name="validation",
        domains=("a", "b"),
        tokens=draw.integers(0, 64, (num_blocks, 16)),
        document=document.astype(np.int32),
        domain=np.arange(num_blocks, dtype=np.int32) % 2,
        documents=pd.DataFrame({"document": range(len(label_G)), "domain": label_G, "id": names, "group": names}),
        types=None,
    )


def small(run_spec: Callable[..., RunSpec], **model: object) -> tuple[Transformer, torch.nn.Module]:
    spec = run_spec(model=model)
    torch.manual_seed(0)
    return Transformer(spec.model, 64), component_module(spec.objective).Objective(spec.objective)


@torch.no_grad()
def test_where_documents_have_their_blocks_domain_nothing_is_new(run_spec: Callable[..., RunSpec]) -> None:
    model, objective = small(run_spec)
    blocks = block_set([label for block in range(90) for label in ["ab"[block % 2]] * 2], 90)
    losses = Observer(TelemetrySpec(probe_blocks=1), objective, blocks, blocks).validate(model, objective)
    for index, domain in enumerate("ab"):
        of_domain = torch.from_numpy(blocks.tokens[blocks.domain == index])
        model.eval()
        nats = [objective.token_nll(model, portion).double() for _, portion in batches(of_domain)]
        assert len(nats) == -(-45 // BLOCKS_AT_ONCE)
        # the same nats; their float64 mean is summed in another shape, so in another order
        assert losses[domain] == pytest.approx(float(torch.cat(nats).mean()), rel=1e-13)


@torch.no_grad()
@pytest.mark.parametrize("separate", [False, True])
def test_a_prediction_counts_for_its_documents_domain(run_spec: Callable[..., RunSpec], separate: bool) -> None:
    model, objective = small(run_spec, separate_documents=separate)
    label_G = np.random.default_rng(0).choice(["a", "b"], 20).tolist()
    blocks = block_set(label_G, 10)
    losses = Observer(TelemetrySpec(probe_blocks=1), objective, blocks, blocks).validate(model, objective)
    nats: dict[str, list[float]] = {"a": [], "b": []}
    model.eval()
    for block in range(10):
        row = objective.token_nll(
            model,
            torch.from_numpy(blocks.tokens[block : block + 1]),
            torch.from_numpy(blocks.document[block : block + 1]),
        )
        for position, value in enumerate(row[0].tolist(), start=1):
            if not (separate and position == 9):
                nats[label_G[blocks.document[block, position]]].append(value)
    assert losses == pytest.approx({domain: np.mean(values) for domain, values in nats.items()}, abs=1e-6)


@torch.no_grad()
def test_a_selector_is_seen_with_documents_apart(run_spec: Callable[..., RunSpec]) -> None:
    model, objective = small(run_spec, separate_documents=True)
    blocks = block_set(["a"] * 4, 2)
    token_BT, document_BT = torch.from_numpy(blocks.tokens), torch.from_numpy(blocks.document).long()
    packed = observe(model, objective, token_BT, document_BT, num_documents=4)[0]
    path = "blocks.1.ffn.router"
    for document in range(4):
        block, part = document // 2, slice(9, 16) if document % 2 else slice(0, 9)
        alone = observe(
            model,
            objective,
            token_BT[block : block + 1, part],
            torch.zeros(1, part.stop - part.start).long(),
            num_documents=1,
        )[0]
        np.testing.assert_allclose(packed[path].probs_GS[document], alone[path].probs_GS[0], rtol=1e-5)
    unseparated = observe(model, objective, token_BT, torch.zeros_like(document_BT), num_documents=4)[0]
    assert not np.allclose(unseparated[path].probs_GS.sum(0), packed[path].probs_GS.sum(0), rtol=1e-5)
