"""Measure perplexity after pruning, and write it to results/. Finished rows are kept: run it again to go on.

    python -m benchmarks.quality --text wikitext2 --out results/quality-wikitext2.json

WikiText-2 comes from the hub, or from wikitext-2-raw/wiki.test.raw in $WANDA_DATA or data/local.
"""

import argparse
import json
from pathlib import Path

import wanda
from wanda.assets import replacing
from wanda.comparison import compare, settings
from wanda.provenance import provenance


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--text", default="wikitext2", help="as for wanda.eval_tokens")
    parser.add_argument("--windows", type=int, help="judge by the first so many windows only (default: the whole text)")
    parser.add_argument("--length", type=int, default=1024, help="tokens per window")
    parser.add_argument("--calibration", default="news", help="as for wanda.calibration_set")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--calibration-length", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    model, tokenizer = wanda.load(options.model)
    windows = (options.samples, options.calibration_length)
    calibration = wanda.calibration_set(tokenizer, options.calibration, *windows, seed=options.seed)
    tokens = wanda.eval_tokens(tokenizer, options.text)
    tokens = tokens if options.windows is None else tokens[: options.windows * options.length]

    about = provenance(calibration=calibration, evaluation=tokens)
    setting = {
        "model": options.model,
        "dtype": str(model.dtype).removeprefix("torch."),
        "calibration": f"{options.calibration}, {windows[0]} windows of {windows[1]} tokens, seed {options.seed}",
        "evaluation": f"{Path(options.text).name}, {len(tokens)} tokens in windows of {options.length}, no overlap, no BOS",
    }
    done = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
    if done["rows"] and (done["setting"], done["data_sha256"]) != (setting, about["data_sha256"]):
        parser.error(f"{options.out} holds results of another setting; move it away first")
    measured = {(row["method"], row["pattern"]) for row in done["rows"]}
    missing = [row for row in settings() if (row.method, row.pattern) not in measured]
    for result in compare(model, calibration, tokens, missing, length=options.length):
        del result["seconds"]  # speed.py measures time, with a dense forward pass beside it
        done = {"setting": setting, **about, "rows": [*done["rows"], result]}
        with replacing(options.out) as partial:
            partial.write_text(json.dumps(done, indent=1) + "\n")
        print(f"{result['method']:>10} {result['pattern'] or '':>4}  {result['perplexity']:8.2f}", flush=True)


if __name__ == "__main__":
    main()
