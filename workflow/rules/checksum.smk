rule checksum:
    """Write the manifest of a product: every file with size and digest."""
    input:
        "runs/{run}/{product}/processed.json",
    output:
        "runs/{run}/{product}/checksums.json",
    log:
        "logs/{run}/{product}.checksum.log",
    benchmark:
        "benchmarks/{run}/{product}.checksum.tsv"
    priority: priority
    threads: cores("checksum")
    resources:
        **partition("checksum"),
        mem_mb=resource("checksum", "mem_mb"),
        runtime=resource("checksum", "runtime_min"),
    shell:
        "straxflow-step checksum {output} {log} {threads}"
