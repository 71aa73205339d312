import numpy as np
import pandas as pd
import pytest

from speciate.config.components import ComponentOptions, options_of
from speciate.data.mixture import split_domain


def options(domain: str = "b", **settings: int) -> ComponentOptions:
    return options_of("data/mixture", "split_domain")(kind="split_domain", domain=domain, **settings)


def test_all_blocks_of_one_domain_and_none_of_the_others() -> None:
    mixture, warnings = split_domain.mix(options(), {"a": 0, "b": 20, "c": 5})
    assert mixture.dtype == np.int32
    assert mixture[:, 0].tolist() == [1] * 20
    assert sorted(mixture[:, 1].tolist()) == list(range(20))
    assert warnings == []


def test_labels_go_by_group_and_are_the_same_in_every_set() -> None:
    chosen = options(parts=4)
    assert chosen.labels(("a", "b")) == ("b_1", "b_2", "b_3", "b_4")
    groups = [f"g{index // 3}" for index in range(600)]
    documents = pd.DataFrame({"document": range(600), "domain": "b", "id": "x", "group": groups})
    labelled = split_domain.relabel(chosen, documents, "test")
    assert labelled.drop(columns="domain").equals(documents.drop(columns="domain"))
    assert (labelled.groupby("group")["domain"].nunique() == 1).all()
    assert labelled.equals(split_domain.relabel(chosen, documents, "probe"))
    sizes = labelled.drop_duplicates("group")["domain"].value_counts()
    assert sorted(sizes.index) == ["b_1", "b_2", "b_3", "b_4"]
    assert ((sizes - 50) ** 2 / 50).sum() < 16.3  # chi-squared with 3 degrees of freedom, 0.1 %
    assert not labelled.equals(split_domain.relabel(options(parts=4, seed=1), documents, "test"))


def test_a_domain_that_is_not_there_or_empty() -> None:
    with pytest.raises(ValueError, match=r"mixture.domain: the study has no domain d, only a, b"):
        options("d").labels(("a", "b"))
    with pytest.raises(ValueError, match=r"domains.b: too small for one block of the train split \(blocks: b 0\)"):
        split_domain.mix(options(), {"a": 3, "b": 0})
