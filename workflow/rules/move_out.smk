rule move_out:
    """Copy a product to the store, read it back against the manifest, publish it there."""
    input:
        "runs/{run}/{product}/checksums.json",
    output:
        "runs/{run}/{product}/stored.json",
    log:
        "logs/{run}/{product}.move_out.log",
    benchmark:
        "benchmarks/{run}/{product}.move_out.tsv"
    priority: priority
    threads: cores("move_out")
    resources:
        **partition("move_out"),
        mem_mb=resource("move_out", "mem_mb"),
        runtime=resource("move_out", "runtime_min"),
    shell:
        "straxflow-step move_out {output} {log} {threads}"
