"""Test what a study, a domain, a source and an ablation may be called, and what is said of any other name."""

from typing import Any

import pytest
from tests.bad_input import small

from speciate.config.study import parse_study

ODD = (
    *("my-domain", "My", "a b", "a\u00a0b", "{x}", "a{", "a/b", "..", ".", "é", "日本", "", "a\n", "a\x00", "1a", "_a"),
    *("a.b", "a'b", "$a", "a*", "a\u200db"),
)


def called(where: str, name: str) -> tuple[str, dict[str, Any]]:
    """Return the path and the settings of a study of which one thing has this name."""
    settings = small.settings()
    shown = name if name and name.isprintable() else repr(name)
    match where:
        case "study":
            settings["study"] = name
            return "study", settings
        case "domain":
            settings["domains"][name] = settings["domains"].pop("prose")
            return f"domains.{shown}", settings
        case "source":
            sources = settings["domains"]["prose"]["sources"]
            sources[name] = sources.pop("prose")
            return f"domains.prose.sources.{shown}", settings
    settings["ablations"][name] = settings["ablations"]["dense"]
    return f"ablations.{shown}", settings


@pytest.mark.parametrize("where", ["study", "domain", "source", "ablation"])
@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_an_odd_name_is_refused_in_one_true_line(where: str, name: str) -> None:
    path, settings = called(where, name)
    with pytest.raises(ValueError, match="is not a name") as refused:
        parse_study(settings, "study.yaml")
    reason = f"{name!r} is not a name: a to z, 0 to 9 and _, beginning with a letter"
    assert str(refused.value) == f"study.yaml: {path}: {reason}"
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("where", ["study", "domain", "source", "ablation"])
def test_a_name_too_long_for_a_path_is_refused(where: str) -> None:
    parse_study(called(where, "a" * 100)[1], "study.yaml")
    with pytest.raises(ValueError, match="at most 100 characters"):
        parse_study(called(where, "a" * 101)[1], "study.yaml")
