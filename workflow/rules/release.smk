rule release:
    """Drop staging and live copies, each after the other copies were just read back and matched."""
    input:
        registered_receipts,
    output:
        "runs/{run}/released.json",
    log:
        "logs/{run}/release.log",
    benchmark:
        "benchmarks/{run}/release.tsv"
    priority: priority
    threads: cores("release")
    shell:
        "straxflow-step release {output} {log}"
