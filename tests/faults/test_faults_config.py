"""Configurations that are wrong, or hostile: told by the key's path, never by a traceback; and no word of one is ever
given to a shell or expanded, here or on another host."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from straxflow import corrections, hooks, strax_python
from straxflow.claimfile import Fence
from straxflow.config import Config, load, load_files
from straxflow.config.load import _model_in
from straxflow.config.words import fill_command
from straxflow.daqfolder import run_place
from straxflow.errors import ConfigError, StraxflowError
from straxflow.lab.sshd import Sshd
from straxflow.receipts import RunFacts, State
from straxflow.rundb.client import connect
from straxflow.rundb.discovery import Discovery
from straxflow.rundb.tunnel import Tunnel
from straxflow.steps.job import Job
from straxflow.steps.program import run_program
from straxflow.transport import open_store, ssh
from straxflow.transport.pull import pull
from tests.faults.conftest import MakeSite

MINIMAL: dict[str, Any] = {
    "site": "here",
    "folders": {"state": "state", "live": "live", "staging": "staging"},
    "store": {"folder": "/store"},
    "daq": {"host": "daq", "folder": "/daq"},
    "runs": {"min_run_number": 1},
    "products": {"raw": {"from": "live"}},
}
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def changed(path: str, value: Any) -> dict[str, Any]:
    found = deepcopy(MINIMAL)
    *sections, key = path.split(".")
    place = found
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = value
    return found


# --- files that are no YAML, or not what they seem -----------------------------------------------------------

BAD_FILES: dict[str, bytes] = {
    "a key that is a list": b"? [a, b]\n: 1\n",
    "a key that is a mapping": b"? {a: 1}\n: 1\n",
    "a key that is a number": b"1: 2\n",
    "a key that is nothing": b"~: 2\n",
    "a date that is none": b"site: 2026-99-99\n",
    "a number of 5,000 digits": b"site: " + b"9" * 5000 + b"\n",
    "a tab": b"runs:\n\tmin_run_number: 1\n",
    "brackets 3,000 deep": b"site: " + b"[" * 3_000 + b"]" * 3_000,
    "a list that holds itself": b"site: &a [*a]\n",
    "a mapping that holds itself": b"runs: &a {modes: *a}\n",
    "an object of Python": b"site: !!python/object/apply:os.system ['true']\n",
    "an unknown anchor": b"site: *nowhere\n",
    "two documents": b"site: a\n---\nsite: b\n",
    "bytes that are no UTF-8": b"site: \xff\xfe\xfd\n",
    "a NUL": b"site: a\0b\n",
    "an escaped NUL": b'store: {folder: "/a\\0b"}\n',
    "an image": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "a word": b"hello\n",
    "nothing at all": b"",
    "a key twice": b"site: a\nsite: b\n",
    "quotes that do not end": b"site: 'a\n",
}


def complaint(wrong: Callable[[], Config]) -> str:
    with pytest.raises(ConfigError) as caught:
        wrong()
    told = str(caught.value)
    assert len(told) < 6000, len(told)
    return told


@pytest.mark.fault(
    group="config",
    broken="the config file: {name}",
    left="everything; the command ends with the file's name and what is wrong, no traceback",
    next="the same, until it is corrected",
)
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_configuration(tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.yaml").write_bytes(BAD_FILES[name])
    assert "bad.yaml" in complaint(lambda: load_files([Path("bad.yaml")], tmp_path))


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").mkdir()
    assert "bad.yaml" in complaint(lambda: load_files([Path("bad.yaml")], tmp_path))


# --- every key of the model ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """A key of the model: its path, with an example where it has names of the site's own; and its type."""

    path: str
    annotation: Any

    @property
    def takes_text(self) -> bool:
        """Whether a text or a path is among what it takes, alone, in a list or in a mapping."""
        return _takes(self.annotation, (str, Path, object))

    def holding(self, word: str) -> Any:
        """A value of its type that holds a word."""
        return _holding(self.annotation, word)


def _takes(annotation: Any, kinds: tuple[type, ...]) -> bool:
    if typing.get_origin(annotation) is typing.Literal:
        return False
    return annotation in kinds or any(_takes(inner, kinds) for inner in typing.get_args(annotation))


def _holding(annotation: Any, word: str) -> Any:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list:
        return [_holding(inner[0], word)]
    if origin is dict:
        return {word if inner[0] is str else "raw" if inner[0] is not int else 1: _holding(inner[1], word)}
    if inner and origin is not typing.Literal:
        return _holding(next(a for a in inner if _takes(a, (str, Path, object))), word)
    return word


def keys_of(model: type[BaseModel], path: str = "") -> Iterator[Key]:
    for name, field in model.model_fields.items():
        key = f"{path}{field.alias or name}"
        section = _model_in(field.annotation)
        if typing.get_origin(field.annotation) is dict and (inside := _model_in(typing.get_args(field.annotation)[1])):
            yield from keys_of(inside, f"{key}.{'raw' if key == 'products' else 'name'}.")
        elif section and typing.get_origin(field.annotation) is not list:
            yield from keys_of(section, f"{key}.")
        else:
            yield Key(key, field.annotation)


KEYS = list(keys_of(Config))
WRONG: list[Any] = [{"x": 1}, [[1]], "word", -1, 1e999, float("nan"), True, None, "", " ", 10**30, NOW, b"x", {1: 2}]


def test_the_keys_are_all_found() -> None:
    paths = {key.path for key in KEYS}
    assert {
        "site",
        "rundb.tunnel.ssh",
        "products.raw.command",
        "resources.process.mem_mb",
        "runs.tags.process",
    } <= paths
    assert len(paths) == len(KEYS) > 150


@pytest.mark.fault(
    group="config",
    broken="every key of the model, one after another: a value of each wrong type, enormous, not a number, empty",
    left="everything; the key's path is told, or the value is of the right type after all",
    next="the same, until it is corrected",
)
def test_a_wrong_value_is_told_by_its_keys_path() -> None:
    refused = 0
    for key in KEYS:
        for value in WRONG:
            try:
                load(changed(key.path, value))
            except ConfigError as error:
                refused += 1
                assert any(part in str(error) for part in (key.path, key.path.rpartition(".")[0])), (key, value, error)
                assert len(str(error)) < 4000
    assert refused > 1000


# --- words that a shell would obey --------------------------------------------------------------------------------


def hostile(marker: Path) -> list[str]:
    """Words that would make a file, were one of them ever given to a shell, to ssh as an option, or expanded."""
    return [
        f"$(touch {marker})",
        f"`touch {marker}`",
        f"; touch {marker};",
        f"x\ntouch {marker}\n",
        f"| touch {marker}",
        f"x && touch {marker} &",
        f"'; touch {marker}; '",
        f'"; touch {marker}; "',
        f"-oProxyCommand=touch {marker}",
        f"--rsync-path=touch {marker};rsync",
        f"--rsh=touch {marker}",
        "*",
        "/etc/*",
        "{x}",
        "${HOME}",
        "~",
        "../../..",
        "a b",
        "ü ☢ 検出器",
    ]


@dataclass
class Lab:
    """Where hostile words are tried: folders, an ssh connection, and a job."""

    folder: Path
    host: str
    options: list[str]

    def config(self, path: str, value: Any) -> Config:
        """A configuration whose key has this value."""
        found = changed(path, value)
        found["folders"] = {name: str(self.folder / name) for name in ("state", "live", "staging")}
        return load(found, self.folder)

    def part(self, path: str, value: Any) -> Any:
        """The same, of it the section that the key is in, as far as it is a section of the configuration."""
        return getattr(self.config(path, value), path.partition(".")[0])

    @property
    def facts(self) -> RunFacts:
        return RunFacts(run="000001", number=1, start=NOW, end=NOW, mode="m", made=NOW)

    def run(self, argv: list[str], **environment: str) -> None:
        """Run a program as a step does."""
        state = State(self.folder / "state" / "online")
        job = Job(
            self.config("site", "here"), state, "online", "000001", "raw", Fence(state, "000001", 1, "b"), 1,
            self.folder / "log",
        )  # fmt: skip
        run_program(job, argv, environment, 20, self.folder)

    def bring(self, daq: Mapping[str, Any], *arguments: str) -> None:
        """Bring live data in as a transfer does."""
        place = run_place(self.config("daq", {"host": "d", **daq}), self.facts)
        args = self.part("transfer.rsync_args", list(arguments)).rsync_args
        pull(place, self.folder / "in", ssh_options=self.options, rsync_args=["-a", *args], retries=0, idle_s=5)

    def store(self, folder: str, host: str | None) -> None:
        """Mark a store and look into it."""
        store = self.part("store", {"folder": folder, "ssh": host})
        there = open_store(store.folder, store.ssh, self.options)
        there.write_marker("store", "here")
        assert there.names() == [".straxflow.json"]

    def tunnel(self, **changes: Any) -> None:
        """Open a tunnel."""
        settings = self.part("rundb.tunnel", {"ssh": self.host, "ssh_options": self.options, **changes}).tunnel
        tunnel = Tunnel(settings, 0.5)
        try:
            tunnel.open()
        finally:
            tunnel.close()

    def ask_database(self, **changes: Any) -> None:
        """Look for a document."""
        with connect(self.config("rundb", {"uri": "mongodb://127.0.0.1:9/", "timeout_s": 0.1, **changes})) as db:
            db.runs.find_one({})

    def wait_for_corrections(self, check: str) -> None:
        """Look whether a run has its corrections."""
        config = self.config("corrections", {"check": check})
        campaign = self.part("reprocessing", {"products": ["raw"], "corrections": "v1"})
        config = config.model_copy(update={"reprocessing": campaign})
        corrections.obstacle(config, State(self.folder), None, self.facts)  # type: ignore[arg-type]  # not asked

    def discover(self, key: str, word: str, host: str | None) -> None:
        """Look for runs in the DAQ's folders."""
        daq = {"host": "d", "folder": str(self.folder / "daq"), "ssh": host, "ssh_options": self.options}
        config = self.config("daq", daq).model_copy(update={"discovery": self.part(f"discovery.{key}", word)})
        Discovery(config).look(lambda _: False)


Use = Callable[[Lab, str], object]


def both(use: Callable[[Lab, str, str | None], object]) -> Use:
    """Here, and on the other host."""

    def each(lab: Lab, word: str) -> None:
        for host in (None, lab.host):
            with contextlib.suppress(StraxflowError):
                use(lab, word, host)

    return each


def hook(kind: Any) -> Use:
    def call(lab: Lab, word: str) -> None:
        config = lab.config(f"hooks.{kind}", f"echo {word}")
        hooks.run_hook(config, kind, hooks.Facts("failed", word, run=word, mode=word))
        config = lab.config(f"hooks.{kind}", "echo {reason} {mode} {run}")
        hooks.run_hook(config, kind, hooks.Facts("failed", word, run=word, mode=word))

    return call


def command(lab: Lab, word: str) -> None:
    fields = {"run": word, "number": 1, "mode": word, "source": word, "output": word, "product": word}
    for line in (f"echo {word}", "echo {run} {mode} {source}", "sh -c 'echo \"$1\"' sh {mode}"):
        made = {"from": "live", "kind": "command", "command": line, "summary": line.replace("source", "data")}
        product = lab.config("products.raw", made).products["raw"]
        lab.run(fill_command(product.command or "", fields))
        lab.run(fill_command(product.summary or "", {**fields, "data": word}))


USES: dict[str, Use] = {
    "daq.ssh": lambda lab, word: ssh.run(lab.part("daq.ssh", word).ssh, lab.options, ["true"], timeout_s=10),
    "store.ssh": lambda lab, word: ssh.run(lab.part("store.ssh", word).ssh, lab.options, ["true"], timeout_s=10),
    "daq.ssh_options": lambda lab, word: ssh.run(lab.host, [*lab.options, word], ["true"], timeout_s=10),
    "daq.folder": both(lambda lab, word, host: lab.bring({"folder": f"/{word}", "ssh": host})),
    "daq.run_folder": both(
        lambda lab, word, host: lab.bring({"folder": "/d", "run_folder": word + "{run}", "ssh": host})
    ),
    "store.folder": both(lambda lab, word, host: lab.store(f"{lab.folder}/{word}", host)),
    "transfer.rsync_args": lambda lab, word: lab.bring({"folder": f"{lab.folder}/daq", "ssh": lab.host}, word),
    "folders.live": lambda lab, word: lab.run(
        ["ls", str(lab.part("folders", {**MINIMAL["folders"], "live": word}).live)]
    ),
    "rundb.tunnel.ssh": lambda lab, word: lab.tunnel(ssh=word),
    "rundb.tunnel.ssh_options": lambda lab, word: lab.tunnel(ssh_options=[*lab.options, word]),
    "rundb.tunnel.remote_host": lambda lab, word: lab.tunnel(remote_host=word),
    "rundb.uri": lambda lab, word: lab.ask_database(uri=f"mongodb://{word}/"),
    "rundb.database": lambda lab, word: lab.ask_database(database=word),
    "rundb.collection": lambda lab, word: lab.ask_database(collection=word),
    "rundb.user": lambda lab, word: lab.ask_database(user=word),
    "products.raw.command": command,
    "hooks.on_failure": hook("on_failure"),
    "hooks.on_stall": hook("on_stall"),
    "strax.python": lambda lab, word: strax_python.ask(lab.config("strax.python", [word]), "none", [], 10),
    "strax.environment": lambda lab, word: lab.run(["true"], **lab.part("strax.environment", {"X": word}).environment),
    "corrections.check": lambda lab, word: lab.wait_for_corrections(f"echo {word}"),
    "discovery.facts_file": both(lambda lab, word, host: lab.discover("facts_file", word, host)),
    "discovery.facts_command": lambda lab, word: lab.discover("facts_command", f"echo {word}", None),
}
"""What the keys whose text reaches a command line, another host or the disk are used for."""


@pytest.mark.fault(
    group="config",
    broken="every key that takes a text: words that a shell would obey or expand, options for ssh and rsync",
    left="everything; the key's path is told, or the word stands as it is",
    next="the same, until it is corrected",
)
def test_a_hostile_word_is_refused_by_its_key_or_taken_literally(tmp_path: Path) -> None:
    marker = tmp_path / "X"
    for key in KEYS:
        for word in hostile(marker) if key.takes_text else []:
            try:
                load(changed(key.path, key.holding(word)), tmp_path)
            except ConfigError as error:
                assert any(part in str(error) for part in (key.path, key.path.rpartition(".")[0])), (key, word, error)
    assert not marker.exists()


@pytest.mark.slow
@pytest.mark.fault(
    group="config",
    broken="{path}, used for real: words that a shell would obey or expand, options for ssh and rsync",
    left="everything; nothing is run or expanded, here or on the other host",
    next="the same, until it is corrected",
)
@pytest.mark.parametrize("path", USES)
def test_a_hostile_word_is_never_obeyed(tmp_path: Path, sshd: Sshd, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "daq" / "000001").mkdir(parents=True)
    (tmp_path / "daq" / "000001" / "THE_END").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRAXFLOW_RUNDB_PASSWORD", "x")
    marker = tmp_path / "X"
    # whoever may write the configuration may name any program: an option of ssh's own is not a slip
    words = [w for w in hostile(marker) if not ("Proxy" in w and path.endswith("ssh_options")) and ".." not in w]
    with ssh.shared_connection(sshd.host, sshd.ssh_options) as options:
        lab = Lab(tmp_path, sshd.host, list(options))
        for word in words:
            # what is wrong with it is told; anything but straxflow's own errors fails the test
            with contextlib.suppress(StraxflowError):
                USES[path](lab, word)
            assert not marker.exists(), word


@pytest.mark.parametrize("word", ["{mode}", "{reason}"])
@pytest.mark.parametrize("line", ["sh -c 'echo {}'", "/bin/bash -lc 'x {}'", "env A=1 zsh -c {}", "ssh gate chat {}"])
def test_what_others_say_is_not_given_to_a_shell(line: str, word: str) -> None:
    told = complaint(lambda: load(changed("hooks.on_failure", line.replace("{}", word))))
    assert "hooks.on_failure: a shell would read" in told
    assert load(changed("hooks.on_failure", f"sh -c 'chat \"$1\"' sh {word}"))


# --- a whole deployment under odd names, and any configuration at all ----------------------------------------------


@pytest.mark.slow
@pytest.mark.fault(
    group="config",
    broken="all folders of a site have spaces, unicode, quotes and shell words in their names",
    left="a run brought in, made, stored and released as anywhere else",
    next="nothing to do",
)
def test_odd_names_of_folders_are_names(make_site: MakeSite) -> None:
    site = make_site()
    odd = site.folder / "a b  'q' \"q\" ü☢ $(touch X) `touch X`; touch X; #{run} %s ~ & | < > !"
    odd.mkdir()
    folders = {name: str(odd / name) for name in ("state", "live", "staging")}
    (site.folder / "daq").rename(odd / "daq")
    site.daq.folder = odd / "daq"
    site.configure(folders=folders, store={"folder": str(odd / "store")}, daq={"folder": str(odd / "daq")})
    site.init()
    site.take(1, "led", 0.5)
    result = site.snakemake()
    assert (result.code, site.status(1)) == (0, "done"), result.output
    assert sorted(path.name for path in odd.iterdir()) == ["daq", "live", "staging", "state", "store"]
    assert len(list((odd / "store").glob("000001-raw-*"))) == 1
    assert not [path for path in site.folder.rglob("X") if path.name == "X"]


WORDS = st.one_of(st.sampled_from(sorted({part for key in KEYS for part in key.path.split(".")})), st.text(max_size=8))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(hostile(Path("X"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.fault(
    group="config",
    broken="any keys and values at all",
    left="everything; straxflow's own words, of a screen at most",
    next="the same, until it is corrected",
)
@settings(max_examples=400, deadline=None)
@given(st.dictionaries(WORDS, VALUES, max_size=4), st.sampled_from(KEYS), VALUES)
def test_no_configuration_ends_in_a_traceback(more: dict[str, Any], key: Key, value: Any) -> None:
    for found in ({**MINIMAL, **more}, changed(key.path, value), more):
        with contextlib.suppress(ConfigError):
            load(found)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), VALUES.map(lambda v: yaml.safe_dump(v).encode()), st.text(max_size=80)))
def test_no_file_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes | str) -> None:
    folder = tmp_path_factory.mktemp("yaml")
    (folder / "any.yaml").write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "ignore"))
    with contextlib.suppress(ConfigError):
        load_files([Path("any.yaml")], folder)
