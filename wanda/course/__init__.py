"""What only the notebooks need: figures, exercises, their environment and execution."""
