"""One module a figure: tidy table or arrays in, `matplotlib.figure.Figure` out; `style` holds what they share.

No paths, no configuration, no pyplot: the caller selects what to draw and saves it with `style.save_figure`.
"""
