# As many jobs a run as the workflow has with one product, and nothing else: what Snakemake takes for them by itself.
RUNS = [f"{number:06d}" for number in range(1, int(config["runs"]) + 1)]


rule all:
    input:
        expand("runs/{run}/released.json", run=RUNS),


rule transfer:
    output:
        "runs/{run}/live/transferred.json",
    shell:
        "true {output}"


rule register_live:
    input:
        "runs/{run}/live/transferred.json",
    output:
        "runs/{run}/live/registered.json",
    shell:
        "true {output}"


rule process:
    input:
        "runs/{run}/live/transferred.json",
    output:
        "runs/{run}/product/processed.json",
    shell:
        "true {output}"


rule checksum:
    input:
        "runs/{run}/product/processed.json",
    output:
        "runs/{run}/product/checksums.json",
    shell:
        "true {output}"


rule move_out:
    input:
        "runs/{run}/product/checksums.json",
    output:
        "runs/{run}/product/stored.json",
    shell:
        "true {output}"


rule register:
    input:
        "runs/{run}/product/stored.json",
    output:
        "runs/{run}/product/registered.json",
    shell:
        "true {output}"


rule release:
    input:
        "runs/{run}/live/registered.json",
        "runs/{run}/product/registered.json",
    output:
        "runs/{run}/released.json",
    shell:
        "true {output}"
