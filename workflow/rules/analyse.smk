# Runs to tables: what each run's selectors did, and how the arms of the study differ.


rule measure:
    input:
        seen=multiext(
            f"{HOME}/runs/{{ablation}}/seed{{seed}}/",
            "run.json",
            "metrics.jsonl",
            "telemetry.safetensors",
            "probe.safetensors",
            "likelihood.parquet",
            "details.parquet",
            "measured.json",
        ),
    output:
        [
            f"{HOME}/measures/{{ablation}}/seed{{seed}}/{table}.parquet"
            for table in MEASURED
        ],
    log:
        f"{HOME}/logs/measure/{{ablation}}/seed{{seed}}.log",
    benchmark:
        f"{HOME}/benchmarks/measure/{{ablation}}/seed{{seed}}.tsv"
    group:
        SHARES.evaluation
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=lambda wildcards: digest("measure"),
        spec=lambda wildcards: spec_path(
            GRAPH.measure_spec(wildcards.ablation, int(wildcards.seed))
        ),
        run=run_folder_of,
        mixture=MIXTURE,
        folder=subpath(output[0], parent=True),
    message:
        "measure {wildcards.ablation}, seed {wildcards.seed}: load, information, nulls, collapse"
    shell:
        "python -m speciate measure --spec {params.spec} --run-folder {params.run}"
        " --mixture-folder {params.mixture} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule intervene:
    input:
        run=multiext(
            f"{HOME}/runs/{{ablation}}/seed{{seed}}/",
            "spec.json",
            "model.safetensors",
            "run.json",
            "probe.safetensors",
        ),
        mixture=MIXTURE_FILE,
    output:
        f"{HOME}/interventions/{{ablation}}/seed{{seed}}/interventions.parquet",
    log:
        f"{HOME}/logs/intervene/{{ablation}}/seed{{seed}}.log",
    benchmark:
        f"{HOME}/benchmarks/intervene/{{ablation}}/seed{{seed}}.tsv"
    group:
        SHARES.evaluation
    threads: lambda wildcards: run_of(wildcards).training.threads
    resources:
        mem_mb=3000,
        runtime=30,
        gpu=lambda wildcards: min(1, gpus_of(wildcards)),
    params:
        code=code_of_runs("intervene", GRAPH.intervene_spec),
        spec=lambda wildcards: spec_path(
            GRAPH.intervene_spec(wildcards.ablation, int(wildcards.seed))
        ),
        run=run_folder_of,
        mixture=MIXTURE,
    message:
        "intervene in {wildcards.ablation}, seed {wildcards.seed}: random choice, masked slots, their controls"
    shell:
        "python -m speciate intervene --spec {params.spec} --run-folder {params.run}"
        " --mixture-folder {params.mixture} --output {output} 2>&1 | tee -a {log} >&2"


rule agree:
    input:
        files_of_runs(GRAPH.run_folder, "probe.safetensors"),
    output:
        multiext(f"{HOME}/tables/agreement", ".csv", ".parquet"),
    log:
        f"{HOME}/logs/agree.log",
    benchmark:
        f"{HOME}/benchmarks/agree.tsv"
    group:
        SHARES.tables
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=lambda wildcards: digest("agree"),
        spec=lambda wildcards: spec_path(GRAPH.agree_spec()),
        runs=f"{HOME}/runs",
        folder=subpath(output[0], parent=True),
    message:
        "compare how the runs divide the same tokens"
    shell:
        "python -m speciate agree --spec {params.spec} --runs {params.runs}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


# in studies with `analysis: {interventions: {swaps: true}}`; it loads every run's model, so it shares no submission
rule swap:
    input:
        runs=files_of_runs(GRAPH.run_folder, "model.safetensors"),
        mixture=MIXTURE_FILE,
    output:
        multiext(f"{HOME}/tables/swaps", ".csv", ".parquet"),
    log:
        f"{HOME}/logs/swap.log",
    benchmark:
        f"{HOME}/benchmarks/swap.tsv"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=120,
        gpu=lambda wildcards: int(
            any(run.training.device == "cuda" for run in GRAPH.first_runs)
        ),
    params:
        code=lambda wildcards: digest("swap"),
        spec=lambda wildcards: spec_path(GRAPH.swap_spec()),
        runs=f"{HOME}/runs",
        mixture=MIXTURE,
        folder=subpath(output[0], parent=True),
    message:
        "swap the selectors of runs, and see what it costs"
    shell:
        "python -m speciate swap --spec {params.spec} --runs {params.runs} --mixture-folder {params.mixture}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule compare:
    input:
        # one table of each run stands for all that `measure` wrote of it
        files_of_runs(GRAPH.measure_folder, f"{MEASURED[0]}.parquet"),
        *(
            [files_of_runs(GRAPH.intervene_folder, "interventions.parquet")]
            if GRAPH.intervenes
            else []
        ),
    output:
        expand(f"{HOME}/tables/{{table}}.csv", table=COMPARED),
        expand(f"{HOME}/tables/{{table}}.parquet", table=COMPARED),
    log:
        f"{HOME}/logs/compare.log",
    benchmark:
        f"{HOME}/benchmarks/compare.tsv"
    group:
        SHARES.tables
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=lambda wildcards: digest("compare"),
        spec=lambda wildcards: spec_path(GRAPH.compare_spec()),
        # one folder of all runs: a command with ten thousand of them would be too long for the system
        measures=f"{HOME}/measures",
        interventions=(
            f"--interventions {HOME}/interventions" if GRAPH.intervenes else ""
        ),
        folder=subpath(output[0], parent=True),
    message:
        "compare the arms, paired by seed, and decide the hypotheses"
    shell:
        "python -m speciate compare --spec {params.spec} --measures {params.measures}"
        " {params.interventions} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule cost:
    output:
        COST,
    log:
        f"{HOME}/logs/cost.log",
    benchmark:
        f"{HOME}/benchmarks/cost.tsv"
    threads: 1
    resources:
        mem_mb=6000,
        runtime=60,
    params:
        code=lambda wildcards: digest("cost", *GRAPH.cost_runs),
        specs=lambda wildcards: [spec_path(run) for run in GRAPH.cost_runs],
        lengths=STUDY.cost.lengths if STUDY.cost else (),
        rounds=STUDY.cost.rounds if STUDY.cost else 1,
    message:
        "what mixers cost by the length of a block"
    shell:
        "python -m speciate cost --spec {params.specs} --lengths {params.lengths} --rounds {params.rounds}"
        " --output {output} 2>&1 | tee -a {log} >&2"


# the error rates of the package's own tests: `snakemake calibrate`; about no study, and not part of `all`
rule calibrate:
    output:
        f"{RESULTS}/calibration/calibration.md",
    log:
        f"{RESULTS}/calibration/calibrate.log",
    benchmark:
        f"{RESULTS}/calibration/calibrate.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=lambda wildcards: digest("calibrate"),
    message:
        "calibrate: size, power and coverage of every test and interval, on data whose truth is known"
    shell:
        "python -m speciate calibrate --output {output} 2>&1 | tee -a {log} >&2"
