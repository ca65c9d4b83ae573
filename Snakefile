"""straxflow: every detector run from the DAQ to verified, registered, stored data.

Run it with a profile: snakemake --profile local, or stoomboot, or demo; preview with -n.
"""

from snakemake.utils import min_version

min_version("9.12")


include: "workflow/rules/common.smk"


workdir: WORKDIR


wildcard_constraints:
    run=r"[A-Za-z0-9_]+",
    product="|".join(CONFIG.products),


container: CONFIG.container


localrules:
    all,
    claim,
    rundoc,
    register_live,
    register,
    release,


workflow.localrules(*CONFIG.head_node)


rule all:
    """Everything that the claimed runs need at this site (the default target)."""
    input:
        wanted_receipts,


include: "workflow/rules/claim.smk"


for step in CONFIG.steps:

    include: f"workflow/rules/{step}.smk"


onstart:
    begin()


onsuccess:
    finish()


onerror:
    finish()
