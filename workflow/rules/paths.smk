# Paths of the study and functions that the rules use, derived from the tables in src/. It defines no rule.
import json
import math
import shlex

from speciate.graph.expected_time import training_seconds

MIXTURE = GRAPH.folder("balance", "mixture")
# One file stands for all that `balance` wrote, and for the packs and the tokenizer that it read: a job makes all of its
# files or none, and each file that is an input of every run costs Snakemake as much time as a rule.
MIXTURE_FILE = f"{MIXTURE}/mixture.json"
TOKENIZER = GRAPH.folder("fit", "tokenizer")
STUDY_TABLES = [*COMPARED, AGREED, *([SWAPPED] if GRAPH.swaps else [])]
TABLES = expand(f"{HOME}/tables/{{table}}.parquet", table=STUDY_TABLES)
# A study with tasks has tables of them beside its own, and what reads no scores does not wait for them.
TASK_TABLES = expand(
    f"{HOME}/tables/{{table}}.parquet", table=SCORED_TASKS if GRAPH.tasks else []
)
CARD = expand(f"{HOME}/tables/{{table}}.parquet", table=CARDED)
COST = [f"{HOME}/tables/cost.parquet"]
# the tables as `snakemake --report` lists them
TABLES_OF = {
    "Runs": MEASURED[:-1],
    "Study": [table for table in STUDY_TABLES if table not in MEASURED],
    "Tasks": SCORED_TASKS if GRAPH.tasks else [],
    "Data": CARDED,
}
READ_BY = {"card": CARD, "cost": COST, "tasks": TASK_TABLES}
READ_BY |= dict.fromkeys(("tables", "sweeps", "interventions", "types"), TABLES)


def folder_pattern(top, stage):
    """Return the pattern of a data stage's folder below `top`; a sharded stage has one for each shard."""
    folder = f"{top}/{stage}/{{name}}-{{key}}"
    return f"{folder}/{{shard}}" if GRAPH.stages[stage].sharded else folder


def inputs_of(stage):
    """Return the inputs of a data stage, for `unpack`: earlier stage -> files."""

    def inputs(wildcards):
        return GRAPH.inputs(stage, wildcards.name, wildcards.get("shard"))

    return inputs


def spec_of(stage):
    """Return the path of a data stage's spec; its folder's key stands for the content."""
    return f"{RESULTS}/data/{stage}/{{name}}-{{key}}/spec.json"


def spec_path(spec):
    """Return the path of a job's spec, as a text: Snakemake compares no parameter of another type, such as a Path."""
    return str(GRAPH.spec_file(spec))


def outputs_of(stage):
    """Return the files that a data stage writes."""
    folder = folder_pattern(f"{RESULTS}/data", stage)
    return [f"{folder}/{file}" for file in GRAPH.stages[stage].writes]


def log_of(stage):
    """Return the log file of a data stage's job."""
    return folder_pattern(f"{RESULTS}/data/logs", stage) + ".log"


def benchmark_of(stage):
    """Return the file with the time and memory of a data stage's job."""
    return folder_pattern(f"{RESULTS}/data/benchmarks", stage) + ".tsv"


def code_of(stage):
    """Return a function of the wildcards: the digest of the code that a data stage runs."""
    return lambda wildcards: digest(stage, GRAPH.spec(stage, wildcards.name))


def folder_of(name):
    """Return a function of the wildcards and inputs: the folder of the input files called `name`."""
    return lambda wildcards, input: str(pathlib.Path(getattr(input, name)[0]).parent)


def named_folders(stage, earlier):
    """Return `name=folder` for each domain whose files a stage reads; the folder holds the shards' folders."""
    return lambda wildcards: [
        f"{name}={GRAPH.folder(earlier, name)}"
        for upstream, name in GRAPH.upstream(stage, wildcards.name)
        if upstream == earlier
    ]


def domain_folders(stage):
    """Return `domain=folder` of a stage for every domain of the study."""
    return [f"{domain}={GRAPH.folder(stage, domain)}" for domain in STUDY.domains]


def files_of_domains(stage, *files):
    """Return the files of a stage of every shard of every domain of the study."""
    return [
        path for domain in STUDY.domains for path in GRAPH.files(stage, domain, *files)
    ]


def named_archives(wildcards, input):
    """Return `--archive source=path` for each source that a shard of a domain is read from."""
    sources = GRAPH.sources_of(wildcards.name)
    return [
        f"--archive {name}={path}"
        for name, path in zip(sources, input.fetch, strict=True)
    ]


def run_of(wildcards):
    """Return the RunSpec of a run's wildcards."""
    return GRAPH.run(wildcards.ablation, int(wildcards.seed))


def run_folder_of(wildcards):
    """Return the folder of a run's wildcards."""
    return f"{HOME}/runs/{wildcards.ablation}/seed{wildcards.seed}"


def code_of_runs(stage, spec=None, *others):
    """Return a function of the wildcards: the digest of the code that a stage runs on a run.

    A run's seed chooses no component, so one digest holds for all seeds of an ablation. `others` names the wildcards
    that the spec depends on besides.
    """
    spec, known = spec or GRAPH.run, {}

    def code(wildcards):
        named = [wildcards[name] for name in others]
        unit = (wildcards.ablation, *named)
        if unit not in known:
            of_run = spec(wildcards.ablation, int(wildcards.seed), *named)
            known[unit] = digest(stage, of_run)
        return known[unit]

    return code


def texts_of_task(wildcards):
    """Return the files of the texts outside training that a task reads."""
    return [
        file
        for name in GRAPH.task_texts(wildcards.task)
        for file in GRAPH.text_files(name)
    ]


def named_texts(wildcards):
    """Return `name=folder` for each text outside training that a task reads."""
    texts = GRAPH.task_texts(wildcards.task)
    return [f"{name}={folder}" for name, folder in texts.items()]


def environment_of_task(task):
    """Return the digest of the packages that a task runs with, and what its command sets to get them.

    What evaluation alone needs stands in an environment of its own, and its jobs are no forks of a warm process.
    """
    if STUDY.evaluation.tasks[task].environment == "study":
        return ENVIRONMENT, ""
    path = shlex.quote(str(EVALUATION / "bin"))
    return built_environment(EVALUATION), f'PATH={path}:"$PATH" {warm.ADDRESS}='


def scores_of_runs(wildcards):
    """Return the file of every run's scores on every task."""
    return [
        f"{GRAPH.task_folder(ablation, seed)}/{task}.parquet"
        for ablation in GRAPH.evaluated
        for seed in STUDY.seeds
        for task in GRAPH.tasks
    ]


def cores_of(wildcards):
    """Return the number of cores that a run's processes keep busy."""
    training = run_of(wildcards).training
    return training.processes * training.threads


def time_limit_of(wildcards):
    """Return the minutes that a training may take: two hours, or four times what a long one is expected to take."""
    seconds = training_seconds(run_of(wildcards), STUDY.block_length)
    return max(120, math.ceil(4 * seconds / 60))


def gpus_of(wildcards):
    """Return the number of GPUs to ask for: one for each process; none with `device: auto`."""
    training = run_of(wildcards).training
    return training.processes if training.device == "cuda" else 0


def launcher_of(wildcards):
    """Return the prefix that launches several processes of a run with torchrun; empty for one process."""
    processes = run_of(wildcards).training.processes
    if processes == 1:
        return ""
    return f"python -m torch.distributed.run --standalone --nproc-per-node {processes} --no-python"


def start_of(wildcards):
    """Return `--start path`; empty for a run that starts from scratch."""
    start = GRAPH.start(wildcards.ablation, int(wildcards.seed))
    return f"--start {shlex.quote(start)}" if start else ""


def files_of_runs(folder, file):
    """Return a function of the wildcards: the path of `file` in the folder of every run, `GRAPH.run_folder` or alike.

    Functions, because every job of a cluster reads these rules again, and needs no list of all runs.
    """
    return lambda wildcards: [
        f"{folder(ablation, seed)}/{file}"
        for ablation in STUDY.ablations
        for seed in STUDY.seeds
    ]


def files_of_figures(page, *names):
    """Return a function of the wildcards: the files with these `names`, such as `{}.svg`, of every figure of a page."""
    return lambda wildcards: [
        f"{HOME}/figures/{name.format(figure)}"
        for figure in GRAPH.figures(page)
        for name in names
    ]


# what a page reads of a figure: its two renderings, and its title and caption
SHOWN = ("{}.svg", "narrow/{}.svg", "{}.json")


def labels_of_figure(wildcards):
    """Return what `snakemake --report` lists of a figure: its name, and the question that it answers."""
    caption = pathlib.Path(f"{HOME}/figures/{wildcards.figure}.json")
    question = json.loads(caption.read_text(encoding="utf-8"))["question"]
    return {"figure": wildcards.figure, "question": question}


def files_that_runs_read(wildcards):
    """Return all files of the data stages that runs read, of which their rules name one: a lost file is made again."""
    return [
        *GRAPH.files("balance", "mixture"),
        *GRAPH.files("fit", "tokenizer"),
        *files_of_domains("pack", "train.blocks.npy", "train.pieces.npy"),
    ]


def data_benchmarks():
    """Return the benchmark files of this study's data stages; for a sharded stage, their folder."""
    return [
        f"{RESULTS}/data/benchmarks/{stage}/{GRAPH.folder(stage, name).name}"
        + ("" if GRAPH.stages[stage].sharded else ".tsv")
        for stage in GRAPH.stages
        for name in GRAPH.names(stage)
    ]
