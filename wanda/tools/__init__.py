"""Tools around pruning: comparison, perplexity, fine-tuning, 2:4 inference, zero-shot tasks, outlier features."""
