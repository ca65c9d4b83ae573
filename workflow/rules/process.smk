rule process:
    """Make one product from its source, with strax or a command."""
    input:
        source_receipt,
    output:
        "runs/{run}/{product}/processed.json",
    log:
        "logs/{run}/{product}.process.log",
    benchmark:
        "benchmarks/{run}/{product}.process.tsv"
    priority: priority
    threads: cores("process")
    resources:
        **partition("process"),
        mem_mb=resource("process", "mem_mb"),
        runtime=resource("process", "runtime_min"),
    shell:
        "straxflow-step process {output} {log} {threads}"
