"""Reports of sweeps: their results over seeds, in tables, plots and one page.

    a sweep's directory -> Sweep (reading) -> tables, figures -> page, Markdown, CSV, LaTeX

The package reads run directories and the sweep's own files in any state, and changes none of them.
"""
