"""The model of the configuration: what it accepts, what it rejects, and how it says so."""

from collections import OrderedDict
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from straxflow.config import STEPS, load, load_files, profile_files
from straxflow.config.load import ROOT
from straxflow.errors import ConfigError

MINIMAL: dict[str, Any] = {
    "site": "here",
    "folders": {"state": "state", "live": "live", "staging": "staging"},
    "store": {"folder": "store"},
    "daq": {"host": "daq", "folder": "daq"},
    "runs": {"min_run_number": 1},
    "products": {"raw_records": {"from": "live"}, "events": {"from": "raw_records", "modes": {"exclude": ["led"]}}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    settings = deepcopy(MINIMAL)
    *sections, key = path.split(".")
    place = settings
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = value
    return settings


def complaint(settings: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(settings)
    return str(caught.value)


def test_defaults_and_paths_from_the_root(tmp_path: Path) -> None:
    config = load(MINIMAL, tmp_path)
    assert config.steps == list(STEPS)
    assert config.folders.state == tmp_path / "state"
    assert config.folders.scratch_folder == tmp_path / "staging/.scratch"
    assert config.store.folder == tmp_path / "store"
    assert config.store_hosts == ["here"]
    assert config.targets("events") == ["events"]


def test_snakemake_gives_ordered_dicts() -> None:
    ordered = OrderedDict({k: OrderedDict(v) if isinstance(v, dict) else v for k, v in MINIMAL.items()})
    assert load(ordered) == load(MINIMAL)


@pytest.mark.parametrize("path", ["store.folder", "daq.folder"])
def test_a_remote_path_is_left_as_it_is(path: str, tmp_path: Path) -> None:
    section = path.partition(".")[0]
    settings = changed(path, "/remote/place")
    settings[section]["ssh"] = "user@host"
    assert getattr(load(settings, tmp_path), section).folder == Path("/remote/place")


@pytest.mark.fault(
    group="config",
    broken="{path}: {value}",
    left="everything; the message has the key's path, and the right word where there is one",
    next="the same, until it is corrected",
)
@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("prodcts", {}, "prodcts: unknown key, did you mean 'products'?"),
        ("rundb.databse", "run", "rundb.databse: unknown key, did you mean 'database'?"),
        (
            "rundb.tunnel",
            {"ssh": "a", "remot_port": 1},
            "rundb.tunnel.remot_port: unknown key, did you mean 'remote_port'?",
        ),
        ("products.events.form", "live", "products.events.form: unknown key, did you mean 'from'?"),
        ("products.events.modes", {"exclud": []}, "products.events.modes.exclud: unknown key, did you mean 'exclude'?"),
        ("resources.process", {"mem": 1}, "resources.process.mem: unknown key"),
        ("transfer.max_parallel", 0, "transfer.max_parallel: "),
        ("rundb.uri", "mongodb://user:pw@host/", "rundb.uri: holds a password"),
        ("rundb.uri", "http://host", "rundb.uri: must start with mongodb://"),
        ("run_id", "{number:06d}-{mode}", "run_id: gives '000932-mode'"),
        ("run_id", "{experiment}", "run_id: must contain {number} or {name}"),
        ("run_id", "{numbr}", "run_id: is no template"),
        ("steps", ["process", "process"], "steps: named twice: process"),
        ("steps", ["transfer", "checksum"], "steps: 'checksum' needs 'process', which is left out"),
        ("steps", ["proces"], "steps.0: "),
        ("products.events.from", "peaks", "products.events.from: unknown product 'peaks' (known: live, raw_records"),
        ("products.events.targets", ["raw_records"], "'raw_records' is made by 'raw_records' already"),
        ("products.live", {"from": "raw_records"}, "products.live: `live` is the DAQ's data"),
        ("products.raw_records.from", "events", "a cycle: raw_records is made from itself"),
        ("products.events.from", "events", "products.events.from: a cycle"),
        ("products.events.kind", "command", "products.events: kind command needs a `command`"),
        ("products.events.command", "true", "products.events: `command` is for kind command"),
        ("products.no-dash", {"from": "live"}, "products.no-dash"),
        ("products", {}, "products: "),
        ("strax.context", "no colon", "strax.context: "),
        ("strax.python", [], "strax.python: "),
    ],
)
def test_what_is_wrong_is_named_by_its_key(path: str, value: Any, expected: str) -> None:
    assert expected in complaint(changed(path, value))


def test_a_password_in_the_uri_is_not_repeated() -> None:
    text = complaint(changed("rundb.uri", "mongodb://user:hunter2@host/"))
    assert "hunter2" not in text
    assert "host" in text


def test_all_errors_at_once() -> None:
    settings = changed("products.events.form", "live")
    settings["sight"] = settings.pop("site")
    del settings["runs"]["min_run_number"]
    settings["transfer"] = {"retries": "many"}
    text = complaint(settings)
    assert "5 errors" in text
    for expected in (
        "site: missing, and it has no default",
        "sight: unknown key, did you mean 'site'?",
        "runs.min_run_number: missing",
        "transfer.retries: ",
        "(found 'many')",
        "products.events.form: unknown key",
    ):
        assert expected in text


def test_products_that_are_wrong_are_listed_together() -> None:
    settings = changed("products.events.from", "nowhere")
    settings["products"]["peaks"] = {"from": "live", "targets": ["raw_records"]}
    settings["steps"] = ["transfer", "register"]
    text = complaint(settings)
    assert all(word in text for word in ("unknown product 'nowhere'", "is made by", "needs 'move_out'"))


def test_a_product_goes_with_its_source() -> None:
    settings = changed("products.raw_records.modes", {"include": ["bg*", "led"]})
    config = load(settings)
    assert config.products_for("bg_stable") == ["raw_records", "events"]
    assert config.products_for("led") == ["raw_records"]
    assert config.products_for("other") == []
    assert config.consumers("raw_records", "bg_stable") == ["events"]


def test_yaml_files_are_merged_and_strict(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("store: {folder: a, min_free_gb: 3}\n")
    (tmp_path / "b.yaml").write_text("store: {folder: b}\n")
    with pytest.raises(ConfigError, match="site: missing"):
        load_files([Path("a.yaml"), Path("b.yaml")], tmp_path)
    (tmp_path / "twice.yaml").write_text("site: a\nruns:\n  modes: [x]\n  modes: [y]\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml: line 4: the key 'modes' stands twice"):
        load_files([Path("twice.yaml")], tmp_path)
    (tmp_path / "bad.yaml").write_text("site: [a\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_files([Path("bad.yaml")], tmp_path)
    (tmp_path / "list.yaml").write_text("- site\n")
    with pytest.raises(ConfigError, match="expected keys and values, found list"):
        load_files([Path("list.yaml")], tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        load_files([Path("none.yaml")], tmp_path)


def test_profiles(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no profile 'stomboot', did you mean 'stoomboot'\?"):
        profile_files("stomboot")
    for name in ("local", "demo", "stoomboot"):
        assert profile_files(name)
        assert (ROOT / name).resolve() == ROOT / "profiles" / name


def test_fewer_products_are_whole_chains() -> None:
    settings = MINIMAL | {"products": {"raw": {"from": "live"}, "peaks": {"from": "raw"}, "events": {"from": "peaks"}}}
    kept = {2: ["raw", "peaks"], 6: ["raw"]}
    assert load(settings | {"failures": {"fewer_products": kept}}).failures.fewer_products == kept
    told = complaint(settings | {"failures": {"fewer_products": {2: ["peaks"], 3: ["raw", "event"]}}})
    assert "failures.fewer_products.2: peaks is made from raw, which the list leaves out" in told
    assert "failures.fewer_products.3: unknown product 'event' (known: raw, peaks, events)" in told


def test_the_placeholders_of_a_command_are_checked() -> None:
    command = {"from": "live", "kind": "command", "command": "copy {runn} {output}"}
    told = complaint(MINIMAL | {"products": {"raw": command}})
    assert "products.raw: unknown placeholder {runn}; placeholders are {run}, {number}" in told
