"""Compare the search for near-duplicates with `datasketch` and `rensa`, on 2310 licence texts.

    python benchmarks/near_duplicates.py [--sample N]

The peers are used as their documentation shows, in the same run. Ours goes all the way through the stages, files
included: documents.parquet, signatures, buckets, candidates compared by their shingles, clusters. The peers start
from texts in memory: shingles in Python (the same words, runs of five, as strings), MinHash of 128 values, and their
LSH index at a threshold of 0.8. The texts are those of a pinned package, fetched as a study fetches them. Since the
machine may be shared, CPU time is measured in rounds that take every alternative in turn, and the median of 5 is
reported.

The output also says how far each agrees with an exact comparison of all pairs of a sample. Precision and recall count
pairs that are in one cluster; clusters are connected components of pairs with a similarity of at least 0.8.
"""

import argparse
import json
import pathlib
import re
import tempfile
from collections.abc import Callable

import datasketch
import numpy as np
import numpy.typing as npt
import rensa
import scipy.sparse
from timing import medians, show

from speciate.config.components import component_module, options_of
from speciate.config.data import Duplicates
from speciate.data.dedup.candidates import SignedScope, find_similar_pairs
from speciate.data.dedup.clusters import NEAR, cluster_documents
from speciate.data.dedup.signatures import SIGNATURE_FILES, read_signed_shards, sign_documents
from speciate.data.dedup.union_find import connected_components
from speciate.data.documents import Document, write_documents
from speciate.data.shard import Shard

SOURCE = {
    "kind": "package",
    "name": "licensedcode-data",
    "version": "32.1.0",
    "file": "licensedcode_data-32.1.0-py3-none-any.whl",
    "sha256": "18f60bde6dbabbc0a925d45ed80089cdbb7168156a2a1c118737198f9b743b96",
    "include": ["*/licenses/*.LICENSE"],
    "reader": "text",
}
SETTINGS = Duplicates(ngram=5, similarity=0.8, permutations=120, bands=20)
REPEATS = 5
WORDS = re.compile(r"\w+")
Labels = npt.NDArray[np.int64]
"""The cluster of each document, (D,)."""


def texts(folder: pathlib.Path) -> list[str]:
    """Return the licence texts, in the package's order."""
    options = options_of("data/fetch/sources", "package").model_validate(SOURCE)
    source = component_module(options)
    source.fetch(options, "licences", folder / "archive", Shard(0, 1))
    return [passage.text for passage in source.read(options, "licences", folder / "archive")]


def ours(folder: pathlib.Path) -> Labels:
    """Return our clusters of the documents in `folder`."""
    sign_documents(
        folder / "documents.parquet", {name: folder / "0-of-1" / name for name in SIGNATURE_FILES}, 0, SETTINGS
    )
    scope = SignedScope(read_signed_shards("licences", folder, 1))
    pairs = find_similar_pairs(scope, range(SETTINGS.bands), SETTINGS.similarity)
    policies = np.full(len(scope), NEAR, np.int8)
    clusters = cluster_documents(
        scope.first_of_same_text(), [pairs], policies, lambda asked: scope.similarities(asked) >= SETTINGS.similarity
    )
    alone = np.arange(len(scope)) + len(clusters.sizes())
    return np.where(clusters.clusters_D < 0, alone, clusters.clusters_D)


def shingled(text: str) -> set[str]:
    """Return the runs of five words of a text, computed as is usual in Python."""
    words = WORDS.findall(text.lower())
    return {" ".join(words[start : start + 5]) for start in range(max(1, len(words) - 4))}


def by_datasketch(corpus: list[str]) -> Labels:
    """Return clusters by MinHashLSH: each text is looked up, joined with its matches, and then inserted."""
    index = datasketch.MinHashLSH(threshold=0.8, num_perm=128)
    pairs = []
    for place, text in enumerate(corpus):
        sketch = datasketch.MinHash(num_perm=128)
        sketch.update_batch([shingle.encode() for shingle in shingled(text)])
        pairs += [(other, place) for other in index.query(sketch)]
        index.insert(place, sketch)
    return connected_components(len(corpus), np.array(pairs, np.int64).reshape(-1, 2))


def by_rensa(corpus: list[str]) -> npt.NDArray[np.bool_]:
    """Return which texts RMinHashDeduplicator keeps; it gives no clusters."""
    index = rensa.RMinHashDeduplicator(threshold=0.8, num_perm=128, use_lsh=True)
    return np.array(index.add_pairs((str(place), list(shingled(text))) for place, text in enumerate(corpus)))


def exact(corpus: list[str]) -> Labels:
    """Return clusters by the exact similarity of all pairs."""
    sets = [shingled(text) for text in corpus]
    numbers = {shingle: number for number, shingle in enumerate(sorted(set().union(*sets)))}
    columns = [numbers[shingle] for each in sets for shingle in each]
    sizes = np.array([len(each) for each in sets])
    ends = np.concatenate([[0], np.cumsum(sizes)])
    member = scipy.sparse.csr_array((np.ones(len(columns), np.int32), columns, ends), (len(sets), len(numbers)))
    shared = scipy.sparse.triu(member @ member.T, 1).tocoo()
    alike = shared.data >= 0.8 * (sizes[shared.row] + sizes[shared.col] - shared.data)
    return connected_components(len(sets), np.stack([shared.row[alike], shared.col[alike]], axis=1).astype(np.int64))


def agreement(labels: Labels, exact_labels: Labels) -> dict[str, float]:
    """Return the precision and recall of pairs that share a cluster."""
    predicted, true = (cluster_D[:, None] == cluster_D for cluster_D in (labels, exact_labels))
    num_both, num_predicted, num_true = (int(np.triu(pairs, 1).sum()) for pairs in (predicted & true, predicted, true))
    lost = len(labels) - len(np.unique(labels))
    return {
        "precision": round(num_both / num_predicted, 4),
        "recall": round(num_both / num_true, 4),
        "duplicates": lost,
    }


def compare(corpus: list[str], folder: pathlib.Path) -> None:
    """Print how far the clusters of a sample agree with exact ones."""
    write(folder, corpus)
    exact_labels = exact(corpus)
    ways: dict[str, Callable[[], Labels]] = {"ours": lambda: ours(folder), "datasketch": lambda: by_datasketch(corpus)}
    agreements = {name: agreement(way(), exact_labels) for name, way in ways.items()}
    agreements["exact"] = {"duplicates": len(exact_labels) - len(np.unique(exact_labels))}
    agreements["rensa"] = {"duplicates": int((~by_rensa(corpus)).sum())}
    title = f"near-duplicates: clusters of {len(corpus)} licence texts against exact ones"
    print(json.dumps({"benchmark": title, "cpu_ms": {}, "ours_over": {}, "agreement": agreements}), flush=True)


def write(folder: pathlib.Path, corpus: list[str]) -> None:
    """Write the corpus in the format of `clean`."""
    (folder / "0-of-1").mkdir(exist_ok=True)
    rows = (Document(str(place), "licences", str(place), text) for place, text in enumerate(corpus))
    write_documents(folder / "documents.parquet", rows)


def main() -> None:
    """Time each way on all texts, then compare clusters on a sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=2000, help="documents compared exactly (default: %(default)s)")
    sample = parser.parse_args().sample
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        corpus = texts(folder)
        write(folder, corpus)
        seconds = medians(
            {
                "datasketch": lambda: by_datasketch(corpus),
                "rensa": lambda: by_rensa(corpus),
                "ours": lambda: ours(folder),
            },
            REPEATS,
        )
        size = sum(len(text.encode()) for text in corpus) / 1e6
        title = f"near-duplicates of {size:.1f} MB, shingling included"
        show(title, seconds, "ours", {"datasketch": 1 / 10, "rensa": 1.0})
        chosen = np.random.default_rng(0).permutation(len(corpus))[:sample]
        compare([corpus[place] for place in np.sort(chosen)], folder)


if __name__ == "__main__":
    main()
