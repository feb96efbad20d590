"""Scripts that measure and write to results/."""
