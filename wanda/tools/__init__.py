"""What surrounds pruning: methods side by side, perplexity, fine-tuning, 2:4 at inference, zero-shot tasks, outlier features."""
