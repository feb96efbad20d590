"""Hidden states in a file, batch by batch: what `prune_checkpoint` has where `prune` has a list in memory."""

from safetensors.torch import load, save


class Appender:
    """Takes hidden states [batch, length, hidden], on any device, as a list does; to nowhere if there is no file."""

    def __init__(self, file):
        self.file = file

    def append(self, states):
        """Write a batch: its length in bytes, then a safetensors file with the one tensor."""
        if self.file is not None:
            content = save({"states": states.cpu().contiguous()})
            self.file.write(len(content).to_bytes(8, "little"))
            self.file.write(content)


class Stream:
    """Reads such a file from its beginning, one batch at a time, as often as it is iterated over."""

    def __init__(self, path, batches):
        self.path, self.batches = path, batches

    def __iter__(self):
        if not self.batches:
            return
        with open(self.path, "rb") as file:
            for _ in range(self.batches):
                yield load(file.read(int.from_bytes(file.read(8), "little")))["states"]
