"""The columns of the data card's tables, each with its type, meaning and unit.

A document counts for the domain of its source, even if a control's mixture relabels it later. Bytes are UTF-8. Shares
are between 0 and 1. A missing value is an empty field in csv and a null in parquet.
"""

_DOMAIN = {"domain": ("str", "the domain")}
_SPLIT = {"split": ("str", "train, validation, test or probe")}
_SHARE_READ = ("float64", "share of the documents that the domain's sources gave")

MEANINGS: dict[str, dict[str, tuple[str, str]]] = {
    # one row per domain and source
    "data_sources": {
        **_DOMAIN,
        "source": ("str", "the source's name in the study file"),
        "kind": ("str", "the kind of source, a file in data/fetch/sources"),
        "what": ("str", "the package, data set, generator or files that the source reads"),
        "pin": ("str", "version or revision; empty for a source that has neither"),
        "sha256": ("str", "sha256 of the pinned file; empty if the source is not pinned by one"),
        "licence": ("str", "licence, as the study file states it; empty if it does not"),
        "documents_read": ("int64", "documents that the source gave"),
        "documents_kept": ("int64", "documents that the filters kept; max_bytes and duplicates are applied later"),
        "bytes_read": ("int64", "bytes of the documents read"),
        "bytes_kept": ("int64", "bytes of the documents kept, after normalisation and edits"),
    },
    # one row per domain and split
    "data_domains": {
        **_DOMAIN,
        **_SPLIT,
        "documents": ("int64", "documents after filters, max_bytes and deduplication"),
        "groups": (
            "int64",
            "groups, which are never divided among splits: an article, a template, or else one text",
        ),
        "bytes": ("int64", "bytes of those documents"),
        "encoded": ("int64", "documents whose tokens are used; fewer only if max_tokens limits the training text"),
        "tokens": ("int64", "tokens of these documents, without end-of-text tokens"),
        "bytes_per_token": ("float64", "bytes of these documents over their tokens"),
        "lost_characters": ("int64", "characters of all documents, before max_tokens, that no token spells"),
        "lost_bytes": ("int64", "bytes of those characters"),
        "blocks": ("int64", "blocks that these tokens fill"),
        "tokens_lost": (
            "int64",
            "tokens in no block, end-of-text tokens included: the tail, or what the packing truncates",
        ),
        "blocks_used": ("int64", "blocks in the mixture (train) or in the held-out set, repeats included"),
        "tokens_used": ("int64", "blocks_used times the block length"),
        "epochs": ("float64", "blocks_used over blocks; above 1, text is trained on more than once"),
    },
    # one row per domain, stage and reason
    "data_drops": {
        **_DOMAIN,
        "stage": ("str", "clean (filters), sort (max_bytes), cluster (duplicates) or pack (max_tokens)"),
        "reason": ("str", "why the documents were dropped"),
        "documents": (
            "int64",
            "documents dropped for this reason; each document has one reason, the first that applies",
        ),
        "share": _SHARE_READ,
    },
    # one row per domain and filter that edits documents
    "data_edits": {
        **_DOMAIN,
        "filter": ("str", "the kind of filter"),
        "documents": ("int64", "kept documents that the filter edited"),
        "share": ("float64", "share of the documents that cleaning kept"),
    },
    # one row per domain, split, unit and octave that has documents
    "data_lengths": {
        **_DOMAIN,
        **_SPLIT,
        "unit": ("str", "tokens (without end-of-text) or characters"),
        "low": ("int64", "shortest length of the octave"),
        "high": ("int64", "longest length of the octave"),
        "documents": ("int64", "documents with a length in the octave"),
    },
    # one row per scope, reason, set of domains and size
    "data_duplicates": {
        "scope": ("str", "what was compared: one domain, or `domains` for all of them together"),
        "reason": ("str", "exact_duplicate: all texts are equal; near_duplicate: some are only similar"),
        "domains": ("str", "the domains of the cluster's documents"),
        "size": ("int64", "documents in a cluster, the kept one included"),
        "clusters": ("int64", "clusters of that size"),
    },
    # one row per ordered pair of splits of one domain, and per split and other domain's training text
    "data_overlaps": {
        **_DOMAIN,
        **_SPLIT,
        "in_domain": ("str", "the domain that the split is compared with"),
        "in_split": ("str", "the split of that domain"),
        "share": ("float64", "share of the first split's distinct 13-word n-grams that are in the second; estimated"),
        "standard_error": ("float64", "standard error of share, from sampling; 0 if all n-grams were compared"),
        "compared": ("int64", "n-grams that the estimate is based on"),
        "similarity": ("float64", "Jaccard similarity of the two sets of n-grams; estimated"),
    },
    # one row per sample document
    "data_samples": {
        **_DOMAIN,
        "what": ("str", "kept, dropped (by a filter), or duplicate (of another document)"),
        "split": ("str", "split of a kept document"),
        "reason": ("str", "reason of a dropped document"),
        "note": ("str", "what the filter measured or saw; for a duplicate, the size of its cluster"),
        "id": ("str", "the document's id"),
        "characters": ("int64", "length of the document"),
        "excerpt": ("str", "beginning of the document"),
        "of_id": ("str", "for a duplicate, the id of the document kept in its place"),
        "of_excerpt": ("str", "beginning of that document"),
    },
    # one row per domain, text, measure and value; only the most common first characters, prefixes and suffixes
    "data_formatting": {
        **_DOMAIN,
        "text": ("str", "raw: as the sources gave the text; clean: as it was kept"),
        "measure": ("str", "leading_space, trailing_space, unseen (characters), first (character), prefix or suffix"),
        "value": ("str", "the character's name, the first character, or the prefix or suffix that documents share"),
        "documents": ("int64", "documents that have this value"),
        "uncounted": (
            "int64",
            "upper bound on further documents that have it, since only the most common values are counted exactly",
        ),
        "share": ("float64", "documents over all documents of the domain in that text"),
    },
    # one row per warning
    "data_warnings": {
        **_DOMAIN,
        "stage": ("str", "the stage that gave the warning, or card"),
        "warning": ("str", "the warning"),
    },
}

COLUMNS = {table: {column: kind for column, (kind, _) in columns.items()} for table, columns in MEANINGS.items()}
"""Table -> column -> type, in the form that analysis/tables.py uses for the runs' tables."""

BLANK = {"data_samples": ("split", "reason", "note", "of_id", "of_excerpt")}
"""Table -> columns of text that belong to some kinds of rows only, and are empty in the others."""
