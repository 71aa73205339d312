"""The part of the graph that studies share: the data stages, their folders, specs and files.

A stage's files are in `results/data/<stage>/<name>-<key>/`. The key is a digest of everything that made them: the
stage's own settings and all that is upstream of it. So a study with a changed pin never reads an old file. The
files of a sharded stage are one level deeper, in a folder for each shard, `k-of-n`.
"""

import functools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from speciate.config.components import Strict
from speciate.config.contracts.data import SourceOptions, matching_paths
from speciate.config.data import ComparedDomain, Duplicates, Split
from speciate.config.run import canonical_json
from speciate.config.study import Study
from speciate.graph.file_content import FileContents
from speciate.graph.provenance import short_digest
from speciate.graph.stage_table import data_stages

WHOLE = "0-of-1"
"""The name of the only shard of a stage, source or domain that is not sharded."""


class DataGraph:
    """The paths and specs of the data stages of one study."""

    def __init__(self, study: Study, data: pathlib.Path, contents: FileContents | None = None) -> None:
        self.study = study
        self.data = data
        self.contents = contents or FileContents()
        self.stages = data_stages()

    # What a study's texts are made of.

    @functools.cached_property
    def sources(self) -> Mapping[str, SourceOptions]:
        """Every source that the study fetches, by name: of domains, filters, a published tokenizer, and starts."""
        return _Sources(self)

    def check_sources(self) -> None:
        """Raise ValueError where two different sources have one name."""
        named = [item for domain in self.study.domains for item in self.sources_of(domain).items()]
        named += [*self.tokenizer_source.items(), *self.start_sources.items()]
        for name, options in named:
            if self.sources[name] != options:
                raise ValueError(f"domains: two different sources are called {name}")

    def sources_of(self, domain: str) -> dict[str, SourceOptions]:
        """Return the sources that `clean` reads for a domain: its own, and those that its filters compare with."""
        settings = self.study.domains[domain]
        sources = dict(settings.sources)
        for options in settings.filters:
            for name, source in options.compared_sources().items():
                if sources.setdefault(name, source) != source:
                    raise ValueError(f"domains.{domain}: two different sources are called {name}")
        return sources

    @property
    def tokenizer_source(self) -> dict[str, SourceOptions]:
        """The source of a published tokenizer, by name; empty for a tokenizer that is fitted here."""
        published = self.study.tokenizer.published_archive()
        return {} if published is None else {"tokenizer": published}

    @functools.cached_property
    def start_sources(self) -> dict[str, SourceOptions]:
        """The sources that hold what runs start from, by name. All seeds of an ablation start from the same ones."""
        runs = [self.study.run(ablation, self.study.seeds[0]) for ablation in self.study.ablations]
        origins = [run.start.origin_options() for run in runs]
        return {name: source for origin in origins if origin for name, source in origin.sources().items()}

    def start_archive(self, name: str) -> pathlib.Path:
        """Return the archive of one of `start_sources`."""
        return self.folder("fetch", name) / WHOLE / "archive"

    def local_files(self, source: str) -> list[str]:
        """Return the user's own files that a source names by globs, relative to where the workflow runs; sorted.

        Raises:
            ValueError: no file matches; names the source.
        """
        return self._matching_files(source, self.sources[source])

    @staticmethod
    def _matching_files(source: str, options: SourceOptions) -> list[str]:
        """Return what `local_files` does, of a source that need not be one of the study's domains."""
        globs = options.local_globs()
        matched = {path for pattern in globs for path in matching_paths(pattern)}
        if globs and not matched:
            raise ValueError(f"source {source}: paths: no file matches {', '.join(globs)} in {pathlib.Path.cwd()}")
        return sorted(path for path in matched if os.path.isfile(path))  # `fetch` says what to write for a folder

    @functools.cache  # noqa: B019 (one graph lives as long as its process, and plans with one state of the files)
    def local_content(self, source: str) -> str:
        """Return a digest of the user's own files that a source reads; empty for a source that reads none."""
        files = self.local_files(source)
        return self.contents.digest(files) if files else ""

    # Text outside training.

    def text_folder(self, name: str) -> pathlib.Path:
        """Return the folder of a text of `evaluation.texts`: its documents, and what was left out of it and why."""
        return self.folder("prepare_text", name)

    def text_problem(self, name: str) -> str:
        """Return why a text of `evaluation.texts` that was prepared is empty; "" if its sources could be read."""
        try:
            counts = json.loads((self.text_folder(name) / "counts.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""  # it is not there yet, or damaged, which the workflow finds by its record
        return str(counts["unavailable"] or "")

    def text_settings(self, name: str, *keys: str) -> dict[str, Any]:
        """Return the settings of a text of `evaluation.texts` under these keys."""
        settings = dict(self.study.evaluation.texts[name])
        return {key: settings[key] for key in keys}

    def text_content(self, name: str) -> str:
        """Return a digest of the user's own files that a text of `evaluation.texts` reads; empty if it reads none."""
        sources = self.study.evaluation.texts[name].sources
        files = [file for source in sources.items() for file in self._matching_files(*source)]
        return self.contents.digest(files) if files else ""

    # How documents are compared when duplicates are looked for.

    def scope(self, domain: str) -> str:
        """Return the scope that a domain belongs to: `domains` where all are compared with each other, else its own
        name.
        """
        return "domains" if self.study.duplicates.across_domains else domain

    @functools.cached_property
    def scopes(self) -> dict[str, list[str]]:
        """Scope -> its domains."""
        scopes: dict[str, list[str]] = {}
        for domain in self.study.domains:
            scopes.setdefault(self.scope(domain), []).append(domain)
        return scopes

    def near(self, scope: str) -> Duplicates | None:
        """Return how near-duplicates are found in a scope; None where none of its domains asks for them."""
        asked = any(self.study.domains[domain].duplicates == "near" for domain in self.scopes[scope])
        return self.study.duplicates if asked else None

    def compared_domains(self, scope: str) -> tuple[ComparedDomain, ...]:
        """Return the domains of a scope, as a spec lists them."""
        return tuple(
            ComparedDomain(name=domain, **self.domain_settings(domain, "shards", "duplicates"))
            for domain in self.scopes[scope]
        )

    def domain_settings(self, domain: str, *keys: str) -> dict[str, Any]:
        """Return the settings of a domain under these keys."""
        settings = dict(self.study.domains[domain])
        return {key: settings[key] for key in keys}

    def domain_split(self, domain: str) -> Split:
        """Return the shares of a domain's splits."""
        share = self.study.domains[domain].probe_share
        return self.study.split if share is None else self.study.split.model_copy(update={"probe": share})

    # Names, shards and folders, all of them derived from the table of stages.

    def names(self, stage: str) -> list[str]:
        """Return what the stage has folders for: names of sources, domains or scopes, or its one name."""
        row = self.stages[stage]
        units: Iterable[str]
        match row.per:
            case "source":
                self.check_sources()
                units = self.sources
            case "domain":
                units = self.study.domains
            case "scope":
                units = self.scopes
            case "study":
                units = [row.name]
            case "text":
                units = self.study.evaluation.texts
        return [name for name in units if row.runs_for(self, name)]

    def shards(self, domain: str) -> list[str]:
        """Return the names of a domain's shards, `k-of-n`."""
        return _numbered(self.study.domains[domain].shards)

    def shards_of(self, stage: str, name: str) -> list[str]:
        """Return the shards in which a sharded stage runs for one name."""
        match self.stages[stage].per:
            case "source":
                return self.fetches(name)
            case "scope":
                near = self.near(name)
                return [] if near is None else _numbered(near.buckets)
        return self.shards(name)

    def fetches(self, source: str) -> list[str]:
        """Return the shards in which a source is fetched, over all the domains that read it."""
        shards = {
            self._fetched_shard(domain, source, shard)
            for domain in self.study.domains
            if source in self.sources_of(domain)
            for shard in self.shards(domain)
        }
        return sorted(shards or {WHOLE})

    def _fetched_shard(self, domain: str, source: str, shard: str) -> str:
        """Return the shard of a source that a domain's shard reads; WHOLE for a source that is fetched whole."""
        domain_sources = self.study.domains[domain].sources
        return shard if source in domain_sources and domain_sources[source].sharded else WHOLE

    @functools.cache  # noqa: B019 (one graph lives as long as its process)
    def folder(self, stage: str, name: str) -> pathlib.Path:
        """Return the folder of a data stage; the files of a sharded stage are in a folder for each shard below it.

        Args:
            stage: the stage's verb.
            name: a source, a domain, a scope, or the stage's one name, as its row in the table says.
        """
        upstream = [self.folder(earlier, earlier_name).name for earlier, earlier_name in self.upstream(stage, name)]
        key = short_digest(canonical_json(self.spec(stage, name)), *upstream)
        return self.data / stage / f"{name}-{key}"

    def parts(self, stage: str, name: str) -> list[pathlib.Path]:
        """Return the folders that hold a stage's files for one name: one for each shard, or the stage's own."""
        folder = self.folder(stage, name)
        return [folder / shard for shard in self.shards_of(stage, name)] if self.stages[stage].sharded else [folder]

    def files(self, stage: str, name: str, *files: str) -> list[str]:
        """Return the paths of `files` (by default, of all that it writes) of a stage for one name, over its shards."""
        names = files or self.stages[stage].writes
        return [str(part / file) for part in self.parts(stage, name) for file in names]

    def upstream(self, stage: str, name: str) -> Iterator[tuple[str, str]]:
        """Yield (earlier stage, name) of each folder that the stage reads for `name`."""
        per = self.stages[stage].per
        for earlier in self.stages[stage].reads:
            row = self.stages[earlier]
            if row.per == "study":
                names = [row.name]
            elif row.per == "source":
                names = list(self.sources_of(name) if per == "domain" else self.tokenizer_source)
            elif row.per == "scope":
                names = [self.scope(name) if per == "domain" else name]
            else:
                domains = list(self.study.domains)
                names = {"domain": [name], "scope": self.scopes.get(name, []), "study": domains, "text": domains}[per]
            # not `if it is one of self.names(earlier)`, which reads the starts of all ablations
            yield from ((earlier, earlier_name) for earlier_name in names if row.runs_for(self, earlier_name))

    def inputs(self, stage: str, name: str, shard: str | None = None) -> dict[str, list[str]]:
        """Return earlier stage -> the files of it that the stage reads for `name`, in one shard where it is sharded."""
        inputs: dict[str, list[str]] = {earlier: [] for earlier in self.stages[stage].reads}
        for earlier, earlier_name in self.upstream(stage, name):
            files = self.stages[stage].reads[earlier]
            if self.stages[earlier].per == "source" and shard is not None:
                parts = [self.folder(earlier, earlier_name) / self._fetched_shard(name, earlier_name, shard)]
            elif (
                self.stages[earlier].sharded
                and self.stages[stage].per == "domain"
                and shard is not None
                and earlier not in self.stages[stage].gathers
            ):
                parts = [self.folder(earlier, earlier_name) / shard]
            else:
                parts = self.parts(earlier, earlier_name)
            inputs[earlier] += [str(part / file) for part in parts for file in files]
        return inputs

    def spec(self, stage: str, name: str) -> Strict:
        """Return the spec that a data stage reads for one name."""
        return self.stages[stage].spec(self, name)

    def data_specs(self) -> dict[pathlib.Path, Strict]:
        """Return every spec of the data stages, by the path of its file."""
        return {
            self.folder(stage, name) / "spec.json": self.spec(stage, name)
            for stage in self.stages
            for name in self.names(stage)
        }


class _Sources(Mapping[str, SourceOptions]):
    """The sources of a study by name. The starts of all ablations are read only when nothing else has a name."""

    def __init__(self, graph: DataGraph) -> None:
        self.graph = graph

    @functools.cached_property
    def _of_data(self) -> dict[str, SourceOptions]:
        graph, sources = self.graph, dict[str, SourceOptions]()
        for named in (*map(graph.sources_of, graph.study.domains), graph.tokenizer_source):
            sources |= {name: options for name, options in named.items() if name not in sources}
        return sources

    def __getitem__(self, name: str) -> SourceOptions:
        return self._of_data[name] if name in self._of_data else self.graph.start_sources[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of_data | self.graph.start_sources)

    def __len__(self) -> int:
        return len(self._of_data | self.graph.start_sources)


def _numbered(count: int) -> list[str]:
    """Return the names of `count` shards."""
    return [f"{index}-of-{count}" for index in range(count)]
