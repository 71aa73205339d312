"""Verb: fit the tokenizer to the training text, or take a published one out of its archive."""

import argparse
import os
import pathlib
from collections.abc import Iterator

from speciate.data.documents import read_tables
from speciate.data.tokens import FittedTokenizer
from speciate.kinds import component
from speciate.plan import FitSpec
from speciate.spec import read_spec
from speciate.verb import run, say, writing


def texts_of(files: list[pathlib.Path]) -> Iterator[str]:
    """Every text of every file, in order."""
    for file in files:
        for table in read_tables(file, ["text"]):
            yield from table["text"].to_pylist()


def main() -> None:
    """Reads the command line, fits, writes."""
    parser = argparse.ArgumentParser(prog="python -m speciate.fit", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a FitSpec: the tokenizer's options")
    parser.add_argument(
        "--documents",
        type=pathlib.Path,
        nargs="*",
        default=[],
        help="train.parquet of every domain, in the study's order; a published tokenizer reads none",
    )
    parser.add_argument("--archive", type=pathlib.Path, help="the fetched archive of a published tokenizer")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help="where the tokenizer goes")
    parser.add_argument("--threads", type=int, default=1, help="they change the time, not the result (default: 1)")
    arguments = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)  # read by `tokenizers` at its first use
    options = read_spec(FitSpec, arguments.spec).tokenizer
    built = component(options).build(options, texts_of(arguments.documents), arguments.archive)
    fitted = FittedTokenizer(built.to_str(pretty=False) + "\n", options.kind)
    for name, content in fitted.files().items():
        with writing(arguments.output_folder / name) as aside:
            aside.write_bytes(content)
    say(f"{options.kind}: {fitted.manifest.vocabulary} entries, fingerprint {fitted.manifest.fingerprint[:10]}")


if __name__ == "__main__":
    run(main)
