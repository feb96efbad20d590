"""What was measured before, from results/*.json: the scripts in benchmarks/ write it, tables and figures read it here."""

import json

from ..assets import CHECKOUT, PACKAGE


def file(name):
    """The path of results/NAME.json, in the checkout or, where the package is installed, inside it; it may not be there."""
    return (CHECKOUT or PACKAGE) / "results" / f"{name}.json"


def read(name):
    """The content of results/NAME.json. Raises: FileNotFoundError: there is no such file."""
    return json.loads(file(name).read_text(encoding="utf-8"))
