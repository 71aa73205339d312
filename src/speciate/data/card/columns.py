"""The columns of the data card's tables, each with its type, its meaning and its unit.

A document is counted in the domain of its source, whatever a control's mixture calls it later. Bytes are UTF-8. Shares
are 0 to 1. A value that does not exist is an empty field and a null.
"""

_DOMAIN = {"domain": ("str", "the domain")}
_SPLIT = {"split": ("str", "train, validation, test or probe")}
_SHARE_READ = ("float64", "of the documents that the domain's sources gave")

MEANINGS: dict[str, dict[str, tuple[str, str]]] = {
    # one row a domain and source
    "data_sources": {
        **_DOMAIN,
        "source": ("str", "its name in the study file"),
        "kind": ("str", "the kind of source, a file of data/fetch/sources"),
        "what": ("str", "the package, data set, generator or files that it reads"),
        "pin": ("str", "version or revision; empty: neither is part of such a source"),
        "sha256": ("str", "of the pinned file; empty: not pinned by it"),
        "licence": ("str", "as the study file states it; empty: not stated"),
        "documents_read": ("int64", "texts that the source gave"),
        "documents_kept": ("int64", "of them, those that the filters kept; duplicates are found later"),
        "bytes_read": ("int64", "bytes of the texts read"),
        "bytes_kept": ("int64", "bytes of the texts kept, after normalising and edits"),
    },
    # one row a domain and split
    "data_domains": {
        **_DOMAIN,
        **_SPLIT,
        "documents": ("int64", "after filters and deduplication"),
        "groups": ("int64", "what never straddles splits: an article, a template; else the document"),
        "bytes": ("int64", "bytes of those documents"),
        "encoded": ("int64", "documents encoded: fewer only where max_tokens cuts the training text"),
        "tokens": ("int64", "tokens of the encoded documents, end-of-text not counted"),
        "bytes_per_token": ("float64", "bytes of the encoded documents over their tokens"),
        "blocks": ("int64", "blocks that they fill"),
        "tokens_lost": ("int64", "tokens in no block, end-of-text included: the tail, or what the packing cuts off"),
        "blocks_used": ("int64", "blocks in the mixture (train) or in the held-out set, repeats counted"),
        "tokens_used": ("int64", "blocks_used times the block length"),
        "epochs": ("float64", "blocks_used over blocks; above 1 the same text is trained on again"),
    },
    # one row a domain, stage and reason
    "data_drops": {
        **_DOMAIN,
        "stage": ("str", "clean (filters), cluster (duplicates) or encode (max_tokens)"),
        "reason": ("str", "why"),
        "documents": ("int64", "documents dropped for it; a document has one reason, the first"),
        "share": _SHARE_READ,
    },
    # one row a domain and filter that alters documents
    "data_edits": {
        **_DOMAIN,
        "filter": ("str", "the kind of filter"),
        "documents": ("int64", "kept documents that it altered"),
        "share": ("float64", "of the documents that cleaning kept"),
    },
    # one row a domain, split, unit and octave that has documents
    "data_lengths": {
        **_DOMAIN,
        **_SPLIT,
        "unit": ("str", "tokens (end-of-text not counted) or characters"),
        "low": ("int64", "shortest length of the octave"),
        "high": ("int64", "longest length of the octave"),
        "documents": ("int64", "documents of such a length"),
    },
    # one row a scope, reason, set of domains and size
    "data_duplicates": {
        "scope": ("str", "what was compared: a domain, or domains, all of them together"),
        "reason": ("str", "exact_duplicate: equal texts; near_duplicate: some only similar"),
        "domains": ("str", "the domains that the cluster's documents are of"),
        "size": ("int64", "documents in a cluster, the kept one included"),
        "clusters": ("int64", "clusters of that size"),
    },
    # one row an ordered pair of splits of one domain, and of a domain's split and another domain's training text
    "data_overlaps": {
        **_DOMAIN,
        **_SPLIT,
        "in_domain": ("str", "the domain it is compared with"),
        "in_split": ("str", "and its split"),
        "share": ("float64", "of the first's distinct runs of 13 words, the part that the second has too; estimated"),
        "standard_error": ("float64", "of share, by sampling; 0 where all runs were compared"),
        "compared": ("int64", "runs that the estimate rests on"),
        "similarity": ("float64", "Jaccard similarity of the two sets of runs; estimated"),
    },
    # one row a document to read
    "data_samples": {
        **_DOMAIN,
        "what": ("str", "kept, dropped (by a filter), or duplicate (dropped for another one's sake)"),
        "split": ("str", "of a kept one"),
        "reason": ("str", "of a dropped one"),
        "note": ("str", "what was measured or seen in it; of a duplicate: how many its cluster has"),
        "id": ("str", "the document"),
        "characters": ("int64", "its length"),
        "excerpt": ("str", "its beginning"),
        "of_id": ("str", "of a duplicate: the document kept in its place"),
        "of_excerpt": ("str", "its beginning"),
    },
    # one row a domain, text, measure and value; of first characters, beginnings and ends the commonest few
    "data_formatting": {
        **_DOMAIN,
        "text": ("str", "raw: as the sources gave it; clean: as it was kept"),
        "measure": ("str", "leading_space, trailing_space, unseen (characters), first (character), prefix or suffix"),
        "value": ("str", "the character's name, the first character, or the beginning or end that documents share"),
        "documents": ("int64", "documents that have it"),
        "uncounted": ("int64", "how many more may have it: only the commonest are counted to the end"),
        "share": ("float64", "documents over all documents of that text"),
    },
    # one row a warning
    "data_warnings": {
        **_DOMAIN,
        "stage": ("str", "the stage that gave it, or card"),
        "warning": ("str", "what a reader should know"),
    },
}

COLUMNS = {table: {column: kind for column, (kind, _) in columns.items()} for table, columns in MEANINGS.items()}
"""Table -> column -> type, as analysis/tables.py has them for the runs."""
