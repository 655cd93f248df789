"""What a committed notebook must be. Each gate returns the faults that it finds, in words."""
# ruff: noqa: RUF001

from __future__ import annotations

import ast
import json
import re
import statistics
from pathlib import Path
from typing import Any

from helpers.programs.kernel import LABEL, NAME

MOST_BYTES = 500_000
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:root|home|work|tmp|opt|usr|mnt|data|Users)/")
SECRET = re.compile(r"(?:api_?key|token|secret|password)\s*[=:]\s*['\"][^'\"]{6,}", re.IGNORECASE)

Notebook = dict[str, Any]
# The calls of the face that end a cell and show a figure.
FIGURES = r"\.(lengths|curves|against|picture|costs|plans|accuracy)\([^)]*\)\s*$"


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
        if re.search(FIGURES, source(cell))
        and "recipe" not in source(cell)
        and "image/png" not in json.dumps(cell["outputs"])
    ]


def parameters(notebook: Notebook) -> list[str]:
    tagged = [c for c in code_cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
    return [] if len(tagged) == 1 else [f"{len(tagged)} cells are tagged parameters, not 1"]


MOST_LINES, MEDIAN_LINES = 5, 2
# What a string in a code cell may be besides a name or a key: a question to a model.
PROSE = re.compile(r"[A-Za-z]+ [A-Za-z]+")


def written_by_hand(notebook: Notebook) -> list[dict[str, Any]]:
    """Return the code cells besides the `parameters` cell."""
    return [c for c in code_cells(notebook) if "parameters" not in c["metadata"].get("tags", [])]


def short(notebook: Notebook) -> list[str]:
    lines = [
        len([line for line in source(cell).splitlines() if line.strip()])
        for cell in written_by_hand(notebook)
    ]
    faults = [f"a code cell of {n} lines, over {MOST_LINES}" for n in lines if n > MOST_LINES]
    if statistics.median(lines) > MEDIAN_LINES:
        faults.append(f"code cells of {statistics.median(lines)} lines at the median")
    return faults


def kernel(notebook: Notebook) -> list[str]:
    """Any JupyterLab of the user knows the tutorial's own kernel; "python3" is the server's."""
    found = notebook["metadata"]["kernelspec"]
    wanted = {"display_name": LABEL, "language": "python", "name": NAME}
    return [] if found == wanted else [f"its kernel is {found['name']}, not {NAME}"]


def imports(notebook: Notebook) -> list[str]:
    """One import line a notebook: the face is all that it knows."""
    nodes = [
        node
        for cell in code_cells(notebook)
        for node in ast.walk(ast.parse(source(cell)))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    lines = [ast.unparse(node) for node in nodes]
    wanted = ["from here import Tutorial"]
    return [] if lines == wanted else [f"imports {lines}, not {wanted}"]


_LOGIC = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.Try, ast.If, ast.IfExp,
          ast.With, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Starred,
          ast.BoolOp, ast.BinOp)  # fmt: skip


def says_what(notebook: Notebook) -> list[str]:
    """Cells say what is to be done; how it is done, and in which words, the helpers know."""
    faults = []
    for cell in written_by_hand(notebook):
        tree = ast.parse(source(cell))
        for node in ast.walk(tree):
            if isinstance(node, _LOGIC):
                faults.append(f"has logic of its own: {type(node).__name__}")
            if isinstance(node, ast.JoinedStr):
                faults.append("has an f-string")
            if isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name):
                faults.append("unpacks")
        questions = {
            node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "question"
            and isinstance(node.value, ast.Constant)
        }
        faults += [
            f"has prose: {node.value!r}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value not in questions
            and PROSE.search(node.value)
        ]
        if re.search(r"^\s*#|  #", source(cell), re.MULTILINE):
            faults.append("has a comment, which no translation reaches")
    return faults


# What the text of each edition has to hold, by the language of the folder it lies in.
STORY = {
    "en": (("**You will learn**", "**It needs**", "**It takes**"), "## Checks", "**Next:**"),
    "zh": (("**你将学到**", "**需要**", "**耗时**"), "## 检查", "**下一步：**"),
}


def story(notebook: Notebook, language: str = "en") -> list[str]:
    opening, checks, ending = STORY[language]
    texts = [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    faults = [
        f"its opening does not say: {words}" for words in ("# ", *opening) if words not in texts[0]
    ]
    if not any(text.startswith(checks) for text in texts):
        faults.append("it has no checks")
    if ending not in texts[-1]:
        faults.append("it does not say what comes next")
    return faults


def spoken(notebook: Notebook, language: str) -> list[str]:
    """What the cells showed is in the edition's language; the checks, at least, are words."""
    [checks] = [out for out in notebook["cells"][-2].get("outputs", [])] or [{}]
    chinese = bool(re.search("[\u4e00-\u9fff]", json.dumps(checks, ensure_ascii=False)))
    return [] if chinese == (language == "zh") else ["its checks are in another language"]


def all_faults(file: Path) -> list[str]:
    """Return every fault of a notebook file."""
    notebook = json.loads(file.read_text("utf-8"))
    gates = (
        execution_counts,
        no_errors,
        no_places_or_secrets,
        figures_shown,
        parameters,
        short,
        kernel,
        imports,
        says_what,
    )
    faults = [fault for gate in gates for fault in gate(notebook)]
    language = file.parent.name if file.parent.name in STORY else "en"
    return size(file) + faults + story(notebook, language) + spoken(notebook, language)
