# Train and evaluate each run (ablation x seed): one job a run, with one process or several that torchrun starts.


rule train:
    input:
        mixture=MIXTURE_FILE,
        # what the run starts from: another run of its seed, or an archive
        start=lambda wildcards: GRAPH.start_inputs(
            wildcards.ablation, int(wildcards.seed)
        ),
    output:
        # the spec that the run was trained with, written with its weights
        spec=f"{HOME}/runs/{{ablation}}/seed{{seed}}/spec.json",
        model=f"{HOME}/runs/{{ablation}}/seed{{seed}}/model.safetensors",
        metrics=f"{HOME}/runs/{{ablation}}/seed{{seed}}/metrics.jsonl",
        telemetry=f"{HOME}/runs/{{ablation}}/seed{{seed}}/telemetry.safetensors",
        run=f"{HOME}/runs/{{ablation}}/seed{{seed}}/run.json",
        timing=f"{HOME}/runs/{{ablation}}/seed{{seed}}/timing.json",
        tokenizer=multiext(
            f"{HOME}/runs/{{ablation}}/seed{{seed}}/tokenizer/",
            *GRAPH.stages["fit"].writes,
        ),
    log:
        f"{HOME}/logs/train/{{ablation}}/seed{{seed}}.log",
    benchmark:
        f"{HOME}/benchmarks/train/{{ablation}}/seed{{seed}}.tsv"
    # start the longest path first, so that no core waits at the end for one late run
    priority: 1
    # a retry resumes the stopped or killed run; it is a new job of the cluster, never a second one inside a job. An
    # error that would only come again is not retried (workflow/failures.py)
    retries: 2 if workflow.is_main_process else 0
    group:
        SHARES.run
    threads: cores_of
    resources:
        mem_mb=3000,
        runtime=time_limit_of,
        gpu=gpus_of,
    params:
        code=code_of_runs("train"),
        spec=lambda wildcards: spec_path(run_of(wildcards)),
        mixture=MIXTURE,
        tokenizer=TOKENIZER,
        folder=subpath(output.model, parent=True),
        # undeclared on purpose: Snakemake wipes declared outputs before each attempt, and a retry resumes from here
        checkpoints=f"{HOME}/checkpoints",
        start=start_of,
        # of the user's own files that the run starts from: what they hold decides, not their dates
        content=lambda wildcards: GRAPH.start_content(wildcards.ablation),
        launcher=launcher_of,
    message:
        "train {wildcards.ablation}, seed {wildcards.seed}"
    # only the training acts on a signal to the whole group: it saves and exits 75; tee reads on, the shell passes 75 on
    shell:
        "trap : INT TERM USR1; SPECIATE_CONTENT={params.content:q} {params.launcher} python -m speciate train"
        " --spec {params.spec} --mixture-folder {params.mixture} --tokenizer-folder {params.tokenizer}"
        " --output-folder {params.folder} --checkpoint-folder {params.checkpoints} {params.start} --adopt"
        " 2>&1 | (trap '' INT TERM USR1; exec tee -a {log} >&2)"


rule evaluate:
    input:
        spec=f"{HOME}/runs/{{ablation}}/seed{{seed}}/spec.json",
        model=f"{HOME}/runs/{{ablation}}/seed{{seed}}/model.safetensors",
        mixture=MIXTURE_FILE,
    output:
        likelihood=f"{HOME}/runs/{{ablation}}/seed{{seed}}/likelihood.parquet",
        probe=f"{HOME}/runs/{{ablation}}/seed{{seed}}/probe.safetensors",
        details=f"{HOME}/runs/{{ablation}}/seed{{seed}}/details.parquet",
        measured=f"{HOME}/runs/{{ablation}}/seed{{seed}}/measured.json",
    log:
        f"{HOME}/logs/evaluate/{{ablation}}/seed{{seed}}.log",
    benchmark:
        f"{HOME}/benchmarks/evaluate/{{ablation}}/seed{{seed}}.tsv"
    group:
        SHARES.evaluation
    threads: lambda wildcards: run_of(wildcards).training.threads
    resources:
        mem_mb=3000,
        runtime=30,
        gpu=lambda wildcards: min(1, gpus_of(wildcards)),
    params:
        code=code_of_runs("evaluate"),
        mixture=MIXTURE,
        token_bytes=TOKENIZER / "token_bytes.npy",
    message:
        "evaluate {wildcards.ablation}, seed {wildcards.seed}: test loss by document, choices on the probe set"
    shell:
        "python -m speciate evaluate --spec {input.spec} --model {input.model} --mixture-folder {params.mixture}"
        " --token-bytes {params.token_bytes} --likelihood {output.likelihood} --probe {output.probe}"
        " --details {output.details} --measured {output.measured} --wait 2>&1 | tee -a {log} >&2"
