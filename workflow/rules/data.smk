# Sources to a mixture of blocks. Each folder's key stands for everything that made it, so studies share these stages.


rule fetch:
    input:
        spec="results/data/fetch/{name}-{key}/spec.json",
    output:
        archive="results/data/fetch/{name}-{key}/archive",
    log:
        "results/data/logs/fetch/{name}-{key}.log",
    benchmark:
        "results/data/benchmarks/fetch/{name}-{key}.tsv"
    retries: 2
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        code=code("fetch"),
    message:
        "fetch {wildcards.name}: its pinned archive, checked by sha256"
    shell:
        "python -m speciate.fetch --spec {input.spec} --output {output.archive} 2>&1 | tee -a {log} >&2"


rule clean:
    input:
        spec="results/data/clean/{name}-{key}/spec.json",
        archives=archives,
    output:
        documents="results/data/clean/{name}-{key}/documents.parquet",
        counts="results/data/clean/{name}-{key}/counts.json",
    log:
        "results/data/logs/clean/{name}-{key}.log",
    benchmark:
        "results/data/benchmarks/clean/{name}-{key}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("clean"),
        archives=named_archives,
    message:
        "clean {wildcards.name}: read its sources, normalise, filter, count every drop"
    shell:
        "python -m speciate.clean --spec {input.spec} {params.archives}"
        " --documents {output.documents} --counts {output.counts} 2>&1 | tee -a {log} >&2"


rule split:
    input:
        spec="results/data/split/{name}-{key}/spec.json",
        documents=stage("clean", "documents.parquet"),
    output:
        expand("results/data/split/{{name}}-{{key}}/{split}.parquet", split=SPLITS),
        "results/data/split/{name}-{key}/counts.json",
    log:
        "results/data/logs/split/{name}-{key}.log",
    benchmark:
        "results/data/benchmarks/split/{name}-{key}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=30,
    params:
        code=code("split"),
        folder=subpath(output[0], parent=True),
    message:
        "split {wildcards.name} by document into training, validation, test and probe"
    shell:
        "python -m speciate.split --spec {input.spec} --documents {input.documents}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule fit:
    input:
        spec="results/data/fit/{name}-{key}/spec.json",
        documents=[
            str(PLAN.folder("split", domain) / "train.parquet")
            for domain in STUDY.domains
        ],
        archive=PLAN.tokenizer_archive,
    output:
        multiext(
            "results/data/fit/{name}-{key}/",
            "tokenizer.json",
            "token_bytes.npy",
            "tokenizer_manifest.json",
        ),
    log:
        "results/data/logs/fit/{name}-{key}.log",
    benchmark:
        "results/data/benchmarks/fit/{name}-{key}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("fit"),
        folder=subpath(output[0], parent=True),
        archive=lambda wildcards, input: (
            f"--archive {input.archive}" if input.archive else ""
        ),
    message:
        "fit the tokenizer to the training text of all domains"
    shell:
        "python -m speciate.fit --spec {input.spec} --documents {input.documents} {params.archive}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule encode:
    input:
        spec="results/data/encode/{name}-{key}/spec.json",
        split=stage("split", *(f"{split}.parquet" for split in SPLITS)),
        tokenizer=PLAN.folder("fit", "tokenizer") / "tokenizer.json",
        manifest=PLAN.folder("fit", "tokenizer") / "tokenizer_manifest.json",
    output:
        expand("results/data/encode/{{name}}-{{key}}/{split}.tokens.npy", split=SPLITS),
        expand(
            "results/data/encode/{{name}}-{{key}}/{split}.documents.parquet",
            split=SPLITS,
        ),
        "results/data/encode/{name}-{key}/probe.types.npy",
        "results/data/encode/{name}-{key}/counts.json",
    log:
        "results/data/logs/encode/{name}-{key}.log",
    benchmark:
        "results/data/benchmarks/encode/{name}-{key}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("encode"),
        split=lambda wildcards: PLAN.folder("split", wildcards.name),
        tokenizer=subpath(input.tokenizer, parent=True),
        folder=subpath(output[0], parent=True),
    message:
        "encode {wildcards.name} as token ids"
    shell:
        "python -m speciate.encode --spec {input.spec} --split-folder {params.split}"
        " --tokenizer-folder {params.tokenizer} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule pack:
    input:
        spec="results/data/pack/{name}-{key}/spec.json",
        tokens=stage("encode", *(f"{split}.tokens.npy" for split in SPLITS)),
        documents=stage("encode", *(f"{split}.documents.parquet" for split in SPLITS)),
        tokenizer=PLAN.folder("fit", "tokenizer") / "tokenizer_manifest.json",
    output:
        expand("results/data/pack/{{name}}-{{key}}/{split}.blocks.npy", split=SPLITS),
        expand("results/data/pack/{{name}}-{{key}}/{split}.pieces.npy", split=SPLITS),
        "results/data/pack/{name}-{key}/counts.json",
    log:
        "results/data/logs/pack/{name}-{key}.log",
    benchmark:
        "results/data/benchmarks/pack/{name}-{key}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("pack"),
        encoded=lambda wildcards: PLAN.folder("encode", wildcards.name),
        tokenizer=subpath(input.tokenizer, parent=True),
        folder=subpath(output[0], parent=True),
    message:
        "pack {wildcards.name} into blocks of {STUDY.block_length} tokens"
    shell:
        "python -m speciate.pack --spec {input.spec} --encoded-folder {params.encoded}"
        " --tokenizer-folder {params.tokenizer} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule balance:
    input:
        spec="results/data/balance/{name}-{key}/spec.json",
        packed=packed(
            *(
                f"{split}.{part}.npy"
                for split in SPLITS
                for part in ("blocks", "pieces")
            )
        ),
        documents=encoded(*(f"{split}.documents.parquet" for split in SPLITS)),
        types=encoded("probe.types.npy"),
        tokenizer=PLAN.folder("fit", "tokenizer") / "tokenizer_manifest.json",
    output:
        [f"results/data/balance/{{name}}-{{key}}/{file}" for file in PLAN.MIXTURE_FILES],
    log:
        "results/data/logs/balance/{name}-{key}.log",
    benchmark:
        "results/data/benchmarks/balance/{name}-{key}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("balance"),
        packed=[f"{domain}={PLAN.folder('pack', domain)}" for domain in STUDY.domains],
        encoded=[
            f"{domain}={PLAN.folder('encode', domain)}" for domain in STUDY.domains
        ],
        tokenizer=subpath(input.tokenizer, parent=True),
        folder=subpath(output[0], parent=True),
    message:
        "balance the domains, and draw the fixed held-out sets"
    shell:
        "python -m speciate.balance --spec {input.spec} --packed {params.packed} --encoded {params.encoded}"
        " --tokenizer-folder {params.tokenizer} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"
