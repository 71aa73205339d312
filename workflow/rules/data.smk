# Sources to a mixture of blocks. Each folder's key stands for everything that made it, so studies share these stages. A
# domain's stages are spread over its shards, one job each, and gathered where a decision needs all shards. Each stage
# declares its inputs and outputs once, in the constant STAGE of its file in src/speciate/stages.


rule fetch:
    input:
        unpack(inputs_of("fetch")),
    output:
        outputs_of("fetch"),
    log:
        log_of("fetch"),
    benchmark:
        benchmark_of("fetch")
    # fetch before other jobs, so that no domain waits for a source that could have come during other work
    priority: 1
    retries: 2
    group:
        SHARES.data("fetch")
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        code=code_of("fetch"),
        spec=spec_of("fetch"),
        # of the user's own files: what they hold decides, not their dates
        content=lambda wildcards: GRAPH.local_content(wildcards.name),
    message:
        "fetch {wildcards.name}, {wildcards.shard}: what the study pins, or a list of your own files as they are now"
    shell:
        "SPECIATE_CONTENT={params.content:q} python -m speciate fetch --spec {params.spec} --shard {wildcards.shard}"
        " --output {output} 2>&1 | tee -a {log} >&2"


rule clean:
    input:
        unpack(inputs_of("clean")),
    output:
        outputs_of("clean"),
    log:
        log_of("clean"),
    benchmark:
        benchmark_of("clean")
    group:
        SHARES.data("clean")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_of("clean"),
        spec=spec_of("clean"),
        archives=named_archives,
        folder=subpath(output[0], parent=True),
    message:
        "clean {wildcards.name}, {wildcards.shard}: read its sources, normalise, filter, count every drop"
    shell:
        "python -m speciate clean --spec {params.spec} {params.archives} --shard {wildcards.shard}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule sort:
    input:
        unpack(inputs_of("sort")),
    output:
        outputs_of("sort"),
    log:
        log_of("sort"),
    benchmark:
        benchmark_of("sort")
    group:
        SHARES.data("sort")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_of("sort"),
        spec=spec_of("sort"),
        cleaned=lambda wildcards: GRAPH.folder("clean", wildcards.name),
        folder=subpath(output[0], parent=True),
    message:
        "sort {wildcards.name}, {wildcards.shard}: one part of its documents, in the order of their texts' digests"
    shell:
        "python -m speciate sort --spec {params.spec} --cleaned {params.cleaned} --shard {wildcards.shard}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule sign:
    input:
        unpack(inputs_of("sign")),
    output:
        outputs_of("sign"),
    log:
        log_of("sign"),
    benchmark:
        benchmark_of("sign")
    group:
        SHARES.data("sign")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_of("sign"),
        spec=spec_of("sign"),
        folder=subpath(output[0], parent=True),
    message:
        "sign {wildcards.name}, {wildcards.shard}: digests and signatures by which documents are compared"
    shell:
        "python -m speciate sign --spec {params.spec} --documents {input.sort}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule bucket:
    input:
        unpack(inputs_of("bucket")),
    output:
        outputs_of("bucket"),
    log:
        log_of("bucket"),
    benchmark:
        benchmark_of("bucket")
    group:
        SHARES.data("bucket")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_of("bucket"),
        spec=spec_of("bucket"),
        signed=named_folders("bucket", "sign"),
    message:
        "bucket {wildcards.name}, {wildcards.shard}: pairs of documents that agree on a band of their signatures"
    shell:
        "python -m speciate bucket --spec {params.spec} --signed {params.signed} --bucket {wildcards.shard}"
        " --output {output} 2>&1 | tee -a {log} >&2"


rule cluster:
    input:
        unpack(inputs_of("cluster")),
    output:
        outputs_of("cluster"),
    log:
        log_of("cluster"),
    benchmark:
        benchmark_of("cluster")
    group:
        SHARES.data("cluster")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_of("cluster"),
        spec=spec_of("cluster"),
        signed=named_folders("cluster", "sign"),
        pairs=lambda wildcards, input: (
            f"--pairs {input.bucket}" if input.bucket else ""
        ),
        folder=subpath(output[0], parent=True),
    message:
        "cluster {wildcards.name}: which documents duplicate another"
    shell:
        "python -m speciate cluster --spec {params.spec} --signed {params.signed} {params.pairs}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule assign_splits:
    input:
        unpack(inputs_of("assign_splits")),
    output:
        outputs_of("assign_splits"),
    log:
        log_of("assign_splits"),
    benchmark:
        benchmark_of("assign_splits")
    group:
        SHARES.data("assign_splits")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_of("assign_splits"),
        spec=spec_of("assign_splits"),
        signed=lambda wildcards: GRAPH.folder("sign", wildcards.name),
        folder=subpath(output[0], parent=True),
    message:
        "assign splits of {wildcards.name}: which groups of documents are for training, validation, test and probe"
    shell:
        "python -m speciate assign_splits --spec {params.spec} --signed {params.signed}"
        " --duplicates {input.cluster} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule write_splits:
    input:
        unpack(inputs_of("write_splits")),
    output:
        outputs_of("write_splits"),
    log:
        log_of("write_splits"),
    benchmark:
        benchmark_of("write_splits")
    group:
        SHARES.data("write_splits")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_of("write_splits"),
        spec=spec_of("write_splits"),
        folder=subpath(output[0], parent=True),
    message:
        "write splits of {wildcards.name}, {wildcards.shard}: documents to their splits, duplicates left out"
    shell:
        "python -m speciate write_splits --spec {params.spec} --documents {input.sort}"
        " --duplicates {input.cluster} --groups {input.assign_splits} --shard {wildcards.shard}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule sketch:
    input:
        unpack(inputs_of("sketch")),
    output:
        outputs_of("sketch"),
    log:
        log_of("sketch"),
    benchmark:
        benchmark_of("sketch")
    group:
        SHARES.data("sketch")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_of("sketch"),
        spec=spec_of("sketch"),
        splits=folder_of("write_splits"),
        folder=subpath(output[0], parent=True),
    message:
        "sketch {wildcards.name}, {wildcards.shard}: runs of words, lengths and samples for the data card"
    shell:
        "python -m speciate sketch --spec {params.spec} --splits {params.splits}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule fit:
    input:
        unpack(inputs_of("fit")),
    output:
        outputs_of("fit"),
    log:
        log_of("fit"),
    benchmark:
        benchmark_of("fit")
    group:
        SHARES.data("fit")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_of("fit"),
        spec=spec_of("fit"),
        archive=lambda wildcards, input: (
            f"--archive {input.fetch}" if input.fetch else ""
        ),
        folder=subpath(output[0], parent=True),
    message:
        "fit the tokenizer to the training text of all domains"
    shell:
        "python -m speciate fit --spec {params.spec} --documents {input.write_splits} {params.archive}"
        " --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule encode:
    input:
        unpack(inputs_of("encode")),
    output:
        outputs_of("encode"),
    log:
        log_of("encode"),
    benchmark:
        benchmark_of("encode")
    group:
        SHARES.data("encode")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_of("encode"),
        spec=spec_of("encode"),
        split=folder_of("write_splits"),
        tokenizer=folder_of("fit"),
        folder=subpath(output[0], parent=True),
    message:
        "encode {wildcards.name}, {wildcards.shard}, as token ids"
    shell:
        "python -m speciate encode --spec {params.spec} --split-folder {params.split}"
        " --tokenizer-folder {params.tokenizer} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule pack:
    input:
        unpack(inputs_of("pack")),
    output:
        outputs_of("pack"),
    log:
        log_of("pack"),
    benchmark:
        benchmark_of("pack")
    group:
        SHARES.data("pack")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_of("pack"),
        spec=spec_of("pack"),
        encoded=lambda wildcards: GRAPH.folder("encode", wildcards.name),
        tokenizer=folder_of("fit"),
        folder=subpath(output[0], parent=True),
    message:
        f"pack {{wildcards.name}} into blocks of {STUDY.block_length} tokens"
    shell:
        "python -m speciate pack --spec {params.spec} --encoded-folder {params.encoded}"
        " --tokenizer-folder {params.tokenizer} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule balance:
    input:
        unpack(inputs_of("balance")),
    output:
        outputs_of("balance"),
    log:
        log_of("balance"),
    benchmark:
        benchmark_of("balance")
    group:
        SHARES.data("balance")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_of("balance"),
        spec=spec_of("balance"),
        packed=domain_folders("pack"),
        encoded=domain_folders("encode"),
        tokenizer=folder_of("fit"),
        folder=subpath(output[0], parent=True),
    message:
        "balance the domains, and draw the fixed held-out sets"
    shell:
        "python -m speciate balance --spec {params.spec} --packed {params.packed} --encoded {params.encoded}"
        " --tokenizer-folder {params.tokenizer} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule prepare_text:
    input:
        unpack(inputs_of("prepare_text")),
    output:
        outputs_of("prepare_text"),
    log:
        log_of("prepare_text"),
    benchmark:
        benchmark_of("prepare_text")
    group:
        SHARES.data("prepare_text")
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code_of("prepare_text"),
        spec=spec_of("prepare_text"),
        # of the user's own files: what they hold decides, not their dates
        content=lambda wildcards: GRAPH.text_content(wildcards.name),
        folder=subpath(output[0], parent=True),
    message:
        "prepare the text {wildcards.name}: fetch, clean, leave out what the training text holds"
    shell:
        "SPECIATE_CONTENT={params.content:q} python -m speciate prepare_text --spec {params.spec}"
        " --training {input.write_splits} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"
