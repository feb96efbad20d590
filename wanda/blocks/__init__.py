"""The blocks of a model: its prunable layers, and running it block by block on calibration data."""
