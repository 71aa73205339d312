# Tables to figures, one job a figure, and the report: one file that needs no network.
FIGURES = PLAN.figures
TABLES = expand(f"{HOME}/tables/{{table}}.parquet", table=COMPARED)


rule draw:
    input:
        spec=f"{HOME}/specs/draw/{{figure}}.json",
        tables=TABLES,
    output:
        svg=report(
            f"{HOME}/figures/{{figure}}.svg",
            category="Figures",
            caption="../report/figure.rst",
            labels={"figure": "{figure}"},
        ),
        png=f"{HOME}/figures/{{figure}}.png",
        caption=f"{HOME}/figures/{{figure}}.json",
    params:
        code=lambda wildcards: digest("draw", PLAN.draw_spec(wildcards.figure)),
        tables=f"{HOME}/tables",
        folder=f"{HOME}/figures",
    log:
        f"{HOME}/logs/draw/{{figure}}.log",
    benchmark:
        f"{HOME}/benchmarks/draw/{{figure}}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=30,
    message:
        "draw {wildcards.figure}"
    shell:
        "python -m speciate.draw --spec {input.spec} --tables {params.tables}"
        " --output-folder {params.folder}" + LOGGED


def data_benchmarks():
    """The benchmark files of this study's data stages; results/data may hold other studies' too."""
    names = {stage: list(STUDY.domains) for stage in ("clean", "split", "encode", "pack")}
    names |= {"fetch": list(PLAN.sources), "fit": ["tokenizer"], "balance": ["mixture"]}
    folders = [PLAN.folder(stage, name) for stage, listed in names.items() for name in listed]
    return [f"results/data/benchmarks/{folder.parent.name}/{folder.name}.tsv" for folder in folders]


rule manifest:
    input:
        spec=f"{HOME}/specs/report.json",
        tables=TABLES,
        runs=[PLAN.run_folder(ablation, seed) / "run.json" for ablation in STUDY.ablations for seed in STUDY.seeds],
    output:
        f"{HOME}/manifest.json",
    params:
        code=digest("manifest"),
        tables=f"{HOME}/tables",
        # what earlier jobs took; not inputs, since no result depends on a time
        benchmarks=[f"{HOME}/benchmarks", *data_benchmarks()],
    log:
        f"{HOME}/logs/manifest.log",
    benchmark:
        f"{HOME}/benchmarks/manifest.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "manifest: commit, versions, digests of tables, time of every stage"
    shell:
        "python -m speciate.manifest --spec {input.spec} --tables {params.tables} --runs {input.runs}"
        " --benchmarks {params.benchmarks} --output {output}" + LOGGED


rule report:
    input:
        spec=f"{HOME}/specs/report.json",
        tables=TABLES,
        figures=expand(f"{HOME}/figures/{{figure}}.{{suffix}}", figure=FIGURES, suffix=("svg", "json")),
        counts=[
            PLAN.folder(stage, domain) / "counts.json"
            for stage in ("clean", "split", "encode", "pack")
            for domain in STUDY.domains
        ],
        mixture=MIXTURE / "mixture.json",
        manifest=f"{HOME}/manifest.json",
    output:
        report(
            f"{HOME}/report.html",
            category="Report",
            caption="../report/report.rst",
            labels={"study": STUDY.study},
        ),
    params:
        code=digest("report"),
        tables=f"{HOME}/tables",
        figures=f"{HOME}/figures",
    log:
        f"{HOME}/logs/report.log",
    benchmark:
        f"{HOME}/benchmarks/report.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "report: the study in one file"
    shell:
        "python -m speciate.report --spec {input.spec} --tables {params.tables} --figures {params.figures}"
        " --counts {input.counts} {input.mixture} --manifest {input.manifest} --output {output}" + LOGGED
