# Tables to figures, one job a figure; the report and the explorer: files that need no network.


rule draw:
    input:
        tables=lambda wildcards: READ_BY[GRAPH.read_by(wildcards.figure)],
    output:
        svg=report(
            f"{HOME}/figures/{{figure}}.svg",
            category="Figures",
            subcategory=lambda wildcards: (
                "Data" if wildcards.figure in GRAPH.figures("data") else "Results"
            ),
            caption="../report/figure.rst",
            labels=labels_of_figure,
        ),
        # the same for screens as narrow as a telephone's
        narrow=f"{HOME}/figures/narrow/{{figure}}.svg",
        png=f"{HOME}/figures/{{figure}}.png",
        caption=f"{HOME}/figures/{{figure}}.json",
    log:
        f"{HOME}/logs/draw/{{figure}}.log",
    benchmark:
        f"{HOME}/benchmarks/draw/{{figure}}.tsv"
    group:
        SHARES.figure
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=lambda wildcards: digest("draw", GRAPH.draw_spec(wildcards.figure)),
        spec=lambda wildcards: spec_path(GRAPH.draw_spec(wildcards.figure)),
        tables=folder_of("tables"),
        folder=subpath(output.svg, parent=True),
    message:
        "draw {wildcards.figure}"
    shell:
        "python -m speciate draw --spec {params.spec} --tables {params.tables}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule manifest:
    input:
        tables=TABLES,
        tasks=TASK_TABLES,
        card=CARD,
        runs=files_of_runs(GRAPH.run_folder, "run.json"),
    output:
        f"{HOME}/manifest.json",
    log:
        f"{HOME}/logs/manifest.log",
    benchmark:
        f"{HOME}/benchmarks/manifest.tsv"
    group:
        SHARES.tables
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=lambda wildcards: digest("manifest"),
        spec=lambda wildcards: spec_path(GRAPH.report_spec()),
        tables=folder_of("tables"),
        # times and memory of earlier jobs; they are not inputs, since no result depends on a time
        benchmarks=lambda wildcards: [f"{HOME}/benchmarks", *data_benchmarks()],
        # one folder of all runs, as in `compare`
        runs=f"{HOME}/runs",
        built=shlex.quote(BUILT),
    message:
        "manifest: commit, versions, digests of tables, time of every stage"
    shell:
        "python -m speciate manifest --spec {params.spec} --tables {params.tables} --runs {params.runs}"
        " --benchmarks {params.benchmarks} --built {params.built} --output {output} 2>&1 | tee -a {log} >&2"


rule explore:
    input:
        tables=TABLES,
        runs=files_of_runs(GRAPH.run_folder, "probe.safetensors"),
        mixture=MIXTURE_FILE,
        tokenizer=f"{TOKENIZER}/tokenizer.json",
    output:
        report(
            f"{HOME}/explorer.html",
            category="Pages",
            caption="../report/explorer.rst",
            labels={"study": STUDY.study, "page": "its texts, token by token"},
        ),
    log:
        f"{HOME}/logs/explore.log",
    benchmark:
        f"{HOME}/benchmarks/explore.tsv"
    group:
        SHARES.tables
    threads: 1
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        code=lambda wildcards: digest("explore", GRAPH.explore_spec()),
        spec=lambda wildcards: spec_path(GRAPH.explore_spec()),
        tables=folder_of("tables"),
        # one folder of all runs, as in `compare`
        runs=f"{HOME}/runs",
        mixture=MIXTURE,
        tokenizer=TOKENIZER,
    message:
        "explore: read the texts with every choice of every selector"
    shell:
        "python -m speciate explore --spec {params.spec} --runs {params.runs} --tables {params.tables}"
        " --mixture-folder {params.mixture} --tokenizer-folder {params.tokenizer}"
        " --output {output} 2>&1 | tee -a {log} >&2"


rule report:
    input:
        tables=TABLES,
        tasks=TASK_TABLES,
        figures=files_of_figures("report", *SHOWN),
        card=CARD,
        manifest=f"{HOME}/manifest.json",
    output:
        page=report(
            f"{HOME}/report.html",
            category="Pages",
            caption="../report/report.rst",
            labels={"study": STUDY.study, "page": "the study"},
        ),
        # the viewer of `snakemake --report` shows no csv
        tables=[
            report(
                f"{HOME}/table_pages/{table}.html",
                category="Tables",
                subcategory=subcategory,
                caption="../report/table.rst",
                labels={"table": table},
            )
            for subcategory, tables in TABLES_OF.items()
            for table in tables
        ],
    log:
        f"{HOME}/logs/report.log",
    benchmark:
        f"{HOME}/benchmarks/report.tsv"
    group:
        SHARES.tables
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=lambda wildcards: digest("report"),
        spec=lambda wildcards: spec_path(GRAPH.report_spec()),
        tables=folder_of("tables"),
        figures=folder_of("figures"),
        pages=subpath(output[1], parent=True),
    message:
        "report: the study in one file"
    shell:
        "python -m speciate report --spec {params.spec} --tables {params.tables} --figures {params.figures}"
        " --manifest {input.manifest} --output {output.page} --table-folder {params.pages} 2>&1 | tee -a {log} >&2"
