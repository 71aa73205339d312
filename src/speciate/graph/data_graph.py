"""Which spec each data stage reads and where it writes: the part of the graph that studies share.

A stage's files are in `results/data/<stage>/<name>-<key>/`, where the key stands for everything that made them (their
own settings and all upstream of them), so that a changed pin can never meet an old file. A domain's stages are spread
over its shards, `k-of-n`, a folder each below that one.
"""

import functools
import glob
import pathlib

from speciate.config.components import Strict
from speciate.config.contracts.data import SourceOptions
from speciate.config.data import Duplicates
from speciate.config.run import canonical_json
from speciate.config.stage_specs import (
    SPLITS,
    AssignSplitsSpec,
    BalanceSpec,
    BucketSpec,
    CleanSpec,
    ClusterSpec,
    EncodeSpec,
    FetchSpec,
    FitSpec,
    PackSpec,
    Part,
    SignSpec,
    SketchSpec,
    WriteSplitsSpec,
)
from speciate.config.study import Study
from speciate.graph.provenance import short_digest

WHOLE = "0-of-1"
"""The only shard of what is not cut."""
PER_DOMAIN = ("clean", "sign", "assign_splits", "write_splits", "sketch", "encode", "pack")
"""The stages that each domain goes through by itself."""


class DataGraph:
    """The paths and specs of the data stages of one study."""

    MIXTURE_FILES = (
        "mixture.json",
        "train.npy",
        *(f"{held_out}.{part}.npy" for held_out in SPLITS[1:] for part in ("tokens", "document", "domain")),
        *(f"{held_out}.documents.parquet" for held_out in SPLITS[1:]),
        "probe.types.npy",
    )
    """What the balance stage writes."""

    def __init__(self, study: Study, data: pathlib.Path) -> None:
        self.study = study
        self.data = data

    @functools.cached_property
    def sources(self) -> dict[str, SourceOptions]:
        """Every source that the study fetches, by name: of domains, filters, a published tokenizer, and starts.

        Raises:
            ValueError: one name means two different sources.
        """
        found: dict[str, SourceOptions] = {}
        given = [item for domain in self.study.domains for item in self.sources_of(domain).items()]
        published = self.study.tokenizer.published_archive()
        if published is not None:
            given.append(("tokenizer", published))
        given += self.starts.items()
        for name, options in given:
            if found.setdefault(name, options) != options:
                raise ValueError(f"domains: two different sources are called {name}")
        return found

    @functools.cached_property
    def starts(self) -> dict[str, SourceOptions]:
        """The sources that hold what runs start from, by name."""
        origins = [run.start.origin_options() for run in self.study.runs()]
        return {name: source for origin in origins if origin for name, source in origin.sources().items()}

    def start_archive(self, name: str) -> pathlib.Path:
        """The archive of one of `starts`."""
        return self.folder("fetch", name) / WHOLE / "archive"

    def sources_of(self, domain: str) -> dict[str, SourceOptions]:
        """The sources that a domain's `clean` reads: its own, and those that its filters compare with."""
        mine = self.study.domains[domain]
        found = dict(mine.sources)
        for options in mine.filters:
            for name, source in options.compared_sources().items():
                if found.setdefault(name, source) != source:
                    raise ValueError(f"domains.{domain}: two different sources are called {name}")
        return found

    def fetched(self, domain: str, shard: str) -> dict[str, pathlib.Path]:
        """The archive of each source that one shard of a domain reads. A source that cannot be cut is fetched once."""
        return {
            name: self.folder("fetch", name) / (shard if self._cut(domain, name) else WHOLE) / "archive"
            for name in self.sources_of(domain)
        }

    def fetches(self, source: str) -> list[str]:
        """The shards in which a source is fetched, over all the domains that read it."""
        shards = {
            shard
            for domain in self.study.domains
            if source in self.sources_of(domain)
            for shard in (self.shards(domain) if self._cut(domain, source) else [WHOLE])
        }
        return sorted(shards or {WHOLE})

    def _cut(self, domain: str, source: str) -> bool:
        mine = self.study.domains[domain].sources
        return source in mine and mine[source].sharded

    def local_files(self, source: str) -> list[str]:
        """The user's own files that a source names by globs, relative to where the workflow runs; sorted.

        Raises:
            ValueError: no file matches; names the source.
        """
        globs = self.sources[source].local_globs()
        files = sorted({file for pattern in globs for file in glob.glob(pattern, recursive=True)})
        if globs and not files:
            raise ValueError(f"source {source}: paths: no file matches {', '.join(globs)} in {pathlib.Path.cwd()}")
        return files

    def shards(self, domain: str) -> list[str]:
        """The names of a domain's shards, `k-of-n`."""
        count = self.study.domains[domain].shards
        return [f"{index}-of-{count}" for index in range(count)]

    def scope(self, domain: str) -> str:
        """What a domain's documents are compared with: `domains`, all of them, or the domain by itself."""
        return "domains" if self.study.duplicates.across_domains else domain

    @functools.cached_property
    def scopes(self) -> dict[str, list[str]]:
        """Scope -> its domains."""
        found: dict[str, list[str]] = {}
        for domain in self.study.domains:
            found.setdefault(self.scope(domain), []).append(domain)
        return found

    def near(self, scope: str) -> Duplicates | None:
        """How near-duplicates are found in a scope; None where no domain of it asks for them."""
        asked = any(self.study.domains[domain].duplicates == "near" for domain in self.scopes[scope])
        return self.study.duplicates if asked else None

    def pairs(self, scope: str) -> list[pathlib.Path]:
        """The pairs of similar documents that a scope's `bucket` jobs find, a file each."""
        near = self.near(scope)
        count = 0 if near is None else near.buckets
        return [self.folder("bucket", scope) / f"{index}-of-{count}" / "pairs.npy" for index in range(count)]

    def parts(self, stage: str, domain: str) -> list[pathlib.Path]:
        """The folders of all shards of a domain's stage."""
        return [self.folder(stage, domain) / shard for shard in self.shards(domain)]

    @property
    def tokenizer_archive(self) -> list[pathlib.Path]:
        """The archive of a published tokenizer; none for one that is fitted here."""
        published = self.study.tokenizer.published_archive()
        return [] if published is None else [self.folder("fetch", "tokenizer") / WHOLE / "archive"]

    @functools.cache  # noqa: B019 (one Plan lives as long as its process)
    def folder(self, stage: str, name: str) -> pathlib.Path:
        """The folder of a data stage; the files of one shard or job are in a folder of its own below it.

        Args:
            stage: a data stage's verb.
            name: a source for fetch, a scope for bucket and cluster, 'tokenizer' for fit, 'mixture' for balance, else a
                domain.
        """
        domains = list(self.study.domains)
        upstream: list[tuple[str, list[str]]] = {
            "fetch": [],
            "clean": [("fetch", list(self.sources_of(name)))] if stage == "clean" else [],
            "sign": [("clean", [name])],
            "bucket": [("sign", self.scopes.get(name, []))],
            "cluster": [("sign", self.scopes.get(name, []))],
            "assign_splits": [("sign", [name]), ("cluster", [self.scope(name)])],
            "write_splits": [("clean", [name]), ("assign_splits", [name])],
            "sketch": [("write_splits", [name])],
            "fit": [("write_splits", domains), ("fetch", ["tokenizer"] if "tokenizer" in self.sources else [])],
            "encode": [("write_splits", [name]), ("fit", ["tokenizer"])],
            "pack": [("encode", [name])],
            "balance": [("pack", domains)],
        }[stage]
        folders = [self.folder(before, each).name for before, names in upstream for each in names]
        return self.data / stage / f"{name}-{short_digest(canonical_json(self.spec(stage, name)), *folders)}"

    def spec(self, stage: str, name: str) -> Strict:
        """The spec that a data stage reads."""
        study = self.study
        if stage == "fetch":
            return FetchSpec(name=name, source=self.sources[name])
        if stage in ("bucket", "cluster"):
            near, parts = self.near(name), tuple(self._part(domain) for domain in self.scopes[name])
            if stage == "cluster":
                return ClusterSpec(scope=name, parts=parts, near=near, seed=study.split.seed)
            assert near is not None
            return BucketSpec(scope=name, parts=parts, near=near)
        if stage == "fit":
            return FitSpec(tokenizer=study.tokenizer)
        if stage == "balance":
            return BalanceSpec(
                domains=tuple(study.domains),
                shards=tuple(domain.shards for domain in study.domains.values()),
                mixture=study.mixture,
                held_out=study.held_out,
            )
        return self._spec_of_domain(stage, name)

    def _part(self, domain: str) -> Part:
        mine = self.study.domains[domain]
        return Part(name=domain, shards=mine.shards, duplicates=mine.duplicates)

    def _spec_of_domain(self, stage: str, name: str) -> Strict:
        study, domain = self.study, self.study.domains[name]
        shards = domain.shards
        if stage == "clean":
            return CleanSpec(
                domain=name, sources=domain.sources, filters=domain.filters, max_bytes=domain.max_bytes, shards=shards
            )
        if stage == "sign":
            return SignSpec(domain=name, seed=study.split.seed, near=self.near(self.scope(name)))
        if stage == "assign_splits":
            return AssignSplitsSpec(domain=name, split=study.split, shards=shards)
        if stage == "write_splits":
            return WriteSplitsSpec(domain=name, shards=shards, seed=study.split.seed)
        if stage == "sketch":
            return SketchSpec(domain=name)
        if stage == "encode":
            return EncodeSpec(domain=name, language=domain.language, max_tokens=domain.max_tokens, shards=shards)
        if stage == "pack":
            return PackSpec(domain=name, packing=study.packing, block_length=study.block_length)
        raise ValueError(f"no data stage is called {stage}")

    def data_specs(self) -> dict[pathlib.Path, Strict]:
        """Every spec file of the data stages, by its path."""
        named = {"fetch": list(self.sources), "cluster": list(self.scopes), "fit": ["tokenizer"]}
        named |= {"bucket": [scope for scope in self.scopes if self.near(scope)], "balance": ["mixture"]}
        named |= {stage: list(self.study.domains) for stage in PER_DOMAIN}
        return {
            self.folder(stage, name) / "spec.json": self.spec(stage, name)
            for stage, names in named.items()
            for name in names
        }
