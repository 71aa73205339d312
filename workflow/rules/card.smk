# The data card: what the data stages read, dropped and made, as tables and as a separate page.


rule card:
    input:
        clean=files_of_domains("clean", "dropped.parquet", "counts.json"),
        sort=files_of_domains("sort", "documents.parquet", "counts.json"),
        clusters=[
            GRAPH.folder("cluster", scope) / file
            for scope in GRAPH.scopes
            for file in ("duplicates.parquet", "clusters.parquet", "counts.json")
        ],
        assign_splits=[
            GRAPH.folder("assign_splits", domain) / "counts.json"
            for domain in STUDY.domains
        ],
        write_splits=files_of_domains("write_splits", "counts.json"),
        sketch=files_of_domains(
            "sketch",
            *(f"{split}.runs.npy" for split in SPLITS),
            "samples.parquet",
            "counts.json",
        ),
        encode=files_of_domains(
            "encode", *(f"{split}.documents.parquet" for split in SPLITS)
        ),
        pack=files_of_domains("pack", "counts.json"),
        mixture=[
            MIXTURE / file
            for file in (
                "mixture.json",
                "train.npy",
                *(f"{split}.domain.npy" for split in SPLITS[1:]),
            )
        ],
    output:
        CARD,
        expand(f"{HOME}/tables/{{table}}.csv", table=CARDED),
    log:
        f"{HOME}/logs/card.log",
    benchmark:
        f"{HOME}/benchmarks/card.tsv"
    group:
        SHARES.card
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        code=lambda wildcards: digest("card", GRAPH.card_spec()),
        spec=lambda wildcards: spec_path(GRAPH.card_spec()),
        folders=[
            f"--{stage} "
            + " ".join(
                f"{domain}={GRAPH.folder(stage, domain)}" for domain in STUDY.domains
            )
            for stage in (
                "clean",
                "sort",
                "assign_splits",
                "write_splits",
                "sketch",
                "encode",
                "pack",
            )
        ],
        clusters=[f"{scope}={GRAPH.folder('cluster', scope)}" for scope in GRAPH.scopes],
        mixture=MIXTURE,
        folder=subpath(output[0], parent=True),
    message:
        "card: sources, licences, counts, drops, lengths, duplicates and overlaps as tables"
    shell:
        "python -m speciate card --spec {params.spec} {params.folders} --cluster {params.clusters}"
        " --mixture-folder {params.mixture} --output-folder {params.folder} 2>&1 | tee -a {log} >&2"


rule present:
    input:
        tables=CARD,
        figures=files_of_figures("data", *SHOWN),
    output:
        report(
            f"{HOME}/data.html",
            category="Pages",
            caption="../report/data.rst",
            labels={"study": STUDY.study, "page": "its data"},
        ),
    log:
        f"{HOME}/logs/present.log",
    benchmark:
        f"{HOME}/benchmarks/present.tsv"
    group:
        SHARES.card
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=lambda wildcards: digest("present", GRAPH.card_spec()),
        spec=lambda wildcards: spec_path(GRAPH.card_spec()),
        tables=folder_of("tables"),
        figures=folder_of("figures"),
    message:
        "present: the data card as one page"
    shell:
        "python -m speciate present --spec {params.spec} --tables {params.tables} --figures {params.figures}"
        " --output {output} 2>&1 | tee -a {log} >&2"
