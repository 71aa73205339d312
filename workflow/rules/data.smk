# Sources to a mixture of blocks. Each folder's key stands for everything that made it, so studies share these stages;
# a domain's stages are spread over its shards, one job each, and gathered where something must be decided for all.


rule fetch:
    input:
        spec="results/data/fetch/{name}-{key}/spec.json",
        # a source of kind `files` reads the user's own
        files=lambda wildcards: GRAPH.local_files(wildcards.name),
    output:
        archive="results/data/fetch/{name}-{key}/{shard}/archive",
    log:
        "results/data/logs/fetch/{name}-{key}/{shard}.log",
    benchmark:
        "results/data/benchmarks/fetch/{name}-{key}/{shard}.tsv"
    # first, so that no domain waits for a source that could have come beside another's work
    priority: 1
    retries: 2
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        code=code("fetch"),
    message:
        "fetch {wildcards.name}, {wildcards.shard}: what is pinned, and nothing else"
    shell:
        "python -m speciate fetch --spec {input.spec} --shard {wildcards.shard}"
        " --output {output.archive} 2>&1 | tee -a {log} >&2"


rule clean:
    input:
        spec="results/data/clean/{name}-{key}/spec.json",
        archives=archives,
    output:
        multiext(
            "results/data/clean/{name}-{key}/{shard}/",
            "documents.parquet",
            "dropped.parquet",
            "counts.json",
        ),
    log:
        "results/data/logs/clean/{name}-{key}/{shard}.log",
    benchmark:
        "results/data/benchmarks/clean/{name}-{key}/{shard}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("clean"),
        archives=named_archives,
        folder=subpath(output[0], parent=True),
    message:
        "clean {wildcards.name}, {wildcards.shard}: read its sources, normalise, filter, count every drop"
    shell:
        "python -m speciate clean --spec {input.spec} {params.archives} --shard {wildcards.shard}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule sign:
    input:
        spec="results/data/sign/{name}-{key}/spec.json",
        documents=of_shard("clean", "documents.parquet"),
    output:
        multiext("results/data/sign/{name}-{key}/{shard}/", *SIGNED),
    log:
        "results/data/logs/sign/{name}-{key}/{shard}.log",
    benchmark:
        "results/data/benchmarks/sign/{name}-{key}/{shard}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("sign"),
        folder=subpath(output[0], parent=True),
    message:
        "sign {wildcards.name}, {wildcards.shard}: digests and signatures, by which documents are compared"
    shell:
        "python -m speciate sign --spec {input.spec} --documents {input.documents}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule bucket:
    input:
        spec="results/data/bucket/{name}-{key}/spec.json",
        signed=of_scope("sign", *SIGNED),
    output:
        pairs="results/data/bucket/{name}-{key}/{shard}/pairs.npy",
    log:
        "results/data/logs/bucket/{name}-{key}/{shard}.log",
    benchmark:
        "results/data/benchmarks/bucket/{name}-{key}/{shard}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("bucket"),
        signed=named_folders("sign"),
    message:
        "bucket {wildcards.name}, {wildcards.shard}: pairs of documents that agree on a band of their signatures"
    shell:
        "python -m speciate bucket --spec {input.spec} --signed {params.signed} --bucket {wildcards.shard}"
        " --output {output.pairs} 2>&1 | tee -a {log} >&2"


rule cluster:
    input:
        spec="results/data/cluster/{name}-{key}/spec.json",
        signed=of_scope("sign", *SIGNED),
        pairs=lambda wildcards: GRAPH.pairs(wildcards.name),
    output:
        multiext(
            "results/data/cluster/{name}-{key}/",
            "duplicates.parquet",
            "clusters.parquet",
            "counts.json",
        ),
    log:
        "results/data/logs/cluster/{name}-{key}.log",
    benchmark:
        "results/data/benchmarks/cluster/{name}-{key}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("cluster"),
        signed=named_folders("sign"),
        pairs=lambda wildcards, input: f"--pairs {input.pairs}" if input.pairs else "",
        folder=subpath(output[0], parent=True),
    message:
        "cluster {wildcards.name}: which documents are another one's duplicates"
    shell:
        "python -m speciate cluster --spec {input.spec} --signed {params.signed} {params.pairs}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule assign_splits:
    input:
        spec="results/data/assign_splits/{name}-{key}/spec.json",
        signed=of_shards("sign", *SIGNED),
        duplicates=clustered("duplicates.parquet"),
    output:
        multiext("results/data/assign_splits/{name}-{key}/", "groups.npy", "counts.json"),
    log:
        "results/data/logs/assign_splits/{name}-{key}.log",
    benchmark:
        "results/data/benchmarks/assign_splits/{name}-{key}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("assign_splits"),
        signed=lambda wildcards: GRAPH.folder("sign", wildcards.name),
        folder=subpath(output[0], parent=True),
    message:
        "assign splits of {wildcards.name}: which groups of documents are for training, validation, test and probe"
    shell:
        "python -m speciate assign_splits --spec {input.spec} --signed {params.signed}"
        " --duplicates {input.duplicates} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule write_splits:
    input:
        spec="results/data/write_splits/{name}-{key}/spec.json",
        documents=of_shard("clean", "documents.parquet"),
        duplicates=clustered("duplicates.parquet"),
        groups=lambda wildcards: GRAPH.folder("assign_splits", wildcards.name) / "groups.npy",
    output:
        expand(
            "results/data/write_splits/{{name}}-{{key}}/{{shard}}/{split}.parquet",
            split=SPLITS,
        ),
        "results/data/write_splits/{name}-{key}/{shard}/counts.json",
    log:
        "results/data/logs/write_splits/{name}-{key}/{shard}.log",
    benchmark:
        "results/data/benchmarks/write_splits/{name}-{key}/{shard}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("write_splits"),
        folder=subpath(output[0], parent=True),
    message:
        "write splits of {wildcards.name}, {wildcards.shard}: documents to their splits, duplicates left out"
    shell:
        "python -m speciate write_splits --spec {input.spec} --documents {input.documents}"
        " --duplicates {input.duplicates} --groups {input.groups} --shard {wildcards.shard}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule sketch:
    input:
        spec="results/data/sketch/{name}-{key}/spec.json",
        splits=of_shard("write_splits", *(f"{split}.parquet" for split in SPLITS)),
    output:
        expand(
            "results/data/sketch/{{name}}-{{key}}/{{shard}}/{split}.runs.npy",
            split=SPLITS,
        ),
        multiext(
            "results/data/sketch/{name}-{key}/{shard}/",
            "samples.parquet",
            "counts.json",
        ),
    log:
        "results/data/logs/sketch/{name}-{key}/{shard}.log",
    benchmark:
        "results/data/benchmarks/sketch/{name}-{key}/{shard}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("sketch"),
        splits=folder_of("splits"),
        folder=subpath(output[0], parent=True),
    message:
        "sketch {wildcards.name}, {wildcards.shard}: runs of words, lengths and samples for the data card"
    shell:
        "python -m speciate sketch --spec {input.spec} --splits {params.splits}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule fit:
    input:
        spec="results/data/fit/{name}-{key}/spec.json",
        documents=of_study("write_splits", "train.parquet"),
        archive=GRAPH.tokenizer_archive,
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
        "python -m speciate fit --spec {input.spec} --documents {input.documents} {params.archive}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule encode:
    input:
        spec="results/data/encode/{name}-{key}/spec.json",
        split=of_shard("write_splits", *(f"{split}.parquet" for split in SPLITS)),
        tokenizer=TOKENIZER / "tokenizer.json",
        manifest=TOKENIZER / "tokenizer_manifest.json",
    output:
        expand(
            "results/data/encode/{{name}}-{{key}}/{{shard}}/{split}.{part}",
            split=SPLITS,
            part=("tokens.npy", "documents.parquet"),
        ),
        "results/data/encode/{name}-{key}/{shard}/probe.types.npy",
        "results/data/encode/{name}-{key}/{shard}/counts.json",
    log:
        "results/data/logs/encode/{name}-{key}/{shard}.log",
    benchmark:
        "results/data/benchmarks/encode/{name}-{key}/{shard}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("encode"),
        split=folder_of("split"),
        tokenizer=subpath(input.tokenizer, parent=True),
        folder=subpath(output[0], parent=True),
    message:
        "encode {wildcards.name}, {wildcards.shard}, as token ids"
    shell:
        "python -m speciate encode --spec {input.spec} --split-folder {params.split}"
        " --tokenizer-folder {params.tokenizer} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule pack:
    input:
        spec="results/data/pack/{name}-{key}/spec.json",
        tokens=of_shard("encode", *(f"{split}.tokens.npy" for split in SPLITS)),
        documents=of_shard(
            "encode", *(f"{split}.documents.parquet" for split in SPLITS)
        ),
        tokenizer=TOKENIZER / "tokenizer_manifest.json",
    output:
        expand(
            "results/data/pack/{{name}}-{{key}}/{{shard}}/{split}.{part}.npy",
            split=SPLITS,
            part=("blocks", "pieces"),
        ),
        "results/data/pack/{name}-{key}/{shard}/counts.json",
    log:
        "results/data/logs/pack/{name}-{key}/{shard}.log",
    benchmark:
        "results/data/benchmarks/pack/{name}-{key}/{shard}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=60,
    params:
        code=code("pack"),
        encoded=folder_of("tokens"),
        tokenizer=subpath(input.tokenizer, parent=True),
        folder=subpath(output[0], parent=True),
    message:
        "pack {wildcards.name}, {wildcards.shard}, into blocks of {STUDY.block_length} tokens"
    shell:
        "python -m speciate pack --spec {input.spec} --encoded-folder {params.encoded}"
        " --tokenizer-folder {params.tokenizer} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule balance:
    input:
        spec="results/data/balance/{name}-{key}/spec.json",
        packed=of_study(
            "pack",
            *(
                f"{split}.{part}.npy"
                for split in SPLITS
                for part in ("blocks", "pieces")
            ),
        ),
        documents=of_study(
            "encode", *(f"{split}.documents.parquet" for split in SPLITS)
        ),
        types=of_study("encode", "probe.types.npy"),
        tokenizer=TOKENIZER / "tokenizer_manifest.json",
    output:
        [f"results/data/balance/{{name}}-{{key}}/{file}" for file in GRAPH.MIXTURE_FILES],
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
        packed=named_folders("pack", STUDY.domains),
        encoded=named_folders("encode", STUDY.domains),
        tokenizer=subpath(input.tokenizer, parent=True),
        folder=subpath(output[0], parent=True),
    message:
        "balance the domains, and draw the fixed held-out sets"
    shell:
        "python -m speciate balance --spec {input.spec} --packed {params.packed} --encoded {params.encoded}"
        " --tokenizer-folder {params.tokenizer} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"
