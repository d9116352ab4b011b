"""The notebook runs on a finished run."""

import json
import pathlib

NOTEBOOK = pathlib.Path(__file__).parent.parent.parent / "notebooks" / "quickstart.ipynb"


def test_every_cell_runs(finished_run):
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    names = {}
    for cell in cells:
        source = "".join(cell["source"]).replace('"runs/quickstart"', repr(str(finished_run)))
        exec(compile(source, NOTEBOOK.name, "exec"), names)
    assert names["worst"] < 1 and len(names["outputs"]) == 3
