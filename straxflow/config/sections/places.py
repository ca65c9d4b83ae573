"""Where things are: folders, store, run database, DAQ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from straxflow.config.sections.base import Host, Seconds, Section

EXPANDED = re.compile(r"[*?\[\]\\]")
"""What rsync would expand on the other side."""

SSH_OPTIONS = (
    "Options for ssh, e.g. ['-p', '2222', '-i', 'key']. AES-GCM is the first cipher asked for where the processor "
    "knows AES; ['-c', NAME] asks for another."
)


class Room(Section):
    """What must stay free on a disk; below it nothing is claimed that nobody named."""

    min_free_gb: float = Field(10, ge=0, description="Free space below which nothing is claimed, GB.")
    max_used_percent: float = Field(98, gt=0, le=100, description="Use above which nothing is claimed, % (as df).")


class Disks(Section):
    """What must stay free on the disks of the folders; for the store see `store`."""

    state: Room = Field(Room(min_free_gb=1), description="The disk of `folders.state`.")
    live: Room = Field(Room(), description="The disk of `folders.live`.")
    staging: Room = Field(Room(), description="The disk of `folders.staging`.")


class Folders(Section):
    """Folders of this site; relative ones count from the folder of the Snakefile. `straxflow init` makes them."""

    state: Path = Field(description="Receipts, claims, attempts and logs; on a disk that all jobs share.")
    live: Path = Field(description="Where the DAQ's live data arrives, one folder a run.")
    staging: Path = Field(description="Where products stay between process and move_out.")
    scratch: Path | None = Field(
        None, description="Private scratch of attempts; by default in a hidden folder of `staging`."
    )

    @property
    def scratch_folder(self) -> Path:
        """The scratch folder in effect."""
        return self.scratch or self.staging / ".scratch"


class Store(Room):
    """The final place of the products."""

    folder: Path = Field(description="Folder that holds <run>-<data type>-<hash> folders, as strax reads them.")
    hosts: list[str] = Field(
        [],
        description="Names in the `host` field of data entries, an entry for each; by default the site. amstrax looks "
        "for the fully qualified name of the machine it reads on.",
    )
    ssh: Host | None = Field(None, description="[user@]host of a remote store; absent: the folder is mounted here.")
    ssh_options: list[str] = Field([], description=SSH_OPTIONS)

    @model_validator(mode="after")
    def _rsync_takes_it(self) -> Self:
        if self.ssh and (EXPANDED.search(str(self.folder)) or not self.folder.is_absolute()):
            raise ValueError("folder: of a remote store must be an absolute path without * ? [ ] \\")
        return self


class Tunnel(Section):
    """An ssh tunnel to the run database, opened, watched and reopened by straxflow."""

    ssh: Host = Field(description="[user@]host that can reach the database.")
    ssh_options: list[str] = Field([], description="Options for ssh.")
    remote_host: str = Field(
        "localhost", pattern=r"^[A-Za-z0-9\[][A-Za-z0-9_.:\]-]*$", description="The database's host as seen from there."
    )
    remote_port: int = Field(27017, ge=1, le=65535, description="The database's port there.")


class Switch(Section):
    """The document that turns automatic work on and off: `{name: auto_processing, status: on}`."""

    database: str | None = Field(None, description="Its database, if not that of the run documents.")
    collection: str = Field("straxflow_switch", description="Its collection.")
    name: str = Field("auto_processing", description="Its `name`. While its `status` is not `on`, nothing is claimed.")


class RunDb(Section):
    """The run database: MongoDB, or, without one, what is found in the DAQ's folders (`discovery`)."""

    kind: Literal["mongodb", "folders"] = Field(
        "mongodb",
        description="`folders`: no database is needed; runs are discovered in `daq.folder`, and what would stand in "
        "their documents stands in the file `runs.sqlite` of the state folder.",
    )
    uri: str = Field(
        "mongodb://localhost:27017/",
        description="Without a password; with a tunnel, its host and port are replaced.",
    )
    database: str = Field("run", description="Database name.")
    collection: str = Field("runs", description="Collection of the run documents.")
    user: str | None = Field(None, description="User name, if the database asks for one.")
    auth_source: str | None = Field(None, description="Database that holds the user.")
    password_env: str = Field("STRAXFLOW_RUNDB_PASSWORD", description="Environment variable that holds the password.")
    password_file: Path | None = Field(None, description="File that holds the password; its mode must be 600.")
    timeout_s: Seconds = Field(5, description="How long to wait for the database, in seconds.")
    tunnel: Tunnel | None = Field(None, description="Reach the database through this ssh tunnel.")
    switch: Switch = Field(Switch(), description="The document that turns automatic work on and off.")

    @field_validator("uri")
    @classmethod
    def _no_password(cls, uri: str) -> str:
        if not re.match(r"mongodb(\+srv)?://", uri):
            raise ValueError("must start with mongodb://")
        user, at, _ = uri.partition("://")[2].rpartition("@")
        if (at and ":" in user) or re.search(r"[?&][^&=]*(password|token|authMechanismProp)", uri, re.IGNORECASE):
            raise ValueError("holds a password; give `user`, and the password by the environment or `password_file`")
        return uri


class LiveDocument(Section):
    """A document of the DAQ's that says that it takes data."""

    database: str = Field("daq", description="Its database.")
    collection: str = Field("detector_control", description="Its collection.")
    query: dict[str, object] = Field(description="The DAQ is live while this finds a document, e.g. {active: 'true'}.")


class Daq(Section):
    """The DAQ's disk, and what is done while it takes data."""

    host: str = Field(description="The `host` of the DAQ's live data entries in the run documents.")
    folder: Path = Field(description="Folder there that holds one folder a run; may contain {experiment}.")
    run_folder: str = Field(
        "{run}",
        pattern=r"^[^/]+$",
        description="Name of a run's folder there: a template of {run} (the run id), {number} and {experiment}, e.g. "
        "`r{number:04d}`.",
    )
    ssh: Host | None = Field(None, description="[user@]host; absent: the folder is mounted here.")
    ssh_options: list[str] = Field([], description=SSH_OPTIONS)
    while_live: Literal["work", "transfer", "nothing"] = Field(
        "work",
        description="What is claimed while a run is being taken: everything; live data to bring in, but no products "
        "to make; nothing.",
    )
    live_hours: float = Field(
        24,
        gt=0,
        description="The newest run is being taken if it has no end and began less than so many hours ago; after "
        "that the DAQ is taken to have crashed.",
    )
    live_document: LiveDocument | None = Field(None, description="Instead of the newest run, this document tells.")

    @field_validator("folder")
    @classmethod
    def _rsync_takes_it(cls, folder: Path) -> Path:
        if EXPANDED.search(str(folder)):
            raise ValueError("must be a path without * ? [ ] \\")
        return folder

    @field_validator("run_folder")
    @classmethod
    def _is_one_of_many(cls, template: str) -> str:
        if EXPANDED.search(template) or template.startswith(("-", ".")):
            raise ValueError("must be a name without * ? [ ] \\ that begins with neither - nor a dot")
        if "{run" not in template and "{number" not in template:
            raise ValueError("must contain {run} or {number}, or all runs would share a folder")
        return template
