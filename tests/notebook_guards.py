"""What must hold for every stored notebook, as functions that name each fault in a sentence.

nbval compares outputs; these guards see to it that there is something to compare, that it can be the same anywhere,
and that it reads well for everybody.
"""

import ast
import base64
import io
import re
import tokenize
from collections.abc import Callable, Iterator

from nbformat import NotebookNode

IGNORED = "nbval-ignore-output"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
LARGEST_PNG = 100_000  # bytes, decoded
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~-])/(home|work|tmp|root|Users|var|opt|usr)/|\b[A-Z]:\\")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_ignored(cell: NotebookNode) -> bool:
    return IGNORED in cell.metadata.get("tags", [])


def faults_of_metadata(notebook: NotebookNode) -> Iterator[str]:
    """JupyterLab asks for a kernel in a dialog where there is no kernelspec; GitHub renders nothing beside widgets."""
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "metadata.kernelspec does not name python3"
    if "widgets" in notebook.metadata:
        yield "metadata.widgets is present"


def faults_of_execution(notebook: NotebookNode) -> Iterator[str]:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the code cells were not all executed, once and in order: {counts}"
    for number, cell in enumerate(code_cells(notebook), start=1):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"code cell {number} holds an error: {output.ename}"
            if output.get("execution_count") not in (None, cell.execution_count):
                yield f"code cell {number} holds an output of another run"
            if output.get("name") == "stderr" and not is_ignored(cell):
                yield f"code cell {number} wrote to stderr, which nbval compares: {output.text!r}"
    if not any(cell.outputs for cell in code_cells(notebook) if not is_ignored(cell)):
        yield "no cell has an output to compare, so nbval would pass whatever happens"


def faults_of_ignoring(notebook: NotebookNode) -> Iterator[str]:
    """At most a quarter of the code cells ignore their output, and each of those asserts what must be true."""
    cells = code_cells(notebook)
    ignored = [cell for cell in cells if is_ignored(cell)]
    if 4 * len(ignored) > len(cells):
        yield f"{len(ignored)} of {len(cells)} code cells are tagged {IGNORED}, more than a quarter"
    for cell in ignored:
        if not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source))):
            yield f"a cell is tagged {IGNORED} and asserts nothing: {cell.source.splitlines()[0]!r}"
    for cell in cells:
        for tag in cell.metadata.get("tags", []):
            if tag.startswith("nbval") and tag != IGNORED:
                yield f"the tag {tag} weakens the comparison"


def faults_of_text(notebook: NotebookNode) -> Iterator[str]:
    """No trailing semicolon (nbval compares the value all the same), and no path of the machine it was built on."""
    for number, cell in enumerate(code_cells(notebook), start=1):
        tokens = list(tokenize.generate_tokens(io.StringIO(cell.source).readline))
        for token, after in zip(tokens, tokens[1:]):
            if token.string == ";" and after.type in (tokenize.NEWLINE, tokenize.COMMENT, tokenize.ENDMARKER):
                yield f"code cell {number} has a trailing ';' in line {token.start[0]}"
    for number, cell in enumerate(notebook.cells, start=1):
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts += [output.get("text", "")]
            texts += [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
        for text in texts:
            if found := ABSOLUTE_PATH.search(text):
                yield f"cell {number} holds an absolute path near {text[max(0, found.start() - 20):found.end() + 20]!r}"


def faults_of_figures(notebook: NotebookNode) -> Iterator[str]:
    for number, cell in enumerate(code_cells(notebook), start=1):
        for output in cell.outputs:
            data = output.get("data", {})
            if WIDGET_VIEW in data:
                yield f"code cell {number} holds the view of a widget, which says 'model not found' until it is run"
            if "image/svg+xml" in data or "<svg" in data.get("text/html", ""):
                yield f"code cell {number} holds an SVG, which nbval compares and which carries a date"
            if "image/png" not in data:
                continue
            if len(base64.b64decode(data["image/png"])) >= LARGEST_PNG:
                yield f"code cell {number} has a figure of {LARGEST_PNG} bytes or more"
            if not output.metadata.get("image/png", {}).get("alt", "").strip():
                yield f"code cell {number} has a figure without alternative text"
            if data.get("text/plain", "<").strip().startswith("<") or not data["text/plain"].strip():
                yield f"code cell {number} has a figure whose text form is not a description"


GUARDS: tuple[Callable[[NotebookNode], Iterator[str]], ...] = (
    faults_of_metadata, faults_of_execution, faults_of_ignoring, faults_of_text, faults_of_figures)


def faults(notebook: NotebookNode) -> list[str]:
    """All faults of an executed notebook."""
    return [fault for guard in GUARDS for fault in guard(notebook)]
