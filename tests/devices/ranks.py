"""The program of each process in test_distributed.py: `torchrun ... tests/devices/ranks.py FOLDER ARGUMENTS`.

The arguments are those of `wanda` except --out. Torchrun starts the processes twice, since the first attempt fails.
"""

import contextlib
import functools
import os
import runpy
import signal
import sys
import warnings
from pathlib import Path

import torch
from conftest import VOCABULARY, tiny
from torch import distributed as dist
from torch import nn
from transformers import PretrainedConfig

import wanda
from wanda import cli, pruning

METHODS = {
    "wanda": {"method": "wanda"},
    "sparsegpt": {"method": "sparsegpt"},
    "wanda 2:4": {"method": "wanda", "pattern": "2:4"},
    "sparsegpt 2:4": {"method": "sparsegpt", "pattern": "2:4"},
    "admm": {"method": "admm"},
    "dense propagation": {"method": "wanda", "propagate": "dense"},
    "magnitude": {"method": "magnitude"},
}


class Experts(nn.Module):
    """Four experts, each of two layers that share an input. Expert i gets the tokens whose id is i modulo 4."""

    def __init__(self):
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(4))
        self.gate = nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(4))

    def forward(self, hidden_states, expert):
        rows, expert = hidden_states.reshape(-1, 16), expert.reshape(-1)
        output = rows.clone()
        for number in expert.unique().tolist():
            chosen = expert == number
            own = rows[chosen]
            output[chosen] += self.up[number](own) * torch.tanh(self.gate[number](own))
        return output.reshape(hidden_states.shape)


class ExpertModel(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embedding, self.blocks = nn.Embedding(VOCABULARY, 16), nn.ModuleList(Experts() for _ in range(2))
        self.config = PretrainedConfig()

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, use_cache=False):
        hidden = self.embedding(input_ids)
        for block in self.blocks:
            hidden = block(hidden, input_ids % 4)
        return hidden


def windows():
    return torch.randint(
        VOCABULARY, (5, 24), generator=torch.Generator().manual_seed(1)
    )  # 3 for one rank, 2 for the other


def padded():
    """Batches of two windows, some of them padded on the left or on the right."""
    batches = []
    for number, ids in enumerate(windows().repeat(2, 1).split(2)):
        mask = torch.ones_like(ids)
        mask[0, : 3 * number] = 0
        mask[1, 20:] = 0
        batches.append({"input_ids": ids, "attention_mask": mask if number % 2 else torch.ones_like(ids)})
    return batches


def expert_batches():
    """Windows that reach experts 0 and 1; 2; 0; 2. Of two ranks, only rank 1 sees expert 2. None reaches expert 3."""
    places = torch.arange(12)
    return [ids[None] for ids in (places % 2 + 4, places * 0 + 2, places * 0 + 8, places * 0 + 6)]


def record(model, data, **options):
    """The result of `prune`: the weights, and the report without its seconds."""
    report = wanda.prune(model, data, progress=False, **options)
    rows = [(layer.name, layer.shape, layer.sparsity, layer.relative_error) for layer in report.layers]
    return {"weights": dict(model.named_parameters()), "rows": rows}


def message(model, data, **options):
    """The error that `prune` raises."""
    try:
        wanda.prune(model, data, progress=False, **options)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def results():
    """Everything that must not depend on the number of processes."""
    warnings.simplefilter("ignore")  # experts without tokens
    found = {name: record(tiny(), windows(), **options) for name, options in METHODS.items()}
    found["padding"] = record(tiny(), padded(), method="sparsegpt")
    found["bfloat16"] = record(tiny().to(torch.bfloat16), windows(), method="wanda")
    found["experts"] = record(ExpertModel(), expert_batches(), method="wanda")
    found["experts, sparsegpt"] = record(ExpertModel(), expert_batches(), method="sparsegpt")
    broken = tiny()
    only = min(set(windows()[1].tolist()) - set(windows()[[0, 2, 3, 4]].flatten().tolist()))  # in rank 1 alone
    broken.model.embed_tokens.weight.data[only] = float("inf")
    found["infinite"] = message(broken, windows())
    return found


def refusals():
    """The errors that only several processes can make."""
    rank = dist.get_rank()
    few, other_seed = tiny(), tiny(seed=rank)
    return {
        "few": message(few, windows()[:1]),
        "data": message(tiny(), windows() + rank * (windows() < 5)),
        "model": message(other_seed, windows()),
        "skip": message(tiny(), windows(), skip=("down_proj", "up_proj")[rank]),
        "propagate": message(tiny(), windows(), propagate=("dense", "pruned")[rank]),
        "method": message(tiny(), windows(), method=("magnitude", "wanda")[rank]),
        "shape": message(tiny(intermediate_size=64 + 32 * rank), windows()),
        "untouched": (few.model.layers[0].mlp.up_proj.weight != 0).all().item(),
    }


def fail(how):
    """Make rank 1 fail in the second block."""
    original = pruning.collect

    def collect(block, *arguments, **options):
        if os.environ["RANK"] == "1" and ".1" in block.name:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError(f"deliberate failure in {block.name}")
        return original(block, *arguments, **options)

    pruning.collect = collect


def meet_in(file):
    """Make the next process group rendezvous in a file: torchrun has a rendezvous for only one group per launch."""
    where = {"init_method": f"file://{file}", "rank": int(os.environ["RANK"]), "world_size": 2}
    dist.init_process_group = functools.partial(INIT, **where)


def main(folder, *arguments):
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        sys.argv = ["wanda", *arguments, "--out", str(folder / "several")]
        with contextlib.suppress(SystemExit):  # after success; after a failure, `several` is missing
            runpy.run_module("wanda", run_name="__main__", alter_sys=True)
        meet_in(folder / "comparison")
        dist.init_process_group("gloo")
        found = results()
        torch.save({**found, **refusals()}, folder / f"rank{dist.get_rank()}.pt")
        dist.barrier()
        dist.destroy_process_group()
        how = "raises"
    else:
        how = "killed"
    fail(how)
    meet_in(folder / f"meeting to be {how}")
    (folder / f"{how}.begun").touch()
    sys.exit(cli.main([*arguments, "--out", str(folder / how)]))


INIT = dist.init_process_group

if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
