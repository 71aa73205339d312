# Put each finished run to each task of `evaluation.tasks`, one job a run and task, and compare what the arms score.


rule evaluate_tasks:
    input:
        run=multiext(
            f"{HOME}/runs/{{ablation}}/seed{{seed}}/",
            "spec.json",
            "model.safetensors",
            "run.json",
        ),
        mixture=MIXTURE_FILE,
        texts=texts_of_task,
    output:
        f"{HOME}/tasks/{{ablation}}/seed{{seed}}/{{task}}.parquet",
    log:
        f"{HOME}/logs/evaluate_tasks/{{ablation}}/seed{{seed}}/{{task}}.log",
    benchmark:
        f"{HOME}/benchmarks/evaluate_tasks/{{ablation}}/seed{{seed}}/{{task}}.tsv"
    group:
        SHARES.evaluation
    threads: lambda wildcards: run_of(wildcards).training.threads
    resources:
        mem_mb=4000,
        runtime=120,
        gpu=lambda wildcards: min(1, gpus_of(wildcards)),
    params:
        code=code_of_runs("evaluate_tasks", GRAPH.task_spec, "task"),
        spec=lambda wildcards: spec_path(
            GRAPH.task_spec(wildcards.ablation, int(wildcards.seed), wildcards.task)
        ),
        run=run_folder_of,
        mixture=MIXTURE,
        text=named_texts,
        # of the user's own files that the task reads: what they hold decides, not their dates
        content=lambda wildcards: GRAPH.task_content(wildcards.task),
        environment=lambda wildcards: environment_of_task(wildcards.task)[0],
        setting=lambda wildcards: environment_of_task(wildcards.task)[1],
    message:
        "put {wildcards.ablation}, seed {wildcards.seed}, to the task {wildcards.task}"
    shell:
        "{params.setting} SPECIATE_CONTENT={params.content:q} python -m speciate evaluate_tasks"
        " --spec {params.spec} --run-folder {params.run} --mixture-folder {params.mixture} --text {params.text}"
        " --output {output} 2>&1 | tee -a {log} >&2"


rule compare_tasks:
    input:
        scores_of_runs,
    output:
        expand(f"{HOME}/tables/{{table}}.csv", table=SCORED_TASKS),
        expand(f"{HOME}/tables/{{table}}.parquet", table=SCORED_TASKS),
    log:
        f"{HOME}/logs/compare_tasks.log",
    benchmark:
        f"{HOME}/benchmarks/compare_tasks.tsv"
    group:
        SHARES.tables
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=lambda wildcards: digest("compare_tasks"),
        spec=lambda wildcards: spec_path(GRAPH.compare_tasks_spec()),
        # one folder of all runs, as in `compare`
        scores=f"{HOME}/tasks",
        folder=subpath(output[0], parent=True),
    message:
        "compare what the arms score on the tasks"
    shell:
        "python -m speciate compare_tasks --spec {params.spec} --scores {params.scores}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"
