"""The command line: `wanda prune | perplexity | compare | fetch`."""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from .devices import distributed
from .masks import GROUPS, check_sparsity, parse_pattern
from .options import METHODS, UPDATES, make_options, resolve_sparsity
from .pruning import prune
from .sources.checkpoints import copy_companions, find_folder
from .sources.download import check_writable, default_assets, fetch
from .sources.models import BUNDLED, load, prepare, save
from .sources.text import calibration_set, eval_tokens
from .streaming.resume import check_target
from .streaming.run import prune_checkpoint
from .tools.compare import compare, settings
from .tools.perplexity import perplexity

EPILOG = """examples:
  wanda fetch                                                   download the default model and the texts
  wanda compare smollm2                                         magnitude, Wanda and SparseGPT on the default model
  wanda prune smollm2 --sparsity 0.5 --out pruned               remove half of the weights, save to ./pruned
  wanda prune ./llama --method sparsegpt --pattern 2:4 --calibration c4 --length 2048 --device cuda --out pruned
  torchrun --nproc-per-node 4 -m wanda prune ./llama --calibration c4 --out pruned    four processes share the batches
  wanda prune ./llama --stream --out pruned                     for models larger than memory
  wanda perplexity ./pruned --text wikitext2 --length 2048
"""
MODEL_HELP = "'smollm2' (the default model), a local folder, a .gguf file, or a Hub id"


def main(arguments=None):
    """Run a command. Returns the exit status: 0, 1 for a failure, 2 for invalid arguments, 130 if interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, TypeError) as error:
        return _ended(options, f"error: {error}", 2)
    except (RuntimeError, OSError) as error:
        return _ended(options, f"failed: {error}", 1)
    except KeyboardInterrupt:
        return _ended(options, "interrupted", 130)
    return 0


def _ended(options, why, status):
    """Print why a command ended early, and in which of several processes. Returns the exit status."""
    process = f"rank {distributed.rank()}: " if distributed.size() > 1 else ""
    print(f"wanda {options.command}: {process}{why}", file=sys.stderr)
    return distributed.leave(status)


def _parser():
    parser = argparse.ArgumentParser(
        prog="wanda",
        description="Prune language models by weights and activations (Wanda, arXiv 2306.11695).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"wanda {version('wanda-pruning')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("prune", help="prune a model and save it", formatter_class=_Defaults)
    command.set_defaults(run=_prune)
    _add_model(command)
    command.add_argument("--method", default="wanda", choices=METHODS, help="how weights are chosen")
    _add_amount(command)
    command.add_argument("--group", choices=GROUPS, help="the weights that compete (default: the method's)")
    command.add_argument("--update", choices=UPDATES, help="repair the kept weights with SparseGPT's update")
    command.add_argument(
        "--propagate",
        default="pruned",
        choices=("pruned", "dense"),
        help="a block's inputs: its pruned predecessors' outputs (the paper), or the dense model's (half the time)",
    )
    command.add_argument(
        "--skip", nargs="+", default=(), metavar="LAYER", help="layers to leave dense: names, parts, wildcards"
    )
    _add_calibration(command)
    command.add_argument("--out", required=True, type=Path, help="new or empty folder for the pruned model")
    command.add_argument(
        "--stream",
        action="store_true",
        help="prune from file to file with one block in memory at a time; an interrupted command resumes when repeated",
    )

    command = commands.add_parser("perplexity", help="measure a model's perplexity", formatter_class=_Defaults)
    command.set_defaults(run=_perplexity)
    _add_model(command)
    _add_evaluation(command, windows=None)
    command.add_argument("--stride", type=int, help="tokens from one window's start to the next (default: no overlap)")

    command = commands.add_parser("compare", help="compare the methods on a model", formatter_class=_Defaults)
    command.set_defaults(run=_compare)
    _add_model(command)
    _add_amount(command)
    _add_calibration(command, samples=32)
    _add_evaluation(command, windows=20)

    command = commands.add_parser("fetch", help="download the default model and the texts")
    command.set_defaults(run=_fetch)
    command.add_argument(
        "names", nargs="*", metavar="NAME", help="a name in data/sources.toml (default: all but the optional ones)"
    )
    return parser


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        silent = action.default is None or action.default == () or action.required
        return action.help if silent else super()._get_help_string(action)


def _add_model(parser):
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--revision", help="branch, tag or commit of a Hub repository")
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"), help="of the weights"
    )
    parser.add_argument("--device", help="such as 'cuda'; 'auto' spreads the model over all devices (default: the CPU)")


def _add_amount(parser):
    parser.add_argument("--sparsity", type=float, default=0.5, help="fraction of the weights to remove, in [0, 1)")
    parser.add_argument(
        "--pattern", metavar="N:M", help="keep at most N of each M consecutive inputs, such as 2:4; sets the sparsity"
    )


def _add_calibration(parser, samples=128):
    sources = "'news', 'wikipedia', 'c4', 'wikitext2' or a text file"
    parser.add_argument("--calibration", default="news", metavar="SOURCE", help=f"calibration text: {sources}")
    parser.add_argument("--samples", type=int, default=samples, help="calibration windows")
    parser.add_argument("--length", type=int, default=512, help="tokens per calibration window")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of windows")
    parser.add_argument(
        "--batch-size",
        type=_batch_size,
        default="auto",
        help="windows per forward pass; 'auto': one on a CPU, about 16,000 tokens on a GPU",
    )


def _batch_size(text):
    if text != "auto" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be 'auto' or a whole number, got {text!r}")
    return text if text == "auto" else int(text)


def _add_evaluation(parser, windows):
    sources = "'wikipedia', 'news', 'wikitext2', 'c4' or a text file"
    parser.add_argument("--text", default="wikipedia", metavar="SOURCE", help=f"evaluation text: {sources}")
    flag = "--length" if windows is None else "--eval-length"
    parser.add_argument(flag, dest="eval_length", type=int, default=1024, help="tokens per evaluation window")
    parser.add_argument("--windows", type=int, default=windows, help="use only the first N windows")


def _load(options):
    dtype = options.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
    return load(options.model, dtype=dtype, device=options.device, revision=options.revision)


def _calibration(tokenizer, options):
    return calibration_set(tokenizer, options.calibration, options.samples, options.length, options.seed)


def _evaluation(tokenizer, options):
    tokens = eval_tokens(tokenizer, options.text)
    if options.windows is not None and options.windows < 1:
        raise ValueError(f"--windows must be at least 1, got {options.windows}")
    tokens = tokens if options.windows is None else tokens[: options.windows * options.eval_length]
    return tokens, f"{options.text}, {len(tokens)} tokens in windows of {options.eval_length}"


def _prune(options):
    # Check first what can be checked without loading the model.
    names = ("method", "sparsity", "pattern", "group", "update", "propagate")
    checked = make_options(**{name: getattr(options, name) for name in names})
    resolve_sparsity([], options.sparsity, options.pattern)
    if options.stream:
        return _prune_in_stream(options, checked)
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise ValueError(f"--out {options.out} exists and is not an empty folder")
    if Path(options.model).resolve() in options.out.resolve().parents:
        raise ValueError(f"--out {options.out} lies in the model's folder")
    check_writable(options.out)

    with distributed.process_group(options.device) as options.device:
        model, tokenizer = _load(options)
        is_file = options.model.endswith(".gguf")
        folder = None if is_file else find_folder(options.model, options.revision, weights=False)
        calibration = _calibration(tokenizer, options) if checked.needs_data else None
        report = prune(model, calibration, **_settings(options), progress=distributed.rank() == 0)
        if distributed.rank() == 0:
            save(model, tokenizer, options.out)
            if folder is not None:
                copy_companions(folder, options.out)
            print(report)
            print(f"saved to {options.out}")


def _settings(options):
    names = ("method", "sparsity", "pattern", "group", "update", "propagate", "skip", "batch_size")
    return {name: getattr(options, name) for name in names}


def _prune_in_stream(options, checked):
    from transformers import AutoTokenizer

    if options.dtype != "auto" or options.device == "auto":
        raise ValueError("--stream keeps the checkpoint's dtype and uses one device; omit --dtype and --device auto")
    check_target(options.out)
    folder = find_folder(options.model, options.revision)
    calibration = _calibration(AutoTokenizer.from_pretrained(folder), options) if checked.needs_data else None
    print(prune_checkpoint(folder, options.out, calibration, device=options.device, **_settings(options)))
    print(f"saved to {options.out}")


def _perplexity(options):
    model, tokenizer = _load(options)
    tokens, described = _evaluation(tokenizer, options)
    value = perplexity(model, tokens, options.eval_length, options.stride, progress=True)
    overlap = f"stride {options.stride}" if options.stride else "no overlap"
    print(f"{value:.3f}  ({described}, {overlap}, no BOS added)")


def _compare(options):
    import pandas

    if options.pattern is None:
        check_sparsity(options.sparsity, "--sparsity")
        rows = settings((options.sparsity,), ())
    else:
        parse_pattern(options.pattern)
        rows = settings((), (options.pattern,))
    model, tokenizer = _load(options)
    calibration = _calibration(tokenizer, options)
    tokens, described = _evaluation(tokenizer, options)
    results = list(compare(model, calibration, tokens, rows, length=options.eval_length, batch_size=options.batch_size))
    table = pandas.DataFrame(results)[["method", "sparsity", "perplexity", "seconds"]]
    print(f"{options.model}{' ' + options.pattern if options.pattern else ''}; perplexity on {described}")
    print(table.to_string(index=False, float_format="{:.2f}".format))


def _fetch(options):
    for name in options.names or default_assets():
        print(f"{name}: {fetch(name)}")
        if name == BUNDLED:
            prepare()  # dequantise now, so that the first `load` is fast
