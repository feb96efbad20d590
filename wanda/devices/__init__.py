"""Several cores, several processes, blocks that visit a GPU, and how long things take there."""
