"""Mark submitted notebooks: `wanda-mark` (see `cli`)."""
