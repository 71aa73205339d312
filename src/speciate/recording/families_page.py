"""Write docs/recorded_families.md: which families of transformers' models are recorded, and how.

A test compares the page with what this file writes: `python -m speciate.recording.families_page > docs/...`.
"""

from speciate.recording.families import READ, REFUSED, Family

HEAD = """# Families whose routing is recorded

`speciate.recording` reads the routing of a model of
[transformers](https://huggingface.co/docs/transformers) by ordinary forward hooks, without a change to the model: its
output keeps every bit. A family is a folder of `transformers.models`; this page lists those of transformers {version}
that have routed experts or choose the keys of their attention. A multimodal model is read through its language model.

For each family a test at a tiny size checks that

- the recorded choices are those that its experts serve: altering an expert's weights changes the output of exactly the
  tokens that chose it, and of no other;
- the probabilities are the family's own: its weights of the chosen experts are in proportion to them;
- k and the number of experts are those of its configuration, shared experts are left apart, and padding is left out;
- a generated token is routed as it is when the whole text is read at once, prompt and generation apart;
- an expert that is knocked out serves nobody, and its tokens go to their next best by the family's own rule.

`scores` is what the router makes of its logits: `softmax`, or `sigmoid` (or `sqrtsoftplus`) of each expert by itself.
The probabilities of a record are these scores divided by their sum, before any balancing bias. Chosen slots are in the
order of the scores, whatever order the model has them in. Where the choice depends on a learned `bias` or on `groups`
of experts, too, a margin below 0 is a choice that the scores alone would not have made. `keys` are those that an
indexer of sparse attention chooses, recorded as their distance from the query in powers of two, with a slot of its own
for a text's first token.

## Recorded

| family | records | scores | and | to know |
|---|---|---|---|---|
"""
REFUSED_HEAD = """
## Refused by name

| family | reason |
|---|---|
"""
OTHER = """
Models of this package, exported or in a run's folder, are read by the same hooks: routers of experts, of projections
(RoM) and of depth (MoD), and the indexer of sparse attention. A model whose family is not listed, from a newer
transformers or a folder's own code, is recorded without probabilities if its router stands beside experts that are
called with indices and weights; otherwise it is refused by name.
"""
KEYS = (
    *("axk2", "deepseek_v32", "deepseek_v4", "dots3_note", "glm5_next", "glm_moe_dsa", "hy_v4", "minimax_m3_vl"),
    *("mistral_large4", "qwen4_exp"),
)
"""Families that have an indexer of sparse attention, too."""
ATTENTION_EXPERTS = ("jetmoe",)


def page(version: str) -> str:
    """Return the page, for a version of transformers."""
    rows = "".join(_row(name, family) for name, family in sorted(READ.items()))
    refused = "".join(f"| `{name}` | {reason} |\n" for name, reason in sorted(REFUSED.items()))
    return HEAD.replace("{version}", version) + rows + REFUSED_HEAD + refused + OTHER


def _row(name: str, family: Family) -> str:
    records = "experts, attention experts" if name in ATTENTION_EXPERTS else "experts"
    records += ", keys" if name in KEYS else ""
    scores = f"as `{family.scores_setting}` says" if family.scores_setting else family.scores
    also = ", ".join(word for word, holds in (("bias", family.biased), ("groups", family.grouped)) if holds)
    missing = f"Not recorded from texts: {family.needs_images}." if family.needs_images else ""
    remarks = " ".join(filter(None, (family.remark, missing)))
    return f"| `{name}` | {records} | {scores} | {also} | {remarks} |\n"


if __name__ == "__main__":
    from transformers import __version__

    print(page(__version__), end="")
