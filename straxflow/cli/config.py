"""`straxflow config`: the configuration in effect, its reference, its schema."""

from __future__ import annotations

import argparse
import json

from straxflow.cli.site import open_site
from straxflow.config import document

DESCRIPTION = "Shows the configuration in effect, or what can be configured."
EXAMPLES = ("straxflow config --doc",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--show", action="store_true", help="the configuration in effect, as YAML (the default)")
    what.add_argument("--doc", action="store_true", help="the reference of all keys, in Markdown")
    what.add_argument("--schema", action="store_true", help="the JSON schema, for editors")


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
