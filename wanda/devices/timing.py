"""Correct timing on asynchronous devices: phases synchronise, laps use events."""

import time
from contextlib import contextmanager
from itertools import pairwise

import torch


class Clock:
    """Adds up the seconds spent in named phases of work on the given devices."""

    def __init__(self, phases, devices=()):
        self.phases = phases
        self.gpus = [device for device in map(torch.device, devices) if device.type == "cuda"]

    @contextmanager
    def __call__(self, phase):
        """Charge the time of a `with` to a phase."""
        began = time.perf_counter()
        yield
        for device in self.gpus:
            torch.cuda.synchronize(device)  # else the work of one phase would be charged to the next
        self.phases[phase] = self.phases.get(phase, 0.0) + time.perf_counter() - began


class Watch:
    """Seconds between laps of the work on a device. On CUDA it uses events; only `laps` blocks."""

    def __init__(self, device):
        self.device, self.marks = device, []
        self.lap()

    def lap(self):
        """Record the time."""
        if self.device.type == "cuda":
            self.marks.append(torch.cuda.current_stream(self.device).record_event(torch.cuda.Event(enable_timing=True)))
        else:
            self.marks.append(time.perf_counter())

    def laps(self):
        """Wait for the work, and return the seconds between laps."""
        if self.device.type == "cuda":
            self.marks[-1].synchronize()
            return [start.elapsed_time(stop) / 1000 for start, stop in pairwise(self.marks)]
        return [stop - start for start, stop in pairwise(self.marks)]
