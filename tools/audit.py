"""Known vulnerabilities in the locked dependencies (uv.lock), by pip-audit: python tools/audit.py, or make audit.

It asks pypi.org, then osv.dev. Ends with 1 if there are any, with 2 if a package could not be asked about: pip-audit by
itself finds "no known vulnerabilities" in packages that it skipped because their source was out of reach.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SERVICES = ("pypi", "osv")


def uv() -> str:
    """The uv that set-up brought."""
    return str(next(iter(sorted((ROOT / ".tools").glob("uv-*/bin/uv"), reverse=True)), "uv"))


def ask(service: str, locked: Path) -> tuple[list[dict[str, Any]], str]:
    """What a service says of each package, and why it says nothing."""
    asked = subprocess.run(
        [
            *(uv(), "tool", "run", "-q", "pip-audit", "--progress-spinner", "off", "--disable-pip", "--no-deps"),
            *("-f", "json", "-s", service, "-r", str(locked)),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        return json.loads(asked.stdout)["dependencies"], ""
    except (ValueError, KeyError):
        return [], (asked.stderr.strip().splitlines() or ["no answer"])[-1]


def main() -> int:
    """Ask, and tell."""
    with tempfile.TemporaryDirectory() as folder:
        locked = Path(folder) / "locked.txt"
        words = ["export", "-q", "--frozen", "--all-extras", "--all-groups", "--no-emit-project", "--no-hashes"]
        subprocess.run([uv(), *words, "-o", str(locked)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        for service in SERVICES:
            packages, problem = ask(service, locked)
            skipped = [p["name"] for p in packages if "skip_reason" in p]
            known = [(p["name"], p["version"], one["id"]) for p in packages for one in p.get("vulns", [])]
            for name, version, vulnerability in known:
                print(f"{name} {version}: {vulnerability}")
            if packages and len(skipped) < len(packages):
                break
            print(f"audit: {service}: {problem or f'it knows none of the {len(skipped)} packages'}", file=sys.stderr)
    if not packages or skipped:
        left = ", ".join(skipped[:5]) or "any package"
        print(f"audit: the source of vulnerabilities is out of reach: nothing is known of {left}...", file=sys.stderr)
    else:
        print(f"audit: {len(packages)} packages, {len(known)} known vulnerabilities")
    return 1 if known else 2 if not packages or skipped else 0


if __name__ == "__main__":
    sys.exit(main())
