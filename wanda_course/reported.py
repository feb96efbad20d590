"""Figures that others report, from data/reported.toml. Reported and measured figures never share a column."""

from wanda.sources.download import CHECKOUT, tomllib

from . import PACKAGE


def content():
    """The content of data/reported.toml: the tables, and the Hub repositories of their models."""
    file = (CHECKOUT or PACKAGE) / "data" / "reported.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def figures():
    """All reported figures.

    Returns: list of dicts with model, method, amount ("50%", "2:4"; "" for dense), text, window, perplexity, source
        and link.
    """
    found = []
    for table in content()["tables"]:
        common = {name: table[name] for name in ("text", "window", "source", "link")}
        for row in table["rows"]:
            for model, perplexity in zip(table["columns"], row["perplexity"], strict=True):
                named = {"model": model, "method": row["method"], "amount": row["amount"]}
                found.append(named | common | {"perplexity": perplexity})
    return found


def comparable(model, text, window):
    """The reported figures that our measurements can be compared with: same model, text and window.

    Args:
        model: as for `wanda.load`; a Hub id that is not in the file has no figures.
        text: name of the evaluation text, such as "wikitext2".
        window: tokens per evaluation window.

    Returns: list of dicts as in `figures`, empty if there are none.
    """
    name = content()["models"].get(str(model))
    wanted = (name, text, window)
    return [figure for figure in figures() if (figure["model"], figure["text"], figure["window"]) == wanted]
