"""How the source reads, in numbers: `python -m tests.bench.measure_source [PACKAGE_FOLDER]`.

Lines of a function are counted without its docstring. A function on tensors or arrays states shapes where its
docstring holds one in brackets (`[B, L]`), or every such parameter has one in its name (`scores_BC`). A
function raises where its body has a `raise` of its own, and says so where its docstring does. A summary is
a docstring up to its first full stop, its first colon at the end of a line, or its first blank line. A
compound statement is `a, b = x, y`; swaps (`a, b = b, a`) are not counted.
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ARRAY = re.compile(r"\b(Tensor|ndarray|Values|Array)\b")
SHAPE = re.compile(r"\[[A-Z0-9a-z+'. ,_()−-]*\]")
SUMMARY_END = re.compile(r"\.(?=\s|$)|:(?=\n|$)|\n\n")
MAX_SUMMARY_WORDS = 12
SHAPE_IN_NAME = re.compile(r"_([A-Z0-9]+)$|^[A-Z](_[A-Z0-9]+)?$")


@dataclass(frozen=True)
class Function:
    """A function or method of the package."""

    node: ast.FunctionDef | ast.AsyncFunctionDef
    is_public: bool

    @property
    def doc(self) -> str:
        """The docstring, or an empty text."""
        return ast.get_docstring(self.node) or ""

    @property
    def num_lines(self) -> int:
        """Lines without the docstring."""
        first = self.node.body[0]
        has_doc = bool(self.doc) and isinstance(first, ast.Expr)
        doc_lines = (first.end_lineno or first.lineno) - first.lineno + 1 if has_doc else 0
        return (self.node.end_lineno or self.node.lineno) - self.node.lineno + 1 - doc_lines

    @property
    def array_parameters(self) -> list[str]:
        """Parameters that are annotated as tensors or arrays."""
        arguments = [*self.node.args.posonlyargs, *self.node.args.args, *self.node.args.kwonlyargs]
        return [one.arg for one in arguments if one.annotation and ARRAY.search(ast.unparse(one.annotation))]

    @property
    def is_on_arrays(self) -> bool:
        """Whether it takes or returns tensors or arrays."""
        returns = self.node.returns is not None and ARRAY.search(ast.unparse(self.node.returns))
        return bool(self.array_parameters or returns)

    @property
    def states_shapes(self) -> bool:
        """Whether docstring or names say which shapes."""
        in_names = bool(self.array_parameters) and all(map(SHAPE_IN_NAME.search, self.array_parameters))
        return in_names or bool(SHAPE.search(self.doc))

    @property
    def raises(self) -> bool:
        """Whether it raises an error of its own, functions inside it left out."""
        return any(isinstance(node, ast.Raise) and node.exc is not None for node in _own_nodes(self.node))


def main(package: Path) -> None:
    """Print the table."""
    paths = sorted(package.rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    trees = [ast.parse(text) for text in texts]
    functions = [function for tree in trees for function in functions_of(tree)]
    lines = [line for text in texts for line in text.splitlines()]
    files = sorted(len(text.splitlines()) for text in texts)
    sizes = sorted(function.num_lines for function in functions)
    on_arrays = [function for function in functions if function.is_on_arrays]
    raising = [function for function in functions if function.raises]
    print(f"files: {len(files)}, lines: {len(lines):,}, functions: {len(functions)}")
    print(f"file lines, median / p90 (max): {statistics.median(files):.0f} / {_p90(files)} ({files[-1]})")
    print(f"function lines, median / p90 (max): {statistics.median(sizes):.0f} / {_p90(sizes)} ({sizes[-1]})")
    print(f"public things documented: {_share(documented(tree) for tree in trees)}")
    print(
        "functions on tensors or arrays that state shapes: "
        + _percent([one.states_shapes for one in on_arrays])
    )
    print(f"functions that raise and say so: {_percent(['aise' in one.doc for one in raising])}")
    public = [one for one in raising if one.is_public]
    print(f"public functions that raise and say so: {_percent(['aise' in one.doc for one in public])}")
    summaries = sorted(num_words(text) for tree in trees for text in docstrings(tree))
    above = _percent([words > MAX_SUMMARY_WORDS for words in summaries])
    print(
        f"words of a docstring's summary, median / p90 (max): {statistics.median(summaries):.0f} / "
        f"{_p90(summaries)} ({summaries[-1]}); more than {MAX_SUMMARY_WORDS}: {above}"
    )
    compound = sum(is_compound(node) for tree in trees for node in ast.walk(tree))
    print(f"compound statements: {compound}, per 1,000 lines: {1000 * compound / max(len(lines), 1):.1f}")
    for width in (120, 110, 100):
        print(f"lines over {width} characters: {_percent([len(line) > width for line in lines])}")


def functions_of(tree: ast.AST, is_public: bool = True) -> Iterator[Function]:
    """Yield the functions of a module or class, those inside functions left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions_of(node, is_public and not node.name.startswith("_"))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Function(node, is_public and not node.name.startswith("_"))


def documented(tree: ast.Module) -> list[bool]:
    """Return, for the module, its public classes and public functions, whether each has a docstring."""
    classes = [
        node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    functions = [bool(function.doc) for function in functions_of(tree) if function.is_public]
    return [bool(ast.get_docstring(tree)), *(bool(ast.get_docstring(node)) for node in classes), *functions]


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield the docstrings of a module and of its classes and functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def num_words(docstring: str) -> int:
    """Return the number of words of a docstring's summary."""
    return len(SUMMARY_END.split(docstring, maxsplit=1)[0].split())


def is_compound(node: ast.AST) -> bool:
    """Return whether a statement assigns several expressions to several names, other than a swap."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    target = node.targets[0]
    if not isinstance(target, ast.Tuple):
        return False
    names = {ast.unparse(one) for one in target.elts}
    return names != {ast.unparse(one) for one in node.value.elts}


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from _own_nodes(node)


def _p90(ordered: list[int]) -> int:
    return ordered[int(0.9 * (len(ordered) - 1))]


def _share(groups: Iterator[list[bool]]) -> str:
    return _percent([one for group in groups for one in group])


def _percent(answers: list[bool]) -> str:
    return f"{100 * sum(answers) / max(len(answers), 1):.1f} % of {len(answers)}"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "allmrec")
