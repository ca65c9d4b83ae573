"""Which runs are claimed, in which order, and what stops all of them, against the real database server."""

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from straxflow.disks import disks, too_full
from straxflow.lab.rundb_server import RunDbServer
from straxflow.lab.sshd import Sshd
from straxflow.owner import Owner
from straxflow.rundb.claims import Claimer
from straxflow.rundb.client import connect
from straxflow.rundb.gate import OPEN, Gate, look
from straxflow.rundb.pending import Due, anything_due
from straxflow.rundb.switch import read_switch, set_switch
from straxflow.rundb.whynot import why_not
from tests.site import DAQ_HOST, Site


@pytest.fixture
def site(tmp_path: Path, rundb_server: RunDbServer, sshd: Sshd) -> Iterator[Site]:
    made = Site(tmp_path, rundb_server, sshd)
    yield made
    made.close()


def due(site: Site, *alive: str) -> Due:
    with connect(site.config) as db:
        return anything_due(db, site.config, "online", alive)


def test_a_poll_tells_whether_a_claim_would_find_a_run(site: Site) -> None:
    assert due(site) == Due(None)
    site.document(1, processing_status={"status": "done"})
    site.document(2, tags=[{"name": "abandon"}])
    site.document(3, end=None)
    site.document(4, start="yesterday")
    site.document(5)
    site.document(5)
    assert due(site) == Due(None)
    site.document(6)
    assert due(site) == Due("000006")
    assert due(site).start


def test_a_poll_sees_what_dead_invocations_held(site: Site) -> None:
    site.document(1)
    here = Owner.current()
    config = site.config
    with connect(config) as db:
        Claimer(db, config, "online", "mine", here).claim_pending(lambda _: True, print)
        assert due(site) == due(site, "mine") == Due(None)
        long_ago = db.now() - timedelta(seconds=config.claim.lease_s + 1)
        site.runs.update_one({"number": 1}, {"$set": {"straxflow.online.claim.renewed": long_ago}})
        # the caller knows better
        assert (due(site), due(site, "mine")) == (Due("000001"), Due(None))
        dead = Owner(here.host, here.boot, here.pid, here.start - 1).as_dict()
        changes = {"straxflow.online.claim.owner": dead, "straxflow.online.claim.renewed": db.now()}
        site.runs.update_one({"number": 1}, {"$set": changes})
        assert due(site) == Due("000001")


def test_the_switch_holds_what_is_due(site: Site) -> None:
    site.document(1)
    config = site.config
    with connect(config) as db:
        assert read_switch(db, config).on
        off = set_switch(db, config, "off", "the disk is changed")
        assert not off.on
        assert off.reason == "the disk is changed"
        assert "auto_processing is off (turned by " in off.text
        assert off.time is not None
        assert abs(off.time - datetime.now(UTC)) < timedelta(minutes=1)
        held = due(site)
        assert (held.run, held.held, held.start) == ("000001", off.text, False)
        assert set_switch(db, config, "on").on
        assert due(site).start


@pytest.mark.parametrize(
    ("status", "on"), [("on", True), ("ON ", True), (True, True), ("off", False), (False, False), ("pause", False)]
)
def test_a_switch_that_others_turned(site: Site, status: object, on: bool) -> None:
    site.configure(rundb={"switch": {"database": site.database, "collection": "control", "name": "all"}})
    site.client[site.database]["control"].insert_many([{"name": "auto_processing"}, {"name": "all", "status": status}])
    with connect(site.config) as db:
        found = read_switch(db, site.config)
    assert found.on is on
    assert ("expected on or off" in found.text) is (status == "pause")


def claimed(site: Site, gate: Gate = OPEN) -> list[str]:
    """Claim, in one invocation; what it got, in order."""
    with connect(site.config) as db:
        taken = Claimer(db, site.config, "online", uuid.uuid4().hex, Owner.current()).claim_pending(
            lambda _: True, print, gate
        )
    return [one.run.id + ("" if one.products is None else " live only") for one in taken]


def tag(name: str) -> dict[str, Any]:
    return {"tags": [{"name": name, "user": "x", "date": datetime.now(UTC)}]}


def ended(days_ago: float) -> dict[str, datetime]:
    end = datetime.now(UTC) - timedelta(days=days_ago)
    return {"start": end - timedelta(seconds=2), "end": end}


def test_prioritized_runs_go_first_then_the_newest(site: Site) -> None:
    for number in range(1, 9):
        site.document(number, **(tag("prioritize") if number in (2, 5) else {}))
    site.configure(claim={"max_runs": 4})
    assert claimed(site) == ["000005", "000002", "000008", "000007"]
    assert claimed(site) == ["000006", "000004", "000003", "000001"]


def test_tags_age_modes_and_numbers_select(site: Site, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("17\n000018  # this one too\n")
    site.configure(
        runs={"modes": ["back*", "led"], "max_age_days": 100, "numbers": ["1-16", f"@{tmp_path}/list.txt", 20]}
    )
    site.document(1, tags=[{"name": "abandon"}])
    site.document(2, **tag("#DNT"))
    site.document(3, **tag("hold-processing"))
    site.document(4, **tag("#DNP"))
    site.document(5)
    site.runs.update_one({"number": 5}, {"$set": {"mode": "background_linked"}})
    site.document(6, mode="calibration")
    site.document(7, mode="calibration", **tag("process"))
    site.document(8, **ended(101))
    site.document(9, **ended(101), **tag("process"))
    site.document(10, **ended(99))
    site.document(11, data=[])
    site.document(12, data=[], **tag("process"))
    site.document(13, tags=[*tag("process")["tags"], *tag("abandon")["tags"]])
    site.document(14, tags=7)
    site.document(15, processing_status={"status": "done"}, **tag("process"))
    for number in (17, 18, 19, 20):
        site.document(number)
    expected = ["000020", "000018", "000017", "000014", "000012", "000010", "000009", "000007", "000005"]
    expected.append("000004 live only")
    with connect(site.config) as db:
        told = {n: why_not(db, site.config, "online", f"{n:06d}") for n in range(1, 22)}
    assert told == {
        **{number: [] for number in (4, 5, 7, 9, 10, 12, 14, 17, 18, 20)},
        1: ["tag abandon"],
        2: ["tag #DNT"],
        3: ["tag hold-processing"],
        6: ["mode calibration is not in runs.modes"],
        8: ["it ended 101.0 days ago (runs.max_age_days is 100)"],
        11: [f"it has no state, and no live data of it are registered at {DAQ_HOST}; set it to pending"],
        13: ["tag abandon"],
        15: ["its state is done"],
        16: [f"there is no run document of it in {site.database}.runs"],
        19: ["it is not in runs.numbers"],
        21: [f"there is no run document of it in {site.database}.runs"],
    }
    assert claimed(site) == expected


def test_a_list_of_runs_that_is_not_there_claims_nothing(site: Site) -> None:
    site.configure(runs={"numbers": ["@nowhere.txt"]})
    site.document(1)
    result = site.dry_run()
    assert result.code == 1
    assert "runs.numbers: " in result.output
    assert "nowhere.txt: the list of runs cannot be read" in result.output


def test_donotprocess_brings_the_live_data_in_and_nothing_more_until_the_tag_is_gone(site: Site) -> None:
    site.take(1)
    site.runs.update_one({"number": 1}, {"$set": tag("donotprocess")})
    assert site.dry_run().jobs == ["transfer 000001", "register_live 000001"]
    result = site.snakemake()
    assert result.code == 0, result.output
    assert set(site.receipts("000001")) == {"run.json", "live/transferred.json", "live/registered.json"}
    assert (site.status(1), site.reason(1)) == ("pending", "reached transfer")
    assert due(site) == Due(None)
    assert claimed(site) == []
    with connect(site.config) as db:
        assert why_not(db, site.config, "online", "000001") == [
            "tag donotprocess: its live data is all that is brought in, and no product is made"
        ]
    site.runs.update_one({"number": 1}, {"$set": {"tags": []}})
    assert due(site).start
    result = site.snakemake()
    assert result.code == 0, result.output
    assert site.status(1) == "done"


def test_while_the_daq_takes_a_run_only_live_data_comes_in(site: Site) -> None:
    site.configure(daq={"while_live": "transfer"})
    site.take(1)
    site.take(2)
    site.runs.update_one({"number": 2}, {"$set": tag("process")})
    site.document(3, end=None, start=datetime.now(UTC))
    preview = site.dry_run()
    assert "run 3 is being taken since" in preview.output
    assert "only live data is brought in, but for runs with the tag `process`" in preview.output
    assert due(site).start
    result = site.snakemake()
    assert result.code == 0, result.output
    assert "run 3 is being taken since" in result.output
    assert (site.status(1), site.reason(1), site.status(2)) == ("pending", "reached transfer", "done")
    held = due(site)
    assert (held.run, held.start) == ("000001", False)
    assert "run 3 is being taken since" in str(held.held)
    with connect(site.config) as db:
        [why] = why_not(db, site.config, "online", "000001")
    assert "(daq.while_live: transfer): its live data is all that is brought in" in why
    site.runs.update_one({"number": 3}, {"$set": {"end": datetime.now(UTC)}})
    assert due(site).start
    assert claimed(site) == ["000003", "000001"]


def test_while_the_daq_takes_a_run_nothing_is_done(site: Site) -> None:
    site.configure(daq={"while_live": "nothing"})
    site.document(1)
    site.document(2, **tag("process"))
    site.document(3, end=None, start=datetime.now(UTC))
    result = site.dry_run()
    assert "nothing is claimed, but for runs with the tag `process` (daq.while_live: nothing)" in result.output
    assert {job.split()[1].split("/")[0] for job in result.jobs} == {"000002"}
    site.runs.delete_one({"number": 2})
    assert not due(site).start
    # the DAQ crashed two days ago
    site.runs.update_one({"number": 3}, {"$set": {"start": datetime.now(UTC) - timedelta(days=2)}})
    assert due(site) == Due("000001")


def test_a_document_of_the_daqs_tells_whether_it_is_live(site: Site) -> None:
    where = {"database": site.database, "collection": "control", "query": {"detector": "tpc", "active": "true"}}
    site.configure(daq={"while_live": "nothing", "live_document": where})
    control = site.client[site.database]["control"]
    site.document(1)
    assert due(site).start
    control.insert_one({"detector": "tpc", "active": "true"})
    assert due(site).held == f"the DAQ is live ({site.database}.control) (daq.while_live: nothing)"
    control.update_one({}, {"$set": {"active": "false"}})
    assert due(site).start


def test_no_more_runs_are_at_work_in_the_site_than_max_jobs(site: Site) -> None:
    site.configure(claim={"max_jobs": 3, "max_runs": 2})
    for number in range(1, 7):
        site.document(number)
    with connect(site.config) as db:
        looked = [look(db, site.config, "online")]
        assert claimed(site, looked[0]) == ["000006", "000005"]
        looked.append(look(db, site.config, "online"))
        assert claimed(site, looked[1]) == ["000004"]
        looked.append(look(db, site.config, "online"))
        assert [gate.room for gate in looked] == [3, 1, 0]
        # two invocations that looked at the same moment
        assert claimed(site, looked[1]) == []
        assert claimed(site, looked[2]) == []
        assert site.status(3) is None
        assert due(site).held == "3 runs are at work at this site, as many as claim.max_jobs allows"
        # another campaign counts too
        site.init("v5")
        site.runs.update_many({"number": 6}, {"$rename": {"straxflow.online": "straxflow.v5"}})
        assert look(db, site.config, "online").room == 0
    result = site.dry_run()
    assert "nothing is claimed: 3 runs are at work" in result.output
    assert "0 pending runs would be claimed" in result.output


def test_claims_of_the_dead_do_not_count_as_work(site: Site) -> None:
    site.configure(claim={"max_jobs": 2, "max_runs": 2})
    for number in (1, 2, 3):
        site.document(number)
    here = Owner.current()
    dead = Owner(here.host, here.boot, here.pid, here.start - 1)
    with connect(site.config) as db:
        assert len(Claimer(db, site.config, "online", "theirs", dead).claim_pending(lambda _: True, print)) == 2
        gate = look(db, site.config, "online")
        assert gate.room == 2
        assert claimed(site, gate) == ["000003", "000002"]
        # nor does one on a run that nobody may take over any more
        site.runs.update_one({"number": 1}, {"$set": {"straxflow": site.doc(2)["straxflow"]}})
        site.runs.update_one({"number": 1}, {"$set": {"straxflow.online.claim.owner": dead.as_dict()}})
        site.runs.update_one({"number": 1}, {"$set": {"tags": [{"name": "abandon"}]}})
        assert look(db, site.config, "online").room == 0
        site.runs.update_one({"number": 2}, {"$set": {"straxflow.online.claim.owner": dead.as_dict()}})
        assert look(db, site.config, "online").room == 1


ODD: dict[str, dict[str, Any]] = {
    "an end without end": {"end": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)},
    "an end that no calendar has": {"end": DatetimeMS(2**60)},
    "a list of numbers": {"number": [3]},
    "a list with the number of another run": {"number": [2]},
    "a claim that is a list": {"straxflow": {"online": {"claim": [{"batch": "b"}]}}},
    "a claim without an owner": {"straxflow": {"online": {"claim": {"batch": "b", "renewed": DatetimeMS(2**60)}}}},
    "a lease for ever": {
        "straxflow": {"online": {"claim": {"batch": "b", "owner": Owner.current().as_dict(), "lease_s": float("inf"),
                                           "renewed": datetime(9999, 1, 1, tzinfo=UTC)}}}
    },
    "parts without number": {"straxflow": {"partial": {"chunks": float("inf"), "end": 1, "by": 1, "reason": 1}}},
    "an experiment that is a list": {"experiment": [1]},
    "tags that are none": {"tags": {"name": 3}},
    "detectors that are none": {"detectors": {"a": 1}},
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_whatever_one_document_is_others_are_claimed(site: Site, odd: str) -> None:
    site.document(2)
    site.document(3, processing_status="pending")
    site.runs.update_one({"number": 3}, {"$set": ODD[odd]})
    assert due(site).start
    told: list[str] = []
    with connect(site.config) as db:
        claimer = Claimer(db, site.config, "online", "mine", Owner.current())
        taken = claimer.claim_pending(lambda _: True, told.append, look(db, site.config, "online"))
    assert "000002" in [one.run.id for one in taken]
    assert [text for text in told if "3" in text] or len(taken) == 2 or "end" in ODD[odd]
    assert site.dry_run().code == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"disks": {"live": {"min_free_gb": 1e9}}}, "the disk of live, .*, is too full: .* GB free, .* % used; "
         r"disks.live.min_free_gb is 1e\+09"),
        ({"disks": {"state": {"max_used_percent": 0.0001}}}, "the disk of state, .*, is too full: .*disks.state.max_u"),
        ({"disks": {"staging": {"max_used_percent": 0.0001}}}, "the disk of staging, .*, is too full: .*disks.stagi"),
    ],
)  # fmt: skip
def test_a_full_disk_holds_what_is_due(site: Site, settings: dict[str, Any], said: str) -> None:
    site.configure(**settings)
    site.document(1)
    assert re.match(said, str(due(site).held))
    with connect(site.config) as db:
        assert [bool(re.match(said, why)) for why in why_not(db, site.config, "online", "000001")] == [True]
        gate = look(db, site.config, "online")
    assert claimed(site, gate) == []


def test_a_full_disk_stops_claims_and_says_so(site: Site) -> None:
    site.configure(store={"min_free_gb": 1e9})
    site.document(1)
    said = "straxflow: nothing is claimed: the disk of store, .*, is too full: .*; store.min_free_gb is"
    preview = site.dry_run()
    assert re.search(said, preview.output), preview.output
    assert (preview.code, preview.jobs) == (0, [])
    before = site.dump_database()
    result = site.snakemake()
    assert result.code == 0, result.output
    assert re.search(said, result.output), result.output
    assert site.dump_database() == before


def test_a_remote_store_is_asked_for_its_space(site: Site) -> None:
    site.configure(store={"ssh": site.sshd.host, "ssh_options": site.sshd.ssh_options, "min_free_gb": 1e9})
    assert [disk.kind for disk in disks(site.config, site.state())] == ["live", "staging", "state", "store"]
    [problem] = too_full(site.config, site.state())
    assert problem.startswith(f"the disk of store, {site.sshd.host}:{site.folder}/store, is too full")
    site.configure(store={"ssh": "nobody@127.0.0.1", "ssh_options": ["-p", "1"]})
    [problem] = too_full(site.config, site.state())
    assert problem.startswith("free space is not known: ssh nobody@127.0.0.1: ")


def test_the_switch_stops_claims_but_not_what_a_person_names(site: Site) -> None:
    site.take(1)
    site.take(2)
    with connect(site.config) as db:
        set_switch(db, site.config, "off", "cleaning")
    preview = site.dry_run()
    assert (preview.code, preview.jobs) == (0, [])
    assert "straxflow: nothing is claimed: auto_processing is off (turned by" in preview.output
    result = site.snakemake()
    assert result.code == 0, result.output
    assert "straxflow: claimed 0 pending runs" in result.output
    result = site.snakemake("runs/000001/released.json")
    assert result.code == 0, result.output
    assert "auto_processing is off" in result.output
    assert "runs that were named are worked on all the same" in result.output
    assert [site.status(1), site.status(2)] == ["done", None]


def test_jobs_go_by_the_order_of_claiming_to_the_partition_for_their_time(site: Site) -> None:
    table = [{"up_to_min": 60, "partition": "short"}, {"partition": "long"}]
    site.configure(resources={"partitions": table, "process": {"runtime_min": 50}, "transfer": {"runtime_min": 70}})
    for number in (1, 2, 3):
        site.take(number, size_mb=0.5)
    site.runs.update_one({"number": 2}, {"$set": tag("prioritize")})
    result = site.snakemake("--cores", "1", env={"STRAXFLOW_TEST": "1"})
    assert result.code == 0, result.output
    begun = [job.split()[1].split("/")[0] for job in result.jobs]
    assert list(dict.fromkeys(begun)) == ["000002", "000003", "000001"], result.jobs
    asked = re.findall(r"^(?:local)?rule (\w+):(?:\n .*)*?\n    resources: (.*)$", result.output, re.M)
    partitions = {
        (rule, re.findall(r"slurm_partition=(\w+)", resources)[0]) for rule, resources in asked if "slurm" in resources
    }
    assert partitions == {("transfer", "long"), ("process", "short"), ("checksum", "short"), ("move_out", "short")}
    # each run's jobs come before those of the next
    assert begun == sorted(begun, key=["000002", "000003", "000001"].index), result.jobs


def test_a_run_that_does_not_fit_waits(site: Site) -> None:
    site.take(1)
    site.runs.update_one({"number": 1}, {"$set": {"rate": {"demo": {"avg": 1e9}}}})
    result = site.snakemake("--retries", "0")
    assert result.code == 1
    assert re.search(r"run 000001: does not fit on the disk of .*: .* GB are expected by its rate", result.output)
    assert (site.status(1), site.reason(1).startswith("transfer of live: run 000001: does not fit")) == (
        "pending",
        True,
    )
    assert site.doc(1)["straxflow"]["online"]["waits"] == 1
