"""Define impossible study files, refused before there is a graph of jobs."""

from collections.abc import Callable
from typing import Any

from tests.bad_input.case import Case, Place
from tests.bad_input.small import Command

FFN = "base.model.block.ffn"


def changed(*change: tuple[str, Any]) -> Callable[[Place], Command]:
    """Return the study with these keys changed."""
    return lambda place: place.study(*change)


def circle(place: Place) -> Command:
    """Write two study files that extend each other."""
    (place.folder / "other.yaml").write_text("extends: study.yaml\n")
    return place.study(text="extends: other.yaml\n")


def keeps(place: Place) -> Command:
    """Write a study file that keeps an ablation under a wrong name."""
    (place.folder / "base.yaml").write_text("ablations: {dense: {about: x}, auxiliary: {about: y}}\n")
    return place.study(text="extends: base.yaml\nkeep: {ablations: [dense, magic]}\n")


def two_sources(place: Place) -> Command:
    """Write one name for two sources."""
    return place.study(
        ("domains.prose.sources", {"code": {"kind": "files", "paths": ["corpus/prose.jsonl"]}}),
    )


def study(wrong: str, says: str, *change: tuple[str, Any]) -> Case:
    """Make a case of one changed study file."""
    return Case("Study file", wrong, changed(*change), says)


CASES = [
    Case(
        "Study file",
        "there is no such file",
        lambda place: Command("study", ("none.yaml",)),
        "none.yaml: cannot be read: No such file or directory",
    ),
    Case(
        "Study file", "broken YAML", lambda place: place.study(text="study: [small\n"), "study.yaml: is not YAML: WHY"
    ),
    Case(
        "Study file",
        "a list where a mapping belongs",
        lambda place: place.study(text="- study\n"),
        "study.yaml: must be a mapping of keys to values",
    ),
    Case(
        "Study file",
        "study files that extend each other in a circle",
        circle,
        "study.yaml: extends: leads back to itself",
    ),
    Case(
        "Study file",
        "extends a file that is not there",
        lambda p: p.study(text="extends: base.yaml\n"),
        "base.yaml: cannot be read: No such file or directory",
    ),
    Case(
        "Study file",
        "keeps an ablation that the extended file does not have",
        keeps,
        "study.yaml: keep.ablations: there is no magic; available: dense, auxiliary",
    ),
    study("an unknown key", "study.yaml: blok_length: unknown key", ("blok_length", 64)),
    study(
        "a key by the name that it had once",
        "study.yaml: ablations.dense.optimizer.rate: unknown key; it is called lr now",
        ("base.optimizer.rate", 0.006),
    ),
    study(
        "an unknown key in a layer group",
        "study.yaml: base.model.layer_groups.first.block.mixer.heads: unknown key",
        ("base.model.layer_groups", {"first": {"layers": [0], "block": {"mixer": {"heads": 2}}}}),
    ),
    study(
        "a number in quotes",
        "study.yaml: block_length: input should be a valid integer, not '32'",
        ("block_length", "32"),
    ),
    study(
        "an unknown kind of filter",
        "study.yaml: domains.prose.filters.0: 'spelling' is not a kind of data/clean/filters; available: KINDS",
        ("domains.prose.filters", ["spelling"]),
    ),
    study(
        "an unknown option of a kind",
        "study.yaml: tokenizer.size: unknown key",
        ("tokenizer", {"kind": "bpe", "size": 300}),
    ),
    study(
        "a task of a kind that there is not",
        "study.yaml: evaluation.tasks.exam: 'magic' is not a kind of evaluation/task; available: KINDS",
        ("evaluation", {"tasks": {"exam": "magic"}}),
    ),
    study(
        "a task without a question",
        "study.yaml: evaluation.tasks.exam.questions: input should be greater than or equal to 1, not 0",
        ("evaluation", {"tasks": {"exam": {"kind": "copying", "questions": 0}}}),
    ),
    study(
        "tasks for the runs of an ablation that there is not",
        "study.yaml: evaluation.ablations: no ablation is called magic",
        ("evaluation", {"tasks": {"exam": "copying"}, "ablations": ["magic"]}),
    ),
    study(
        "a hypothesis about an ablation that there is not",
        "study.yaml: hypotheses.prevented: no ablation is called magic",
        ("hypotheses.prevented.arm", "magic"),
    ),
    study(
        "a hypothesis about a value that it does not name",
        "study.yaml: hypotheses.prevented: test value needs value",
        ("hypotheses.prevented.test", "value"),
    ),
    study(
        "a hypothesis about a share of runs without the limit that makes a run count",
        "study.yaml: hypotheses.prevented: test proportion needs either above or below, the limit that makes a run"
        " count",
        ("hypotheses.prevented.test", "proportion"),
    ),
    study(
        "a trend over arms of which the study lacks one",
        "study.yaml: hypotheses.slower: no ablation is called magic",
        (
            "hypotheses.slower",
            {
                "statement": "s",
                "statistic": "loss",
                "test": "trend",
                "arm": "auxiliary",
                "over": {"auxiliary": 1, "magic": 10},
                "direction": "less",
            },
        ),
    ),
    study(
        "a trend of differences that lacks what is subtracted from one of its arms",
        "study.yaml: hypotheses.slower: minus: needs exactly the arms of over, and differs in auxiliary",
        (
            "hypotheses.slower",
            {
                "statement": "s",
                "statistic": "loss",
                "test": "trend",
                "arm": "auxiliary",
                "over": {"auxiliary": 1, "unbalanced_fast": 10},
                "minus": {"unbalanced_fast": "frozen"},
                "direction": "less",
            },
        ),
    ),
    study(
        "Fisher's z of what is not a correlation",
        "study.yaml: hypotheses.prevented: scale: fisher_z is for correlations, and max_share is none",
        ("hypotheses.prevented.scale", "fisher_z"),
    ),
    study(
        "more experts a token than there are",
        "study.yaml: ablations.auxiliary.model.block.ffn: top_k: cannot choose 9 of 8 experts",
        (f"{FFN}.top_k", 9),
    ),
    study(
        "heads that do not divide the width",
        "study.yaml: ablations.dense.model: num_heads: 3 heads do not divide a width of 128",
        ("base.model.block.mixer.num_heads", 3),
    ),
    study(
        "a context shorter than the blocks",
        "study.yaml: ablations.dense: model.context 16 is shorter than block_length 32",
        ("base.model.context", 16),
    ),
    study(
        "a study whose name cannot be part of a path",
        "study.yaml: study: 'my study' is not a name: a to z, 0 to 9 and _, beginning with a letter",
        ("study", "my study"),
    ),
    study(
        "a domain with a no-break space in its name",
        "study.yaml: domains.'my\\xa0text': 'my\\xa0text' is not a name: a to z, 0 to 9 and _, beginning with a letter",
        ("domains.my\u00a0text", {"sources": {"own": {"kind": "files", "paths": ["corpus/prose.jsonl"]}}}),
    ),
    study(
        "weights of a domain that there is not",
        "study.yaml: mixture.weights: needs one for each of code, prose, not for code",
        ("mixture", {"kind": "weights", "weights": {"code": 1}}),
    ),
    study(
        "bands that do not divide the signature",
        "study.yaml: duplicates: bands: 7 does not divide 120 permutations",
        ("duplicates", {"bands": 7}),
    ),
    study(
        "swapped selectors, and no text to compare losses on",
        "study.yaml: analysis.interventions: swaps: needs text to compare losses on; set blocks to at least 1, or"
        " swaps: false",
        ("analysis.interventions", {"blocks": 0, "swaps": True}),
    ),
    study(
        "a branch where a commit belongs",
        "study.yaml: domains.prose.sources.prose.revision: string should match pattern "
        "'^([0-9a-f]{40}|refs/convert/[A-Za-z0-9_-]+|unpinned)$', not 'main'",
        (
            "domains.prose.sources.prose",
            {"kind": "hub", "dataset": "me/tiny", "revision": "main"},
        ),
    ),
    study(
        "a pattern that no file matches",
        "source prose: paths: no file matches corpus/verse*.jsonl in HERE",
        ("domains.prose.sources.prose.paths", ["corpus/verse*.jsonl"]),
    ),
    Case("Study file", "one name for two sources", two_sources, "domains: two different sources are called code"),
]
