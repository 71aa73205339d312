"""Test that an exported folder's code gives the package's bits where the package is not installed, for every kind."""

import ast
import pathlib
import sys
from typing import Any

import pytest
import torch
from tests.model.hf.alone import load_alone
from transformers import AutoConfig
from transformers.dynamic_module_utils import get_imports, get_relative_import_files

from speciate.config.components import kinds_in, options_within
from speciate.config.extends import merge
from speciate.config.run import ModelSpec
from speciate.model.hf import folder_code
from speciate.model.hf.auto_classes import AUTO_MAP, SpeciateConfig, SpeciateForCausalLM

VOCABULARY, CONTEXT, GENERATED = 60, 32, 20
SLOTS = ("mixer", "ffn", "depth", "moe/router", "moe/choice", "moe/balance")
SLOTS += ("sparse_attention/indexer", "sparse_attention/budget")
MOE = {"kind": "moe", "num_experts": 4, "hidden": 16, "top_k": 2, "router": "learned", "balance": "none"}
ROM = {"kind": "rom", "state": 4, "num_experts": 3, "router": "learned", "balance": "none"}
GSA = {"kind": "gsa", "num_heads": 4, "indexer": {"kind": "kl", "heads": 2, "width": 8}, "budget": {"kind": "fixed"}}
GSA["budget"] = {"kind": "fixed", "k": 4}
MOD = {"kind": "mod", "capacity": 0.5, "hidden": 8}
RUNNING = {"kind": "running", "k": 4, "k_min": 2, "k_max": 8}
LLAMA = {"norm": "rms", "position": "rotary", "biases": False, "tied_head": False}


def routed(router: Any = "learned", balance: Any = "none", **options: Any) -> dict[str, Any]:
    """Return changes of the model: experts with this router and balancing."""
    return {"block": {"ffn": {**MOE, "router": router, "balance": balance, **options}}}


def sparse(indexer: Any, budget: Any) -> dict[str, Any]:
    return {"block": {"mixer": {**GSA, "indexer": indexer, "budget": budget}}}


HEADS = {"heads": 2, "width": 8}
MODELS: dict[str, dict[str, Any]] = {
    "dense": {"position": "rotary"},
    "learned, sigmoid, mlp": routed({"kind": "learned", "gate": "sigmoid", "shape": "mlp", "noise": "learned"}),
    "frozen": LLAMA | routed("frozen", num_shared=1, activation="swiglu"),
    "hash": routed("hash", top_k=1),
    "uniform_random": routed("uniform_random"),
    "bias": routed(balance={"kind": "bias", "rate": 0.1}),
    "auxiliary": routed(balance="auxiliary", choice={"kind": "token", "renormalise": False}),
    "orthogonal": routed(balance="orthogonal"),
    "capacity": routed(choice={"kind": "token", "capacity_factor": 1.0}),
    "mamba": {"block": {"mixer": {"kind": "mamba", "state": 4}}},
    "rom": {"block": {"mixer": ROM}},
    "kl": sparse({"kind": "kl", **HEADS}, {"kind": "fixed", "k": 4}),
    "as_published": sparse({"kind": "as_published", **HEADS}, RUNNING),
    "soft": sparse({"kind": "soft", **HEADS}, RUNNING),
    "oracle": sparse("oracle", {"kind": "fixed", "k": 4}),
    "window": sparse("window", {"kind": "fixed", "k": 4}),
    "mod": {"block": {"depth": MOD, "ffn": MOE}},
    "mod, random": {"block": {"depth": {**MOD, "choice": "random"}}},
    "mod_published": {"block": {"depth": {"kind": "mod_published", "hidden": 8}}},
    "mixed": {
        **LLAMA,
        "block": {"depth": MOD},
        "exceptions": [{"layers": [1], "block": {"mixer": ROM, "ffn": MOE, "depth": "every"}}],
    },
}
REFUSED = {
    "moe/choice/expert": "it looks at later tokens, and export refuses it",
    "sparse_attention/budget/published": "it looks at later tokens, and export refuses it",
    "moe/router/oracle": "it needs the domain of every text, which transformers does not pass",
}


def model_spec(changes: dict[str, Any]) -> ModelSpec:
    block = {"mixer": {"kind": "attention", "num_heads": 4}, "ffn": {"kind": "dense", "hidden": 24}, "depth": "every"}
    sizes = {"width": 32, "num_layers": 2, "context": CONTEXT, "init_std": 0.3, "embedding_std": 0.3}
    return ModelSpec.model_validate(merge({**sizes, "block": block}, changes))


def saved(name: str, folder: pathlib.Path) -> SpeciateForCausalLM:
    """Save a model with random weights; return the package's model of that file, for a file's alignment moves bits."""
    torch.manual_seed(3)
    config = SpeciateConfig(model_spec(MODELS[name]).model_dump(mode="json"), vocab_size=VOCABULARY)
    model = SpeciateForCausalLM(config).eval()
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("bias_S"):
            buffer.normal_()
    model.save_pretrained(folder)
    loaded: SpeciateForCausalLM = SpeciateForCausalLM.from_pretrained(folder).eval()
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    return loaded


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(VOCABULARY, (2, 11), generator=torch.Generator().manual_seed(0))


SETTINGS = {"max_new_tokens": GENERATED, "do_sample": False}


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, tokens: torch.Tensor
) -> tuple[dict[str, SpeciateForCausalLM], dict[str, dict[str, Any]]]:
    """Return the package's models, and what their folders give where there is no package; by the name of the model.

    One process loads all folders one after another, so that the code of one would be seen in the next.
    """
    place = tmp_path_factory.mktemp("alone")
    models = {name: saved(name, place / name) for name in MODELS}
    results = load_alone([place / name for name in MODELS], tokens, SETTINGS, place)
    return models, {name: results[str(place / name)] for name in MODELS}


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_a_folder_gives_the_same_bits_without_the_package(name: str, alone: Any, tokens: torch.Tensor) -> None:
    models, results = alone
    model, found = models[name], results[name]
    assert (found["config"], found["class"]) == ("SpeciateConfig", "SpeciateForCausalLM")
    assert found["module"].startswith("transformers_modules.")
    assert torch.equal(found["logits"], model.model(tokens))
    assert found["logits"].std() > 0.1
    assert found["generated"].shape == (2, 11 + GENERATED)
    assert torch.equal(found["generated"], model.generate(tokens, **SETTINGS))


def test_every_kind_is_loaded_without_the_package_or_named_as_refused() -> None:
    used = {options.module_name() for changes in MODELS.values() for options in options_within(model_spec(changes))}
    named = {
        "speciate.model." + f"{slot}/{kind}".replace("/", ".") for slot in SLOTS for kind in kinds_in(f"model/{slot}")
    }
    assert named - used == {"speciate.model." + kind.replace("/", ".") for kind in REFUSED}


def test_a_folder_holds_the_components_of_its_spec_and_no_others(tmp_path: pathlib.Path) -> None:
    folder_code.write_code(tmp_path, model_spec(MODELS["mod"]))
    kinds = {file.stem for file in tmp_path.glob("*.py") if "\nclass Options(" in file.read_text()}
    stems = ("mixer_attention", "ffn_moe", "depth_mod", "moe_router_learned", "moe_choice_token", "moe_balance_none")
    assert kinds == {f"speciate_model_{stem}" for stem in stems}


@pytest.mark.parametrize("name", ["mixed", "kl"])
def test_a_copy_is_the_source_but_for_its_imports(tmp_path: pathlib.Path, name: str) -> None:
    folder_code.write_code(tmp_path, model_spec(MODELS[name]))
    root = folder_code.PACKAGE.parent
    sources = {file.relative_to(root).with_suffix("").as_posix().replace("/", "_"): file for file in root.rglob("*.py")}
    copies = sorted(tmp_path.glob("*.py"))
    assert len(copies) > 20
    for copy in copies:
        ours, theirs = (ast.parse(file.read_text()) for file in (sources[copy.stem], copy))
        assert [node for node in ast.walk(theirs) if ast.unparse(node) == "import speciate"] == []
        kept = [ast.dump(node) for tree in (ours, theirs) for node in tree.body if not is_import(node)]
        assert kept[: len(kept) // 2] == kept[len(kept) // 2 :], copy


def is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom) or ast.unparse(node).startswith("if TYPE_CHECKING:")


@pytest.mark.parametrize("name", MODELS)
def test_transformers_finds_every_file_and_every_package_that_a_folder_needs(tmp_path: pathlib.Path, name: str) -> None:
    folder_code.write_code(tmp_path, model_spec(MODELS[name]))
    entry = tmp_path / "speciate_model_hf_auto_classes.py"
    found = {pathlib.Path(file).name for file in get_relative_import_files(entry)} | {entry.name}
    assert found == {file.name for file in tmp_path.glob("*.py")}
    packages = set(get_imports(entry)) - sys.stdlib_module_names
    assert packages == {"pydantic", "pydantic_core", "torch", "transformers"}  # pydantic brings pydantic_core
    assert {
        package for file in tmp_path.glob("*.py") for package in get_imports(file)
    } - sys.stdlib_module_names == packages


def test_the_licence_goes_with_every_copy(tmp_path: pathlib.Path) -> None:
    folder_code.write_code(tmp_path, model_spec({}))
    text = (folder_code.PACKAGE.parents[1] / "LICENSE").read_text()
    assert (tmp_path / "speciate_LICENSE.txt").read_text() == text
    entry = (tmp_path / "speciate_model_hf_auto_classes.py").read_text()
    assert "\n".join(f"# {line}".rstrip() for line in text.splitlines()) in entry
    for file in tmp_path.glob("*.py"):
        assert "# SPDX-License-Identifier: MIT." in file.read_text()


@torch.no_grad()
def test_a_folder_saved_again_without_the_package_is_whole(tmp_path: pathlib.Path, tokens: torch.Tensor) -> None:
    model = saved("rom", tmp_path / "first")
    with folder_code.imported_code(tmp_path / "first") as code:
        assert code.__name__ == "speciate_exported.speciate_model_hf_auto_classes"
        copied = code.SpeciateForCausalLM.from_pretrained(tmp_path / "first").eval()
        assert not isinstance(copied, SpeciateForCausalLM)
        copied.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "first" / "__pycache__").exists()
    found = load_alone([tmp_path / "again"], tokens, SETTINGS, tmp_path)[str(tmp_path / "again")]
    assert torch.equal(found["logits"], model(tokens).logits)
    for file in (tmp_path / "first").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_package_uses_its_own_classes_for_a_folder_with_code(tmp_path: pathlib.Path) -> None:
    saved("dense", tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is SpeciateConfig
    assert type(AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)) is SpeciateConfig
    files = {value.split(".")[0] for value in AUTO_MAP.values()}
    assert files == {folder_code.flat_name(SpeciateForCausalLM.__module__)}
    for value in AUTO_MAP.values():
        assert f"class {value.split('.')[1]}(" in (tmp_path / f"{value.split('.')[0]}.py").read_text()
