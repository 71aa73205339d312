"""Test one column per layer for arms of different families; with the same selectors in all arms nothing changes."""

import pandas as pd

from speciate.analysis.alignment import align_selectors

ROUTERS = [("a", f"blocks.{layer}.ffn.router", layer) for layer in (0, 1)]


def frame(*rows: tuple[str, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["ablation", "selector", "layer"])


def test_arms_with_the_same_selectors_stay_as_they_are() -> None:
    same = frame(*ROUTERS, *(("b", path, layer) for _, path, layer in ROUTERS))
    assert align_selectors({"selectors": same})["selectors"].equals(same)


def test_an_only_selector_of_a_layer_is_called_by_it_and_one_of_several_by_its_path() -> None:
    rows = frame(*ROUTERS, ("b", "blocks.1.mixer.selector", 1), ("b", "parts.importance", -1))
    several = frame(("c", "blocks.0.depth.router", 0), ("c", "blocks.0.ffn.router", 0), ("c", "any", -1))
    result = align_selectors(
        {"selectors": pd.concat([rows, several]), "verdicts": several.drop(columns="layer"), "runs": rows[["ablation"]]}
    )
    names = list(result["selectors"]["selector"])
    assert names[:4] == ["blocks.0", "blocks.1", "blocks.1", "parts.importance"]
    assert names[4:] == ["blocks.0.depth.router", "blocks.0.ffn.router", "any"]
    assert list(result["verdicts"]["selector"]) == names[4:]
    assert list(result["runs"]) == ["ablation"]


def test_tables_without_selectors_pass() -> None:
    curves = pd.DataFrame({"ablation": ["a"], "step": [1]})
    assert align_selectors({"curves": curves})["curves"] is curves
