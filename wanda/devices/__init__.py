"""CPU threads, distributed processes, offloading of blocks to a GPU, and timing."""
