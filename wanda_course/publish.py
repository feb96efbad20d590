"""Write the repository's address into every file that names it: `make publish REPO=owner/name`.

The address is defined in pyproject.toml, `[project.urls] Repository`. Colab badges, the notebooks' bootstrap cells and
the README's links repeat it, since Colab reads a notebook alone; this module rewrites them.
"""

import argparse
import re
import sys
import tomllib

from wanda.sources.download import CHECKOUT

GITHUB = "https://github.com/"
# GitHub's rules: an owner has letters, digits and single inner hyphens; a repository's name may also have dots and _.
REPOSITORY = re.compile(r"(?!.{40,}/)[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*/(?!\.{1,2}$)[\w.-]{1,100}(?<!\.git)", re.ASCII)
DECLARED = re.compile(rf'^(Repository = "{re.escape(GITHUB)})([^"]+)(")', re.MULTILINE)
# The address in Colab links and in install commands, whatever owner and name it has.
COLAB = re.compile(r"(https://colab\.research\.google\.com/github/)([^/\s]+/[^/\s]+)(/blob/main/notebooks/)")
INSTALL = re.compile(r"(wanda-pruning[^@\n]*@ git\+https://github\.com/)([\w.-]+/[\w.-]*\w)()")


def repository(root=CHECKOUT):
    """The repository's owner/name, from pyproject.toml.

    Raises: ValueError if it holds no address on GitHub.
    """
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    address = tomllib.loads(text).get("project", {}).get("urls", {}).get("Repository", "")
    if not DECLARED.search(text) or not address.startswith(GITHUB):
        raise ValueError(
            f'[project.urls] of pyproject.toml needs a line Repository = "{GITHUB}owner/name", not {address!r}'
        )
    return address.removeprefix(GITHUB)


def addresses(text):
    """Every owner/name that Colab links and install commands in a text name, in order."""
    found = [match for pattern in (COLAB, INSTALL) for match in pattern.finditer(text)]
    return [match[2] for match in sorted(found, key=lambda match: match.start())]


def rewritten(text, old, new):
    """A text whose Colab links, install commands, declaration and plain links to `old` point to `new`.

    Works on a notebook's file, not through nbformat: JSON escapes no character of an address, and everything else stays
    byte for byte the same.
    """
    for pattern in (DECLARED, COLAB, INSTALL):
        text = pattern.sub(rf"\g<1>{new}\g<3>", text)
    return re.sub(rf"(?<=://github\.com/){re.escape(old)}(?![\w-])", new, text)


def files(root=CHECKOUT):
    """The files that repeat the address."""
    return [root / "README.md", *sorted((root / "notebooks").glob("*.ipynb"))]


def publish(new, root=CHECKOUT):
    """Write a repository's address into pyproject.toml and every file that repeats it.

    Args:
        new: "owner/name" on GitHub.
        root: a checkout.

    Returns: the files that changed; empty if all had this address already.

    Raises: ValueError if `new` cannot be a repository's name; no file is changed.
    """
    if not REPOSITORY.fullmatch(new):
        raise ValueError(
            f"a repository is given as owner/name, such as make publish REPO=ada/wanda-tutorial; got {new!r}"
        )
    old, changed = repository(root), []
    for file in (root / "pyproject.toml", *files(root)):
        before = file.read_bytes().decode("utf-8")  # not read_text, which translates line endings
        after = rewritten(before, old, new)
        if after != before:
            file.write_bytes(after.encode("utf-8"))
            changed.append(file)
    return changed


def main(arguments=None):
    """Run the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="publish", description=__doc__.partition("\n")[0])
    parser.add_argument("repository", metavar="OWNER/NAME", nargs="?", default="")
    options = parser.parse_args(arguments)
    if CHECKOUT is None:
        parser.error("run it from a checkout: an installed package has no notebooks")
    try:
        changed = publish(options.repository)
    except ValueError as error:
        parser.error(str(error))
    for file in changed:
        print(file.relative_to(CHECKOUT))
    print(f"{len(changed)} changed; the repository's address is {GITHUB}{repository()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
