"""`straxflow space`: room on the disks, what could be released, and leftovers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from straxflow.cli.output import Table, add, emit, emit_json, size, span, table
from straxflow.cli.site import Site, open_site
from straxflow.folders import marker_site
from straxflow.fsio import check_marker
from straxflow.reports.disks import Disk, Growth, local, remote
from straxflow.reports.space import Fate, Folder, Inventory, size_of

EACH = 15
SHOWN: tuple[Fate, ...] = ("could be released", "kept by configuration", "leftover", "unknown")

DESCRIPTION = (
    "Shows the site's disks (free, used, how long the room lasts at the present rate), what takes the room by kind,\n"
    "what could be released and where it was read back elsewhere, what is left over by dead attempts or set aside,\n"
    "and folders that no receipt of any campaign knows. Nothing is removed: `release` does that in the workflow,\n"
    "after reading the other copies again. Exit code 1 if a disk or a receipt cannot be read."
)
EXAMPLES = (
    "straxflow --profile stoomboot space",
    "straxflow --profile stoomboot space --all --json",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--all", action="store_true", help=f"all folders, not just the {EACH} largest of a kind")
    parser.add_argument(
        "--no-measure", action="store_true", help="do not add up the files of folders that no receipt knows"
    )
    parser.add_argument("--json", action="store_true", help="every folder, as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print what takes room."""
    site = open_site(arguments)
    check_marker(site.state.folder, "state", marker_site(site.config, "state", site.state))
    disks = [*local(site.config, site.state), *remote(site.config)]
    inventory = Inventory(site.config, site.state)
    folders = list(inventory.folders((lambda _: None) if arguments.no_measure else size_of))
    growth = Growth(site.config, site.state)
    if arguments.json:
        emit_json({
            "disks": [{**vars(disk), "bytes_per_day": growth.of(disk)} for disk in disks],
            "folders": folders,
            "problems": inventory.problems,
        })  # fmt: skip
    else:
        emit(*_told(site, disks, growth, folders, arguments.all))
        emit(*inventory.problems)
    return 1 if inventory.problems or any(disk.problem for disk in disks) else 0


def _told(
    site: Site, disks: Sequence[Disk], growth: Growth, folders: Sequence[Folder], everything: bool
) -> Iterator[Table | str]:
    made = table("disk", "where", ">free", ">used", ">grows a day", ">lasts", "~")
    for disk in disks:
        rate = growth.of(disk)
        used = f"{100 - disk.free_percent:.0f} %" if disk.free_percent is not None else None
        lasts = span(disk.free / rate * 86_400) if disk.free is not None and rate else None
        add(made, disk.kind, disk.where, size(disk.free), used, size(rate), lasts, disk.problem)
    yield made
    if folders:
        yield "\nwhat takes the room:"
        yield _sums(folders)
    for fate in SHOWN:
        rows = sorted((one for one in folders if one.fate == fate), key=lambda one: -(one.bytes or 0))
        if not rows:
            continue
        yield f"\n{fate} ({len(rows)}, {size(sum(one.bytes or 0 for one in rows)) or 'nothing'}):"
        found = table("  place", "run", ">size", "name", "~why")
        for one in rows if everything else rows[:EACH]:
            of = f"{one.run} {one.product}" if one.run else ""
            add(found, f"  {one.kind}", of, "?" if one.bytes is None else size(one.bytes) or "0", one.name, one.why)
        yield found
        if len(rows) > EACH and not everything:
            yield f"  and {len(rows) - EACH} more (--all)"


def _sums(folders: Sequence[Folder]) -> Table:
    made = table("  place", "what", ">folders", ">size")
    kinds = sorted({(one.kind, one.fate) for one in folders})
    for kind, fate in kinds:
        rows = [one for one in folders if (one.kind, one.fate) == (kind, fate)]
        add(made, f"  {kind}", fate, len(rows), size(sum(one.bytes or 0 for one in rows)))
    return made
