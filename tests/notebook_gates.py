"""What a committed notebook must be. Each gate returns the faults that it finds, in words."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

MOST_BYTES = 500_000
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:root|home|work|tmp|opt|usr|mnt|data|Users)/")
SECRET = re.compile(r"(?:api_?key|token|secret|password)\s*[=:]\s*['\"][^'\"]{6,}", re.IGNORECASE)

Notebook = dict[str, Any]


def code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def size(file: Path) -> list[str]:
    found = file.stat().st_size
    return [f"{found} bytes, over {MOST_BYTES}"] if found > MOST_BYTES else []


def execution_counts(notebook: Notebook) -> list[str]:
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    wanted = list(range(1, len(counts) + 1))
    return [] if counts == wanted else [f"execution counts {counts}, not {wanted}"]


def no_errors(notebook: Notebook) -> list[str]:
    kinds = [out["output_type"] for cell in code_cells(notebook) for out in cell["outputs"]]
    return ["a cell shows an error"] if "error" in kinds else []


def no_places_or_secrets(notebook: Notebook) -> list[str]:
    texts = [json.dumps(cell.get("outputs", [])) + source(cell) for cell in notebook["cells"]]
    # Pictures are base64, in which anything can be found.
    texts = [re.sub(r'"image/png": "[^"]*"', "", text) for text in texts]
    faults = [f"absolute path {m.group()}" for text in texts for m in ABSOLUTE.finditer(text)]
    return faults + [f"secret {m.group()[:12]}" for t in texts for m in SECRET.finditer(t)]


def figures_shown(notebook: Notebook) -> list[str]:
    """A figure that shows as text only, `<Figure size ...>`, is no figure."""
    return [
        "a figure is not shown"
        for cell in code_cells(notebook)
        if "figures.save" in source(cell) and "image/png" not in json.dumps(cell["outputs"])
    ]


def parameters(notebook: Notebook) -> list[str]:
    tagged = [c for c in code_cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
    return [] if len(tagged) == 1 else [f"{len(tagged)} cells are tagged parameters, not 1"]


def imports(notebook: Notebook) -> list[str]:
    """Notebooks tell the story with helpers; what is worth testing does not live in them."""
    faults = []
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(source(cell))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            faults += [f"imports {n}" for n in names if n.split(".")[0] not in ("helpers", "json")]
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.For | ast.While | ast.Try):
                faults.append(f"has logic of its own: {type(node).__name__}")
    return faults


def story(notebook: Notebook) -> list[str]:
    texts = [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    faults = [
        f"its opening does not say: {words}"
        for words in ("# ", "**You will learn**", "**It needs**", "**It takes**")
        if words not in texts[0]
    ]
    if not any(text.startswith("## Checks") for text in texts):
        faults.append("it has no checks")
    if "**Next:**" not in texts[-1]:
        faults.append("it does not say what comes next")
    return faults


def all_faults(file: Path) -> list[str]:
    """Return every fault of a notebook file."""
    notebook = json.loads(file.read_text("utf-8"))
    gates = (
        execution_counts,
        no_errors,
        no_places_or_secrets,
        figures_shown,
        parameters,
        imports,
        story,
    )
    return size(file) + [fault for gate in gates for fault in gate(notebook)]
