"""Test interventions against models that are built to do what they say, and every crossing of selector and kind.

All in float64 where a value is compared, so that only the choice can differ.
"""

import copy
import functools
import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from tests.every_kind import CONTEXT, VOCABULARY, Settings, allowed_in, model_settings, settings_in
from torch import Tensor

from speciate.config.components import options_of
from speciate.config.run import ModelSpec, RunSpec
from speciate.data.blocks import BlockSet
from speciate.evaluation import interventions
from speciate.evaluation.interventions import INTERVENTIONS, Case
from speciate.evaluation.overrides import Call, override, permutation_within
from speciate.model.depth.skipper import Predictor
from speciate.model.moe.choice import expert
from speciate.model.moe.top_k_router import Scores, TopK
from speciate.model.token_batch import TokenBatch, in_domains
from speciate.model.transformer import Transformer
from speciate.selection.selection import Selection, record_selections, selectors
from speciate.training.build_model import build_model
from speciate.training.objective import causal

NUM_BLOCKS = 6
MOE = {"kind": "moe", "num_experts": 4, "hidden": 20, "router": "learned", "balance": "none"}
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def build(**changes: Any) -> Transformer:
    """Build a model in float64, with predictors that have learned something."""
    torch.manual_seed(0)
    model = Transformer(ModelSpec.model_validate(model_settings(**changes)), VOCABULARY).double().eval()
    for module in model.modules():
        if isinstance(module, Predictor):
            torch.nn.init.normal_(module.down.weight)
    return model


def probe(num_blocks: int = NUM_BLOCKS) -> BlockSet:
    """Return blocks of two domains in turn, each of two documents."""
    token_BT = np.random.default_rng(0).integers(0, VOCABULARY - 1, (num_blocks, CONTEXT))
    document_BT = 2 * np.arange(num_blocks)[:, None] + (np.arange(CONTEXT) >= 9)
    documents = pd.DataFrame({"document": np.arange(2 * num_blocks)})
    documents["domain"] = [("code", "prose")[row // 2 % 2] for row in documents["document"]]
    documents["group"] = [f"group{row}" for row in documents["document"]]
    return BlockSet("probe", ("code", "prose"), token_BT, document_BT, np.arange(num_blocks) % 2, documents, None)


def objective() -> causal.Objective:
    return causal.Objective(causal.Options(kind="causal"))


def call_of(model: Transformer, path: str, intervention: str, slot: int = -1, load: Any = None) -> Any:
    """Return the change of an intervention on a selector, for `override`."""
    selector = selectors(model)[path]
    change = INTERVENTIONS[intervention].change_of(selector)
    assert change is not None
    load_S = torch.full((selector.num_slots,), 1 / selector.num_slots, dtype=torch.float64) if load is None else load
    load_DS = load_S.expand(2, -1) if load_S.ndim == 1 else load_S
    draw = torch.Generator().manual_seed(5)
    return lambda args, output: change(Call(selector, args, output, draw, load_DS, slot))


def logits_under(model: Transformer, path: str, intervention: str, slot: int = -1, load: Any = None) -> Tensor:
    """Return the logits of the probe set under an intervention."""
    blocks = probe()
    change = call_of(model, path, intervention, slot, load)
    with override(selectors(model)[path], change), in_domains(torch.from_numpy(blocks.domain)), torch.no_grad():
        return model(torch.from_numpy(blocks.tokens))


def recorded(model: Transformer, path: str, intervention: str | None, slot: int = -1, load: Any = None) -> Selection:
    """Return what the selector reports, under an intervention or none."""
    blocks, selector = probe(), selectors(model)[path]
    token_BT = torch.from_numpy(blocks.tokens)
    with in_domains(torch.from_numpy(blocks.domain)), torch.no_grad():
        if intervention is None:
            with record_selections(model) as record:
                model(token_BT)
            return record[path]
        with override(selector, call_of(model, path, intervention, slot, load)), record_selections(model) as record:
            model(token_BT)
        return record[path]


class Masked(torch.nn.Module):
    """A scorer whose logit of one slot is -inf: what a model without that expert would have."""

    def __init__(self, scorer: Any, slot: int) -> None:
        super().__init__()
        self.scorer, self.slot = scorer, slot

    def forward(self, x_ND: Tensor, tokens: TokenBatch) -> Scores:
        logits_NS = F.linear(x_ND, self.scorer.weight)
        logits_NS[:, self.slot] = -torch.inf
        probs_NS, gate_NS = self.scorer.gates(logits_NS)
        return Scores(probs_NS, probs_NS, logits_NS, gate_NS)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"top_k": 2},
        {"choice": {"kind": "token", "renormalise": False}},
        {"choice": {"kind": "token", "capacity_factor": 1.0}, "top_k": 2},
        {"router": {"kind": "learned", "gate": "sigmoid"}, "top_k": 2},
        {"router": {"kind": "learned", "gate": "sigmoid"}, "choice": {"kind": "token", "renormalise": False}},
        {"balance": {"kind": "bias"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("slot", [0, 3])
def test_a_masked_expert_is_a_router_whose_logit_is_minus_infinity(change: Settings, slot: int) -> None:
    model = build(ffn={**MOE, **change})
    if change.get("balance"):
        model.blocks[1].ffn.router.balance.bias_S.copy_(torch.tensor([0.3, -0.2, 0.1, 0.0]))
    other = copy.deepcopy(model)
    router = other.blocks[1].ffn.router
    router.scorer = Masked(router.scorer, slot)
    expected_BTV = other(torch.from_numpy(probe().tokens)).detach()
    result_BTV = logits_under(model, "blocks.1.ffn.router", "masked_slot", slot)
    torch.testing.assert_close(result_BTV, expected_BTV, **EXACT)
    assert not torch.allclose(result_BTV, model(torch.from_numpy(probe().tokens)))


@pytest.mark.parametrize("router", ["learned", "frozen", "hash", "uniform_random"])
def test_everything_to_the_top_expert_is_that_expert_as_a_dense_layer(router: str) -> None:
    model = build(ffn={**MOE, "router": router})
    load_S = torch.tensor([0.1, 0.2, 0.6, 0.1], dtype=torch.float64)
    result_BTV = logits_under(model, "blocks.0.ffn.router", "top_slot", load=load_S)
    experts = model.blocks[0].ffn.experts

    def dense(x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        hidden = F.gelu(x_BTD @ experts.in_weight[2] + experts.in_bias[2])
        return hidden @ experts.out_weight[2] + experts.out_bias[2]

    other = copy.deepcopy(model)
    other.blocks[0].ffn.forward = dense
    torch.testing.assert_close(result_BTV, other(torch.from_numpy(probe().tokens)).detach(), **EXACT)


def test_uniform_routing_has_the_expectation_of_an_enumeration() -> None:
    """Two experts, one block of 3 tokens, the last layer: the mean loss over draws is that over all 8 routings."""
    model = build(ffn={**MOE, "num_experts": 2}, num_layers=1, context=3)
    token_1T = torch.tensor([[4, 9, 2]])
    path = "blocks.0.ffn.router"
    selector = selectors(model)[path]

    def loss() -> float:
        with torch.no_grad():
            return float(F.cross_entropy(model(token_1T)[0, :-1], token_1T[0, 1:]))

    def fixed(slots: tuple[int, ...]) -> float:
        order_NS = F.one_hot(torch.tensor(slots), 2).double()
        from speciate.evaluation.rerouting import route_to

        def change(args: Any, output: Any) -> Any:
            return route_to(Call(selector, args, output, torch.Generator(), torch.ones(1, 2)), order_NS)

        with override(selector, change):
            return loss()

    exact = np.array([fixed(slots) for slots in itertools.product((0, 1), repeat=3)])
    draw = torch.Generator().manual_seed(1)
    change = INTERVENTIONS["random_slots"].change_of(selector)
    assert change is not None
    losses = []
    for _ in range(2000):
        with override(selector, lambda args, output: change(Call(selector, args, output, draw, torch.ones(1, 2)))):
            losses.append(loss())
    assert {round(value, 9) for value in losses} <= {round(float(value), 9) for value in exact}
    error = float(np.std(exact)) / len(losses) ** 0.5
    assert np.mean(losses) == pytest.approx(exact.mean(), abs=4 * error)


def test_the_load_is_matched_and_the_token_forgotten() -> None:
    model = build(ffn={**MOE, "top_k": 2})
    path = "blocks.1.ffn.router"
    before, after = recorded(model, path, None), recorded(model, path, "load_matched")
    torch.testing.assert_close(after.chosen_NS.sum(0), before.chosen_NS.sum(0))
    # pairs of experts stay together, and most tokens have others
    assert sorted(before.chosen_NS.tolist()) == sorted(after.chosen_NS.tolist())
    assert (before.chosen_NS != after.chosen_NS).any(1).double().mean() > 0.5
    within = recorded(model, path, "load_matched_in_domain")
    domain_N = torch.from_numpy(probe().domain).repeat_interleave(CONTEXT)
    for domain in (0, 1):
        of_domain = domain_N == domain
        assert sorted(before.chosen_NS[of_domain].tolist()) == sorted(within.chosen_NS[of_domain].tolist())
    assert sorted(before.chosen_NS[domain_N == 0].tolist()) != sorted(after.chosen_NS[domain_N == 0].tolist())


def test_the_control_of_a_masked_expert_moves_as_many_tokens_of_each_block() -> None:
    model = build(ffn=MOE)
    path = "blocks.1.ffn.router"
    before = recorded(model, path, None).chosen_NS
    masked, control = (recorded(model, path, name, slot=1).chosen_NS for name in ("masked_slot", "masked_control"))
    moved, moved_at_random = ((before != other).any(1).view(NUM_BLOCKS, -1).sum(1) for other in (masked, control))
    assert moved.sum() == before[:, 1].sum() > 0
    assert moved.tolist() == moved_at_random.tolist()
    assert masked[:, 1].sum() == 0
    assert control[:, 1].sum() > 0


def test_every_slot_of_an_expert_choice_stays_full_and_a_masked_one_is_empty() -> None:
    model = build(ffn={**MOE, "choice": {"kind": "expert", "non_causal": True}})
    path = "blocks.1.ffn.router"
    for name in ("random_slots", "load_matched"):
        taken_NS = recorded(model, path, name).chosen_NS > 0
        assert (taken_NS.sum(0) == NUM_BLOCKS * CONTEXT / 4).all() or taken_NS.sum() <= NUM_BLOCKS * CONTEXT
    masked = recorded(model, path, "masked_slot", slot=2).chosen_NS
    assert masked[:, 2].sum() == 0
    assert (masked[:, [0, 1, 3]].sum(0) > 0).all()
    assert INTERVENTIONS["top_slot"].change_of(selectors(model)[path]) is None
    assert isinstance(selectors(model)[path].choice, expert.Choose)


def test_kept_experts_are_those_with_the_load_or_the_lift_and_no_others_serve() -> None:
    model = build(ffn={**MOE, "top_k": 2, "num_experts": 6})
    path = "blocks.1.ffn.router"
    load_DS = torch.tensor([[0.3, 0.1, 0.1, 0.2, 0.2, 0.1], [0.3, 0.2, 0.1, 0.1, 0.1, 0.2]], dtype=torch.float64)
    loaded = recorded(model, path, "kept_loaded", slot=3, load=load_DS).chosen_NS
    served = (loaded.sum(0) > 0).nonzero().flatten().tolist()
    assert set(served) <= {0, 1, 3, 4, 5}
    assert len(served) == 3 and 0 in served
    lifted = recorded(model, path, "kept_lifted", slot=2, load=load_DS).chosen_NS.view(NUM_BLOCKS, CONTEXT, 6)
    # of the even blocks' domain 3 and 4 have the largest lift, of the other's 1 and 5
    assert (lifted[::2, :, [3, 4]].sum(-1) == 1).all()
    assert (lifted[1::2, :, [1, 5]].sum(-1) == 1).all()
    random = recorded(model, path, "kept_random", slot=3).chosen_NS
    assert (random.sum(0) > 0).sum() == 3


def test_keeping_all_but_one_is_masking_it() -> None:
    model = build(ffn=MOE)
    load = torch.tensor([0.3, 0.1, 0.4, 0.2], dtype=torch.float64)
    one, other = (
        logits_under(model, "blocks.0.ffn.router", name, slot, load)
        for name, slot in (("kept_loaded", 3), ("masked_slot", 1))
    )
    assert torch.equal(one, other)


def test_random_tokens_run_as_many_of_each_block() -> None:
    model = build(depth={"kind": "mod", "capacity": 0.5})
    path = "blocks.0.depth.router"
    before, after = recorded(model, path, None).chosen_NS, recorded(model, path, "load_matched").chosen_NS
    assert (before != after).any()
    for one, other in zip(before.view(NUM_BLOCKS, CONTEXT, 2), after.view(NUM_BLOCKS, CONTEXT, 2), strict=True):
        assert one.sum(0).tolist() == other.sum(0).tolist()
    assert (recorded(model, path, "masked_slot", slot=0).chosen_NS[:, 1] == 1).all()
    assert (recorded(model, path, "masked_slot", slot=1).chosen_NS[:, 0] == 1).all()


def test_no_token_runs_is_a_model_without_the_block() -> None:
    model = build(depth={"kind": "mod", "capacity": 0.5})
    other = copy.deepcopy(model)
    other.blocks = torch.nn.ModuleList([other.blocks[0]])
    result_BTV = logits_under(model, "blocks.1.depth.router", "masked_slot", slot=1)
    torch.testing.assert_close(result_BTV, other(torch.from_numpy(probe().tokens)).detach(), **EXACT)


GSA = {"kind": "gsa", "num_heads": 4, "indexer": "kl", "budget": {"kind": "fixed", "k": 4}}


def test_the_latest_keys_are_those_of_a_sliding_window() -> None:
    model = build(mixer=GSA)
    window = build(mixer={**GSA, "indexer": "window"})
    window.load_state_dict(model.state_dict(), strict=False)
    kept = window.blocks[0]
    window.blocks[0] = copy.deepcopy(model.blocks[0])
    window.blocks[1] = model.blocks[1]
    window.blocks[0].mixer.selector = kept.mixer.selector
    result_BTV = logits_under(model, "blocks.0.mixer.selector", "latest_keys")
    torch.testing.assert_close(result_BTV, window(torch.from_numpy(probe().tokens)).detach(), **EXACT)


def test_random_keys_are_as_many_and_seen() -> None:
    model = build(mixer=GSA)
    chosen: dict[str, Any] = {}
    selector = selectors(model)["blocks.0.mixer.selector"]
    change = call_of(model, "blocks.0.mixer.selector", "load_matched")

    def keep(args: Any, output: Any) -> Any:
        chosen["before"], result = output.choice, change(args, output)
        chosen["after"] = result.choice
        return result

    with override(selector, keep):
        model(torch.from_numpy(probe().tokens))
    before, after = chosen["before"], chosen["after"]
    assert (before.valid_BTk.sum(-1) == after.valid_BTk.sum(-1)).all()
    own_T1 = torch.arange(CONTEXT)[:, None]
    assert ((after.index_BTk <= own_T1) | ~after.valid_BTk).all()
    for row in after.index_BTk[:, CONTEXT - 1].tolist():
        assert len(set(row)) == 4
    assert (before.index_BTk.sort(-1).values != after.index_BTk.sort(-1).values).any()
    masked = recorded(model, "blocks.0.mixer.selector", "masked_slot", slot=0).chosen_NS
    # the first query sees nothing but the first key, and keeps it
    assert masked.view(NUM_BLOCKS, CONTEXT, -1)[:, 1:, 0].sum() == 0


def masked_model(**changes: Any) -> tuple[Transformer, Any]:
    """Return a masked-diffusion model with a learned importance, and its objective."""
    settings = {"kind": "masked_diffusion", "importance": {"kind": "learned"}, "masking": "importance", **changes}
    options = options_of("training/objective", "masked_diffusion").model_validate(settings)
    run = RunSpec.model_validate(
        {
            "ablation": "small",
            "seed": 0,
            "model": model_settings(causal=False),
            "objective": options.model_dump(),
            "optimizer": "adamw",
            "schedule": "constant",
            "training": {},
            "telemetry": {},
        }
    )
    torch.manual_seed(0)
    return build_model(run, VOCABULARY - 1).eval(), run.objective.component().Objective(run.objective)


def test_uniform_masks_are_as_many_and_alike() -> None:
    model, _ = masked_model()
    masker = model.parts["importance"]
    tokens = model.tokens(torch.from_numpy(probe().tokens), None)
    maskable_BT = torch.ones_like(tokens.id_BT, dtype=torch.bool)
    maskable_BT[:, 0] = False
    share_B = torch.linspace(0.1, 0.9, NUM_BLOCKS, dtype=torch.float64)
    before = masker.mask_probs(tokens, maskable_BT, share_B)
    with override(masker, call_of(model, "parts.importance", "load_matched")):
        after = masker.mask_probs(tokens, maskable_BT, share_B)
    assert before.prob_BT[0, 1:].std() > 1e-4
    torch.testing.assert_close(after.prob_BT, torch.where(maskable_BT, share_B[:, None], 0.0))
    again = masker.mask_probs(tokens, maskable_BT, share_B)
    assert torch.equal(again.prob_BT, before.prob_BT)


def test_a_permutation_stays_within_its_groups() -> None:
    group_N = torch.tensor([0, 1, 0, 1, 1, -1, 0])
    from_N = permutation_within(group_N, torch.rand(7))
    assert sorted(from_N.tolist()) == list(range(7))
    assert (group_N[from_N] == group_N).all()
    seen = {tuple(permutation_within(group_N, torch.rand(7)).tolist()) for _ in range(2000)}
    assert len(seen) == 6 * 6


# --- every crossing ----------------------------------------------------------------------------------------------


@functools.cache
def all_models() -> dict[str, tuple[Settings, Settings]]:
    """Return (model, objective) settings of a model with each kind of selector that a config can name, by name."""
    plain = {"kind": "causal"}
    models = {
        f"{slot} {name}": (model_settings(**{slot: settings}), plain)
        for slot in ("mixer", "ffn", "depth")
        for name, settings in allowed_in(slot).items()
    }
    both = {"ffn": {**MOE, "top_k": 2}, "depth": {"kind": "mod", "capacity": 0.5}}
    models["behind a depth"] = (model_settings(**both), plain)
    models["separate documents"] = (model_settings(**both, separate_documents=True), plain)
    for name, settings in settings_in("training/objective").items():
        if settings["kind"] == "masked_diffusion":
            models[f"objective {name}"] = (model_settings(causal=False), settings)
    return models


def run_of(model: Settings, objective_settings: Settings) -> RunSpec | None:
    try:
        return RunSpec.model_validate(
            {
                "ablation": "small",
                "seed": 0,
                "model": model,
                "objective": objective_settings,
                "optimizer": "adamw",
                "schedule": "constant",
                "training": {},
                "telemetry": {},
            }
        )
    except ValueError:
        return None


def built(name: str) -> tuple[Transformer, Any] | None:
    model_part, objective_part = all_models()[name]
    run = run_of(model_part, objective_part)
    if run is None or run.objective.needs_oracle():
        return None
    torch.manual_seed(0)
    model = build_model(run, VOCABULARY).eval()
    return model, run.objective.component().Objective(run.objective)


NAMES = list(all_models())


@pytest.mark.parametrize("name", NAMES)
def test_every_crossing(name: str) -> None:
    """Every intervention that exists gives finite nats, the same twice, and leaves the model as it was, bit for bit."""
    made = built(name)
    if made is None or not selectors(made[0]):
        pytest.skip("no selector, or it needs a trained oracle")
    model, objective_ = made
    blocks = probe()
    state = {key: value.clone() for key, value in model.state_dict().items()}

    def nats() -> Tensor:
        with in_domains(torch.from_numpy(blocks.domain)):
            token_BT, document_BT = torch.from_numpy(blocks.tokens), torch.from_numpy(blocks.document).long()
            return objective_.probe_nll(model, token_BT, document_BT)[0]

    before = nats()
    clean, results = interventions.nats_by_case(model, objective_, blocks, seed=0, max_slots=8)
    again_clean, again = interventions.nats_by_case(model, objective_, blocks, seed=0, max_slots=8)
    kinds = {case.intervention for case in results}
    assert {case.selector for case in results} <= set(selectors(model))
    assert "load_matched" in kinds
    for case, sums in results.items():
        assert np.isfinite(sums.nats_G).all(), case
        assert sums.nats_G.tolist() == again[case].nats_G.tolist(), case
        if "importance" not in case.selector:
            assert sums.tokens_G.tolist() == clean.tokens_G.tolist(), case
    assert clean.nats_G.tolist() == again_clean.nats_G.tolist()
    assert torch.equal(before, nats())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("depth", ["every", {"kind": "mod", "capacity": 0.5}])
def test_the_layers_below_need_not_run_again(depth: Any) -> None:
    """Overriding nothing, from any layer on, gives the bits of the whole pass."""
    model = build(ffn=MOE, depth=depth)
    token_BT = torch.from_numpy(probe().tokens)
    with torch.no_grad():
        whole = model.hidden(token_BT)
        with interventions.keep_inputs(model) as inputs:
            model.hidden(token_BT)
        for layer in (0, 1):
            with interventions.start_at(model, layer, inputs[layer]):
                assert torch.equal(model.hidden(token_BT), whole)
            selector = selectors(model)[f"blocks.{layer}.ffn.router"]
            with override(selector, lambda args, output: output):
                assert torch.equal(model.hidden(token_BT), whole)


def test_batches_are_balanced_and_costs_do_not_depend_on_where_they_start() -> None:
    parts = interventions.batches(probe(70))
    assert [len(part.token_BT) for part in parts] == [32, 32, 6]
    assert all((part.domain_B == 0).sum() == (part.domain_B == 1).sum() for part in parts)
    model = build(ffn=MOE)
    clean, results = interventions.nats_by_case(model, objective(), probe(70), seed=0, max_slots=8)
    assert clean.tokens_G.sum() == 70 * (CONTEXT - 1)
    # masking draws nothing, so it is the same in one batch
    path = "blocks.1.ffn.router"
    token_BT = torch.from_numpy(probe(70).tokens)
    with override(selectors(model)[path], call_of(model, path, "masked_slot", slot=0)), torch.no_grad():
        total = float(
            F.cross_entropy(model(token_BT)[:, :-1].flatten(0, 1), token_BT[:, 1:].flatten(), reduction="sum")
        )
    assert results[Case(path, "masked_slot", 0)].nats_G.sum() == pytest.approx(total, rel=1e-12)


def test_many_slots_are_masked_evenly_over_their_load() -> None:
    load_S = torch.tensor([0.0, 0.4, 0.1, 0.3, 0.2])
    assert interventions.spread_slots(load_S, 8) == [1, 2, 3, 4]
    assert interventions.spread_slots(load_S, 2) == [1, 2]
    assert interventions.spread_slots(torch.arange(1, 65) / 2080, 4) == [0, 21, 42, 63]


def test_every_kind_of_router_has_an_intervention_of_its_own() -> None:
    """Test that each class of selectors that the crossings build has a change in `load_matched`."""
    kinds = {type(selector) for name in NAMES if (made := built(name)) for selector in selectors(made[0]).values()}
    assert len(kinds) >= 5
    assert all(any(issubclass(kind, known) for known in INTERVENTIONS["load_matched"].changes) for kind in kinds)
    assert TopK in INTERVENTIONS["load_matched"].changes
