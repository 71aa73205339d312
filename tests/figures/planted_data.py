"""Make a data card's tables with a planted answer: code is largest, prose is repeated, math has many short texts."""

import math
from itertools import product
from typing import Any

import pandas as pd

from speciate.data.card.columns import COLUMNS

SPLITS = {"train": 0.75, "validation": 0.05, "test": 0.1, "probe": 0.1}
SIZES = {"code": (1713, 12_900_000, 2.2), "math": (7700, 3_900_000, 3.9), "prose": (96, 2_700_000, 4.6)}
BLOCK = 128
DROPS = (
    ("clean", "too_short", 0.04),
    ("clean", "gopher_symbols", 0.11),
    ("clean", "contaminated", 0.0004),
    ("cluster", "exact_duplicate", 0.02),
    ("cluster", "near_duplicate", 0.007),
)


def size_of(domain: str) -> tuple[int, int, float]:
    """Return the documents, bytes and bytes per token of a domain; an invented domain is like prose."""
    return SIZES.get(domain, (400, 1_500_000 + 10_000 * len(domain), 4.4))


def tables(domains: tuple[str, ...] = ("code", "math", "prose"), duplicates: bool = True) -> dict[str, pd.DataFrame]:
    """Make every table of a planted card."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    least = min(int(0.75 * size / each) // BLOCK for _, size, each in map(size_of, domains))
    for domain in domains:
        _domain(rows, domain, least)
        _read(rows, domain)
        for other, split in product(domains, SPLITS):
            if domain != other or split != "train":
                rows["data_overlaps"].append(_overlap(domain, split, other))
        if duplicates:
            for size, clusters, reason in (
                (2, 40, "exact_duplicate"),
                (3, 4, "near_duplicate"),
                (19, 1, "near_duplicate"),
            ):
                row = {"scope": domain, "reason": reason, "domains": domain, "size": size, "clusters": clusters}
                rows["data_duplicates"].append(row)
    for text, share in (("raw", 0.62), ("clean", 0.62)):
        row = {"domain": domains[0] if "math" not in domains else "math", "text": text, "measure": "prefix"}
        result = {"value": "Question: ", "documents": 4774, "uncounted": 3, "share": share}
        rows["data_formatting"].append({**row, **result})
    row = {"domain": domains[-1], "text": "raw", "measure": "unseen", "value": "U+00A0 NO-BREAK SPACE"}
    rows["data_formatting"].append({**row, "documents": 3, "uncounted": 0, "share": 0.03})
    text = "prose has 0.3 times the tokens of code; every domain is cut to 3000 blocks"
    rows["data_warnings"].append({"domain": "", "stage": "balance", "warning": text})
    return {
        name: pd.DataFrame(result, columns=list(COLUMNS[name])).astype(COLUMNS[name]) for name, result in rows.items()
    }


def _domain(rows: dict[str, list[dict[str, Any]]], domain: str, least: int) -> None:
    documents, size, each = size_of(domain)
    for split, part in SPLITS.items():
        tokens = int(part * size / each)
        used = min(least, tokens // BLOCK) if split == "train" else min(60, tokens // BLOCK)
        used = 2 * used if domain == "prose" and split == "train" else used
        row = {
            "domain": domain,
            "split": split,
            "documents": int(part * documents),
            "groups": int(part * documents),
            "bytes": int(part * size),
            "encoded": int(part * documents),
            "tokens": tokens,
            "bytes_per_token": each,
            "lost_characters": 0,
            "lost_bytes": 0,
            "blocks": tokens // BLOCK,
            "tokens_lost": tokens % BLOCK,
            "blocks_used": used,
            "tokens_used": used * BLOCK,
            "epochs": used / (tokens // BLOCK),
        }
        rows["data_domains"].append(row)
        middle = math.log2(tokens / (part * documents))
        for unit, shift in (("tokens", 0.0), ("characters", math.log2(each))):
            for octave in range(18):
                count = round(part * documents * 0.4 * math.exp(-0.5 * (octave + 0.5 - middle - shift) ** 2))
                if count:
                    at = {
                        "domain": domain,
                        "split": split,
                        "unit": unit,
                        "low": 2**octave,
                        "high": 2 ** (octave + 1) - 1,
                    }
                    rows["data_lengths"].append({**at, "documents": count})


def _read(rows: dict[str, list[dict[str, Any]]], domain: str) -> None:
    documents, size, _ = size_of(domain)
    read = int(documents / (1 - sum(share for _, _, share in DROPS)))
    for stage, reason, share in DROPS:
        row = {"domain": domain, "stage": stage, "reason": reason, "documents": int(share * read), "share": share}
        if row["documents"] and (domain, reason) != ("math", "gopher_symbols"):
            rows["data_drops"].append(row)
    for index, source in enumerate(("first", "second")[: 2 if domain == "code" else 1]):
        rows["data_sources"].append(
            {
                "domain": domain,
                "source": f"{domain}_{source}",
                "kind": "package",
                "what": f"{domain}-texts",
                "pin": "5.2.19",
                "sha256": f"{index}5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca0",
                "licence": "BSD-3-Clause" if domain == "code" else "",
                "documents_read": read,
                "documents_kept": documents,
                "bytes_read": int(1.2 * size),
                "bytes_kept": size,
            }
        )
    rows["data_edits"].append({"domain": domain, "filter": "personal", "documents": 12, "share": 12 / read})
    for what, reason in (
        ("kept", ""),
        ("dropped", "gopher_symbols"),
        ("dropped", "too_short"),
        ("duplicate", "near_duplicate"),
    ):
        for index in range(3):
            text = f"The {index}th {what} text of {domain}: <b>markup</b> & " + "words that go on, " * 30
            row = {"domain": domain, "what": what, "split": "train" if what == "kept" else "", "reason": reason}
            row |= {"note": "symbols a word 0.31" if reason else "", "id": f"{domain}/{what}{index}", "characters": 900}
            row |= {"excerpt": text[:600], "of_id": "", "of_excerpt": ""}
            if what == "duplicate":
                row |= {"note": "3 in its cluster", "of_id": f"{domain}/kept0", "of_excerpt": text[:580] + " changed"}
            rows["data_samples"].append(row)


def _overlap(domain: str, split: str, other: str) -> dict[str, Any]:
    share = 0.012 if domain == other else 0.0003 if domain < other else 0.0
    row = {"domain": domain, "split": split, "in_domain": other, "in_split": "train", "share": share}
    return {**row, "standard_error": 0.1 * share, "compared": 12000, "similarity": share / 2}
