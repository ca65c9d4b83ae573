"""Input functions and what all rules share; the logic is in the library."""

import atexit
import os
import sys
from contextlib import contextmanager
from pathlib import Path

from straxflow.interpreter import collect_seldom, with_signature

collect_seldom()

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from straxflow import config as settings
from straxflow.batch import campaign_name, ensure_batch_id
from straxflow.campaigns import lay_over
from straxflow.errors import StraxflowError, quiet_errors
from straxflow.fsio import MARKER
from straxflow.permissions import apply_umask
from straxflow.receipts import State
from straxflow.forks.popen import Subprocess
from straxflow.forks.shared import Servers, put_on_path

with quiet_errors(SystemExit):
    if not config:  # no profile: e.g. snakemake --lint
        config.update(settings.read_files([settings.DEFAULT_FILE]))
    lay_over(config, campaign_name())
    CONFIG = settings.load(config)
    # jobs inherit it, those of a batch system from their own parsing
    apply_umask(CONFIG)
    STATE = State(CONFIG.folders.state / campaign_name())
    BATCH = ensure_batch_id()

put_on_path(Path(sys.executable).parent, Path(workflow.basedir, "workflow", "scripts"))
SERVERS = Servers(CONFIG, STATE.folder, BATCH)
# where a server does the jobs, none needs a shell, and a Python to ask it
sys.modules["snakemake.shell"].sp = Subprocess()
if workflow.remote_exec:
    SERVERS.forget()  # they are on the head node, outside of what this batch job may use
    atexit.register(SERVERS.close)
elif workflow.is_main_process and not workflow.output_settings.dryrun:
    SERVERS.prepare()

# imported while the server does its own imports
from straxflow.batchjobs import run_rules_directly
from straxflow.pace import pace_polls
from straxflow.polls import tend_polls
from straxflow.slurm import JOB_PREFIX, SLURM
from straxflow.workflow import Flow

with quiet_errors(SystemExit):
    FLOW = Flow(CONFIG, STATE, campaign_name(), BATCH, SERVERS, logger)
FLOW.holds_claims = workflow.remote_exec

# fewer jobs wait for one of the site's transfer slots
if "transfers" not in workflow.global_resources:
    workflow.register_resource("transfers", CONFIG.transfer.max_parallel)

# a state folder that is not there (unmounted, not yet made) must not be made or filled by snakemake
WORKDIR = str(STATE.folder if (STATE.folder / MARKER).is_file() else Path.cwd())


@contextmanager
def plain_errors():
    """Errors of an input function in the user's words: snakemake adds a traceback to any exception in one."""
    try:
        yield
    except StraxflowError as error:
        if not FLOW.holds_claims:  # no job has begun, so no other one can suffer
            logger.error(f"straxflow: {error}")
            sys.exit(1)
        raise WorkflowError(str(error)) from None


def wanted_receipts(wildcards):
    """All receipts of the claimed runs; in a dry run, of those that would be claimed."""
    with plain_errors():
        if workflow.dryrun:
            return FLOW.preview()
        return FLOW.receipts_of_batch(checkpoints.claim.get(batch=BATCH).output[0])


@with_signature
def valid_run_id(wildcards):
    """No file; but what is no run id is told at once, with the right one, also in a dry run."""
    with quiet_errors(SystemExit):
        FLOW.check_run_id(wildcards.run)
    return []


@with_signature
def source_receipt(wildcards):
    """The receipt of what a product is made from."""
    return FLOW.source_receipt(wildcards.run, wildcards.product)


@with_signature
def registered_receipts(wildcards):
    """All receipts that must stand before a run's copies may be dropped."""
    with plain_errors():
        return FLOW.before_release(wildcards.run)


def cores(step):
    """A function for the threads of a job; no job is started whose run another invocation has taken over."""

    @with_signature
    def amount(wildcards):
        if workflow.remote_exec and workflow.local_exec:
            # known now, and not yet when this file is read
            SERVERS.serve_batch_job(workflow.dag_settings.target_jobs)
        with plain_errors():
            return FLOW.threads(step, **wildcards)

    return amount


def resource(step, name):
    """A resource function: grows with the attempt, and with the run where its size is known."""

    @with_signature
    def amount(wildcards, input, attempt):
        return FLOW.resource(
            step,
            name,
            wildcards.run,
            getattr(wildcards, "product", None),
            attempt,
            input,
        )

    return amount


def partition(step):
    """The Slurm partition, if the configuration has a table of them."""
    if not CONFIG.resources.partitions:
        return {}

    @with_signature
    def name(wildcards, input, attempt):
        return FLOW.partition(
            step,
            wildcards.run,
            getattr(wildcards, "product", None),
            attempt,
            input,
            workflow.group_settings.overwrite_groups or {},
        )

    return {"slurm_partition": name}


@with_signature
def priority(wildcards):
    """Jobs of runs that were claimed first go first."""
    return FLOW.priority(wildcards.run)


def begin():
    """Claim the runs of explicitly named targets and keep the leases; an error here stops before any job."""
    atexit.register(FLOW.finish)
    here = workflow.executor_plugin.common_settings.local_exec
    with quiet_errors(SystemExit):
        FLOW.begin(
            [*workflow.dag_settings.targets, *workflow.dag_settings.forcerun],
            config,
            here or "process" in CONFIG.head_node,
        )
    tend_batch_jobs()
    lift_default_rate_limit()


def lift_default_rate_limit():
    """Snakemake's own wakes the scheduler once more for each job, and the end waits for it; a site's own stays."""
    limit = workflow.scheduler.job_rate_limiter
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def tend_batch_jobs():
    """Name the Slurm jobs by invocation, so that a dead one's can be told and cancelled; lose sight of none."""
    # the executor is made after the Snakefile was read and takes its settings at once, so
    # slurm-jobname-prefix comes too late here; it submits under this name, and asks by it
    executor = workflow.scheduler._executor
    if hasattr(executor, "run_uuid"):
        os.environ[SLURM] = "1"
        executor.run_uuid = f"{JOB_PREFIX}{BATCH}_{executor.run_uuid}"
        tend_polls(executor, lambda text: logger.warning(f"straxflow: {text}"))
        pace_polls(executor)
        run_rules_directly(executor)


def finish():
    """Give the runs back, by their receipts."""
    FLOW.finish()
