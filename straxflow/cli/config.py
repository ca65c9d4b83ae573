"""`straxflow config`: the configuration in effect, its reference, its schema."""

from __future__ import annotations

import argparse
import json

from straxflow.cli.site import open_site
from straxflow.config import document


def run(arguments: argparse.Namespace) -> int:
    """Print what was asked for."""
    if arguments.doc:
        print(document.markdown(), end="")
    elif arguments.schema:
        print(json.dumps(document.schema(), indent=2))
    else:
        site = open_site(arguments)
        print(f"# {site.origin}; campaign {site.campaign}")
        print(document.effective(site.config), end="")
    return 0
