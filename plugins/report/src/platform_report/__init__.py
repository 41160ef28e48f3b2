"""Reports of sweeps: what was obtained, over seeds, in tables, plots and one page.

    a sweep's directory -> Sweep (reading) -> tables, figures -> page, Markdown, CSV, LaTeX

Reads run directories and the sweep's own files, whatever state they are in; changes none of them.
"""
