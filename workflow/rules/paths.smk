# What the rules need to know of the study's paths; no rule is here.
MIXTURE = PLAN.folder("balance", "mixture")
TOKENIZER = PLAN.folder("fit", "tokenizer")
MEASURES = [
    PLAN.measure_folder(ablation, seed)
    for ablation in STUDY.ablations
    for seed in STUDY.seeds
]
TABLES = expand(f"{HOME}/tables/{{table}}.parquet", table=COMPARED)


def stage(name, *files):
    """The paths of a data stage's files, by the stage and the domain (or source) in its wildcards."""

    def paths(wildcards):
        folder = PLAN.folder(name, wildcards.name)
        return [str(folder / file) for file in files]

    return paths


def folder_of(name):
    """The folder of the files that a rule's input calls `name`."""
    return lambda wildcards, input: str(pathlib.Path(getattr(input, name)[0]).parent)


def archives(wildcards):
    """The archives that a domain is read from."""
    return [
        str(PLAN.folder("fetch", source) / "archive")
        for source in STUDY.domains[wildcards.name].sources
    ]


def named_archives(wildcards, input):
    """`--archive source=path` for each archive of a domain."""
    return [
        f"--archive {name}={path}"
        for name, path in zip(STUDY.domains[wildcards.name].sources, input.archives)
    ]


def code(verb):
    """The digest of what a data stage runs."""
    return lambda wildcards: digest(verb, PLAN.spec(verb, wildcards.name))


def packed(*files):
    """Files of the pack stage of every domain."""
    return [
        str(PLAN.folder("pack", domain) / file)
        for domain in STUDY.domains
        for file in files
    ]


def encoded(*files):
    """Files of the encode stage of every domain."""
    return [
        str(PLAN.folder("encode", domain) / file)
        for domain in STUDY.domains
        for file in files
    ]


def run_of(wildcards):
    """The RunSpec of a run's wildcards."""
    return PLAN.run(wildcards.ablation, int(wildcards.seed))


def data_benchmarks():
    """The benchmark files of this study's data stages; results/data may hold other studies' too."""
    names = {
        stage: list(STUDY.domains) for stage in ("clean", "split", "encode", "pack")
    }
    names |= {"fetch": list(PLAN.sources), "fit": ["tokenizer"], "balance": ["mixture"]}
    folders = [
        PLAN.folder(stage, name) for stage, listed in names.items() for name in listed
    ]
    return [
        f"results/data/benchmarks/{folder.parent.name}/{folder.name}.tsv"
        for folder in folders
    ]
