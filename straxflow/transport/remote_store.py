"""A store in a folder of another host, over ssh and rsync."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from straxflow.digests import Difference, FileDigest, Manifest, describe, verify_tree
from straxflow.errors import Damaged, NotMounted, StepFailed
from straxflow.fsio import MARKER, judge_marker, marker_text
from straxflow.publish import must_be_whole
from straxflow.transport import ssh
from straxflow.transport.pull import pull
from straxflow.transport.rsync import Log, Place, Rsync
from straxflow.transport.store import Space, Store

# Constant texts, with arguments as positional parameters: nothing is ever pasted into a shell command.
_NAMES = 'cd -- "$1" || exit 3; find . -mindepth 1 -maxdepth 1 -print0'
_MARKER = 'cd -- "$1" || exit 3; [ -e "$2" ] || exit 4; cat -- "$2"'
_FLUSH_AND_COOL = (
    'cd -- "$1" && find . -type f -exec sync {} + && find . -depth -type d -exec sync {} + &&'
    ' find . -type f -exec dd if={} iflag=nocache count=0 status=none ";"'
)
_SHA256 = 'cd -- "$1" && find . -type f -printf "%s " -exec sha256sum -z -- {} ";"'
_RENAME = (
    'cd -- "$1" || exit 3; if [ -e "$3" ] || [ -L "$3" ]; then exit 17; fi; mv -n -T -- "$2" "$3";'
    ' if [ -e "$2" ]; then [ -e "$3" ] && exit 17; exit 1; fi; [ -d "$3" ] && sync .'
)
_DROP = 'cd -- "$1" || exit 3; rm -rf -- "$2"; [ ! -e "$2" ]'


@dataclass(frozen=True)
class RemoteStore(Store):
    """Needs there: sshd, a POSIX login shell, GNU coreutils and findutils, rsync."""

    host: str
    folder: str
    ssh_options: Sequence[str] = ()
    rsync_args: Sequence[str] = ("-a",)
    timeout_s: float = 24 * 3600
    log: Log = lambda _: None

    @property
    def where(self) -> str:  # type: ignore[override]  # read only is enough
        """Host and folder."""
        return f"{self.host}:{self.folder}"

    def _sh(self, script: str, *args: str, ok: Sequence[int] = (0,)) -> ssh.Result:
        argv = ["sh", "-c", script, "straxflow", self.folder, *args]
        result = ssh.run(self.host, self.ssh_options, argv, timeout_s=self.timeout_s)
        if result.code == 3 and 3 not in ok:
            raise NotMounted(f"{self.where}: no such folder there: is the disk mounted? ({result.err.strip()})")
        if result.code not in ok:
            raise StepFailed(f"{self.where}: failed there (exit {result.code}): {result.err.strip()[-300:]}")
        return result

    def _inside(self, script: str, name: str) -> bytes:
        argv = ["sh", "-c", script, "straxflow", f"{self.folder}/{name}"]
        result = ssh.run(self.host, self.ssh_options, argv, timeout_s=self.timeout_s)
        if result.code:
            raise StepFailed(f"{self.where}/{name}: failed there (exit {result.code}): {result.err.strip()[-300:]}")
        return result.out

    def _rsync(self, name: str = "") -> Rsync:
        place = Place(f"{self.folder}/{name}" if name else self.folder, self.host)
        return Rsync(place, self.rsync_args, self.ssh_options, log=self.log)

    def check_marker(self, kind: str, site: str) -> None:  # noqa: D102
        found = self._sh(_MARKER, MARKER, ok=(0, 4))
        judge_marker(self.where, found.out if found.code == 0 else None, kind, site)

    def write_marker(self, kind: str, site: str) -> None:  # noqa: D102
        self._sh('mkdir -p -- "$1"')
        text = marker_text(kind, site).decode()
        self._sh('cd -- "$1" || exit 3; [ -e "$2" ] || { printf %s "$3" > "$2" && sync "$2" .; }', MARKER, text)
        self.check_marker(kind, site)

    def names(self) -> list[str]:  # noqa: D102
        return sorted(os.fsdecode(n.removeprefix(b"./")) for n in self._sh(_NAMES).out.split(b"\0")[:-1])

    def space(self) -> Space:  # noqa: D102
        said = self._sh('cd -- "$1" || exit 3; df -P -k .').out.decode()
        # names may hold anything, so the numbers are known by the percentage behind them
        found = re.search(r"\s(\d+)\s+(-?\d+)\s+(?:\d+%|-)\s", said)
        if not found:
            raise StepFailed(f"{self.where}: df does not tell how much is free: {said.strip()[-300:]!r}")
        return Space(max(int(found[2]), 0) * 1024, int(found[1]) * 1024)

    def read_file(self, name: str, path: str) -> bytes:  # noqa: D102
        return self._sh('cd -- "$1" || exit 3; cat -- "$2"', f"{name}/{path}").out

    def manifest(self, name: str, algorithm: str) -> Manifest:  # noqa: D102
        self._inside(_FLUSH_AND_COOL, name)
        return Manifest(algorithm, tuple(self._digests(name, algorithm)))

    def _differences(self, name: str, manifest: Manifest, cold: bool) -> list[Difference]:
        if cold:
            self._inside(_FLUSH_AND_COOL, name)
        try:
            return manifest.differences(self._digests(name, manifest.algorithm))
        except Damaged as error:
            return [Difference(".", "type", str(error), "files and folders")]

    def _digests(self, name: str, algorithm: str) -> Sequence[FileDigest]:
        if algorithm == "xxh128":
            return self._rsync(name).digests(self.timeout_s)
        found = []
        for entry in self._inside(_SHA256, name).split(b"\0")[:-1]:
            size, digest, path = entry.split(b" ", 2)
            found.append(FileDigest(os.fsdecode(path[1:].removeprefix(b"./")), int(size), digest.decode()))
        return found

    def _copy_in(self, source: Path, incoming: str, manifest: Manifest, reuse: Sequence[str]) -> list[Difference]:
        names = [f.path for f in manifest.files]
        old = [f"{self.folder}/{n}" for n in reuse]
        self._rsync().push(source, incoming, names, old, self.timeout_s)
        return self._differences(incoming, manifest, cold=True)

    def _rename(self, incoming: str, name: str) -> bool:
        return self._sh(_RENAME, incoming, name, ok=(0, 17)).code == 0

    def _drop(self, incoming: str) -> None:
        self._sh(_DROP, incoming)

    def fetch(self, name: str, target: Path, manifest: Manifest) -> None:  # noqa: D102
        if not self.exists(name):
            raise Damaged(f"{self.where}/{name}: is not there")
        place = Place(f"{self.folder}/{name}", self.host)
        found = pull(
            place, target, rsync_args=self.rsync_args, ssh_options=self.ssh_options,
            timeout_s=self.timeout_s, log=self.log,
        )  # fmt: skip
        if manifest.algorithm == "xxh128":
            must_be_whole(target, manifest, found)
        elif differences := verify_tree(target, manifest):
            raise Damaged(f"{self.where}/{name}: differs from its manifest: {describe(differences)}")
