# What the rules need to know of the study's paths; no rule is here.
MIXTURE = GRAPH.folder("balance", "mixture")
TOKENIZER = GRAPH.folder("fit", "tokenizer")
MEASURES = [
    GRAPH.measure_folder(ablation, seed)
    for ablation in STUDY.ablations
    for seed in STUDY.seeds
]
# the data stages that are one job for all shards
GATHERS = ("cluster", "assign_splits", "fit", "balance")
TABLES = expand(f"{HOME}/tables/{{table}}.parquet", table=COMPARED)
CARD = expand(f"{HOME}/tables/{{table}}.parquet", table=CARDED)
COST = [f"{HOME}/tables/cost.parquet"]
READ_BY = {"card": CARD, "cost": COST, "tables": TABLES}


def of_shard(stage, *files):
    """Files of a stage of the domain and the shard in the wildcards."""

    def paths(wildcards):
        folder = GRAPH.folder(stage, wildcards.name) / wildcards.shard
        return [str(folder / file) for file in files]

    return paths


def of_shards(stage, *files):
    """Files of a stage of every shard of the domain in the wildcards: a gather."""
    return lambda wildcards: [
        str(part / file) for part in GRAPH.parts(stage, wildcards.name) for file in files
    ]


def of_scope(stage, *files):
    """Files of a stage of every shard of every domain that the scope in the wildcards compares."""
    return lambda wildcards: [
        str(part / file)
        for domain in GRAPH.scopes[wildcards.name]
        for part in GRAPH.parts(stage, domain)
        for file in files
    ]


def of_study(stage, *files):
    """Files of a stage of every shard of every domain."""
    return [
        str(part / file)
        for domain in STUDY.domains
        for part in GRAPH.parts(stage, domain)
        for file in files
    ]


def clustered(*files):
    """Files of the cluster stage of the scope that the domain in the wildcards belongs to."""

    def paths(wildcards):
        folder = GRAPH.folder("cluster", GRAPH.scope(wildcards.name))
        return [str(folder / file) for file in files]

    return paths


def named_folders(stage, domains=None):
    """`domain=folder` for each domain (of the scope in the wildcards); the folder holds the shards' folders."""
    return lambda wildcards: [
        f"{domain}={GRAPH.folder(stage, domain)}"
        for domain in (GRAPH.scopes[wildcards.name] if domains is None else domains)
    ]


def folder_of(name):
    """The folder of the files that a rule's input calls `name`."""
    return lambda wildcards, input: str(pathlib.Path(getattr(input, name)[0]).parent)


def archives(wildcards):
    """The archives that a shard of a domain is read from."""
    return [
        str(path) for path in GRAPH.fetched(wildcards.name, wildcards.shard).values()
    ]


def named_archives(wildcards):
    """`--archive source=path` for each of them."""
    return [
        f"--archive {name}={path}"
        for name, path in GRAPH.fetched(wildcards.name, wildcards.shard).items()
    ]


def code(verb):
    """The digest of what a data stage runs."""
    return lambda wildcards: digest(verb, GRAPH.spec(verb, wildcards.name))


def run_of(wildcards):
    """The RunSpec of a run's wildcards."""
    return GRAPH.run(wildcards.ablation, int(wildcards.seed))


def cores_of(wildcards):
    """Cores that a run's processes keep busy."""
    training = run_of(wildcards).training
    return training.processes * training.threads


def gpus_of(wildcards):
    """GPUs that a run asks for: one a process. With `device: auto` it takes one where it finds one, and asks for none."""
    training = run_of(wildcards).training
    return training.processes if training.device == "cuda" else 0


def launcher_of(wildcards):
    """What starts a run's processes, before their command; nothing where there is one."""
    processes = run_of(wildcards).training.processes
    if processes == 1:
        return ""
    return f"python -m torch.distributed.run --standalone --nproc-per-node {processes} --no-python"


def start_of(wildcards):
    """`--start path` where a run starts from something."""
    start = GRAPH.start(wildcards.ablation, int(wildcards.seed))
    return f"--start {start}" if start else ""


def data_benchmarks():
    """The benchmark files of this study's data stages, a folder where a stage has shards; other studies' are not its."""
    return [
        f"results/data/benchmarks/{stage}/{folder.name}{suffix}"
        for folder in (file.parent for file in GRAPH.data_specs())
        for stage in [folder.parent.name]
        for suffix in [".tsv" if stage in GATHERS else ""]
    ]
