"""Controls: sliders that draw a figure again. Without a reader at the kernel, the figure for the starting values."""

import os

import ipywidgets

STATIC = "WANDA_STATIC"  # environment variable: set while a notebook is executed to be saved or tested


def explore(draw, **choices):
    """Draw a figure, with a slider for each of its arguments.

    Args:
        draw: function of the arguments; shows the figure (`plots.show`).
        choices: for each argument, (options, start): a sequence of values, and the one to begin with.
    """
    start = {name: value for name, (_, value) in choices.items()}
    if os.environ.get(STATIC) == "1":
        draw(**start)
        return
    sliders = {
        name: ipywidgets.SelectionSlider(options=list(options), value=value, description=name, continuous_update=False)
        for name, (options, value) in choices.items()
    }
    ipywidgets.interact(draw, **sliders)
