"""The inside of a model's functions, as syntax: every statement and expression is held against the allow-list.

A function's tree and the names that the file defines come in; a ModelError with the line goes out. Nothing is run.
"""

import ast
import re
from dataclasses import dataclass, field

from transom.errors import ModelError
from transom.runtimes.operators import CALLS, OPS, TORCH, TYPES

UNSAFE = "do not load this file; if you trust where it comes from, train it again with `transom train`"
REPLACE = "a model may only compute on tensors (runtimes/operators.py lists the operators)"
ROOTS = ("torch", "ops", "__torch__", "CONSTANTS")

# Beside names, attributes and calls: expressions that only join their parts.
_PLAIN = (
    ast.keyword, ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.Dict, ast.BinOp, ast.UnaryOp, ast.BoolOp,
    ast.Compare, ast.IfExp, ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Class:
    """A class in the file: of each attribute, and of what each method returns, the class in the file, or ""."""

    attributes: dict[str, str] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Names:
    """What the file itself defines, by dotted name; functions with the class that they return, or ""."""

    classes: dict[str, Class] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)


def dotted(node: ast.AST | None) -> str:
    """ "__torch__.m.Net" for that chain of names; "" for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) and node.id in ROOTS else ""


def scan_annotation(node: ast.AST, names: Names, place: str) -> None:
    """A type: names of the language's types, and classes of the file. Classes that a library registers are refused."""
    path = dotted(node)
    if path:
        if path not in names.classes:
            raise refused(place, node, f"the type {path}, which the file does not define")
    elif isinstance(node, ast.Subscript):
        scan_annotation(node.value, names, place)
        scan_annotation(node.slice, names, place)
    elif isinstance(node, ast.Tuple):
        for part in node.elts:
            scan_annotation(part, names, place)
    elif not (
        (isinstance(node, ast.Name) and node.id in TYPES) or (isinstance(node, ast.Constant) and node.value is None)
    ):
        raise refused(place, node, f"the type {excerpt(node)}")


def refused(place: str, node: ast.AST, what: str, remedy: str = REPLACE) -> ModelError:
    return ModelError(f"{place}:{getattr(node, 'lineno', 1)}", f"the model's code uses {what}", remedy)


def excerpt(node: ast.AST) -> str:
    text = ast.unparse(node).splitlines()[0]
    return repr(text if len(text) <= 60 else text[:57] + "...")


class Function:
    """Reads one function's statements in order and remembers which names hold objects of the file's classes.

    A method of the file may have any name, also that of an operator that is not allowed; so a call is taken for a
    method only where the object's class is known, and for an operator everywhere else.
    """

    def __init__(self, names: Names, place: str) -> None:
        self.names, self.place = names, place
        self.types: dict[str, str] = {}  # of local names: a class or, for another name of a function, that function

    def scan(self, node: ast.FunctionDef) -> None:
        arguments = node.args
        if node.decorator_list or arguments.posonlyargs or arguments.vararg or arguments.kwarg:
            raise refused(self.place, node, f"the function {node.name} in a form that torch does not write")
        for argument in [*arguments.args, *arguments.kwonlyargs]:
            self._assign_name(argument, argument.arg, dotted(argument.annotation))
            if argument.annotation is not None:
                scan_annotation(argument.annotation, self.names, self.place)
        for default in [*arguments.defaults, *arguments.kw_defaults]:
            if default is not None:
                self.expression(default)
        if node.returns is not None:
            scan_annotation(node.returns, self.names, self.place)
        self._block(node.body)

    def _block(self, statements: list[ast.stmt]) -> None:
        for node in statements:
            self._statement(node)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=targets, value=value):
                self.expression(value)
                for target in targets:
                    self._target(target, self._type(value))
            case ast.AnnAssign(target=target, annotation=annotation, value=maybe):
                scan_annotation(annotation, self.names, self.place)
                if maybe is not None:
                    self.expression(maybe)
                self._target(target, dotted(annotation))
            case ast.Expr(value=value):
                self.expression(value)
            case ast.Return(value=maybe):
                if maybe is not None:
                    self.expression(maybe)
            case ast.If(test=test, body=body, orelse=orelse) | ast.While(test=test, body=body, orelse=orelse):
                self.expression(test)
                self._block(body)
                self._block(orelse)
            case ast.For(target=target, iter=iterable, body=body, orelse=[]):
                self.expression(iterable)
                self._target(target, "")
                self._block(body)
            case ast.Pass() | ast.Break() | ast.Continue():
                pass
            case _:
                raise refused(self.place, node, f"{excerpt(node)}, a statement that torch does not write")

    def _target(self, node: ast.expr, kind: str) -> None:
        match node:
            case ast.Name(id=name):
                self._assign_name(node, name, kind)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                for part in parts:
                    self._target(part, "")
            case ast.Subscript():
                self.expression(node)
            case ast.Attribute():
                raise refused(
                    self.place, node, f"{excerpt(node)} as a variable", "a model may not carry state from call to call"
                )
            case _:
                raise refused(self.place, node, f"{excerpt(node)} as a variable")

    def _assign_name(self, node: ast.AST, name: str, kind: str) -> None:
        if name in ROOTS or name in CALLS:
            raise refused(self.place, node, f"{name!r} as a variable")
        if self.types.setdefault(name, kind) != kind:
            self.types[name] = ""  # in doubt a plain value, of which only operators may be called

    def expression(self, node: ast.AST) -> None:
        match node:
            case ast.Constant(value=value):
                if not isinstance(value, str | int | float | complex | None):
                    raise refused(self.place, node, f"the constant {excerpt(node)}")
            case ast.Name(id=name):
                if name in ROOTS:
                    raise refused(self.place, node, f"the whole of {name!r} as a value")
            case ast.Attribute():
                self._attribute(node)
            case ast.Call():
                self._call(node)
            case _ if isinstance(node, _PLAIN):
                for part in ast.iter_child_nodes(node):
                    self.expression(part)
            case _:
                raise refused(self.place, node, f"{excerpt(node)}, an expression that torch does not write")

    def _attribute(self, node: ast.Attribute) -> None:
        path = dotted(node)
        root, _, name = path.partition(".")
        owner, _, last = path.rpartition(".")
        if path:
            if not (
                (root == "torch" and name in TORCH)
                or (root == "ops" and name in OPS)
                or (root == "CONSTANTS" and re.fullmatch(r"c\d+", name))
                or path in self.names.functions
                or path in self.names.classes
                or (owner in self.names.classes and last in self.names.classes[owner].attributes)
            ):
                raise refused(self.place, node, f"{path}, which is not on the list of allowed operators")
            return
        self.expression(node.value)
        self._member(node, self._type(node.value), node.attr)

    def _member(self, node: ast.AST, owner: str, name: str) -> None:
        found = self.names.classes.get(owner)
        if found is None and name not in TORCH:
            raise refused(self.place, node, f"{name!r} of a value, which is not on the list of allowed operators")
        if found is not None and name not in found.attributes and name not in found.methods:
            raise refused(self.place, node, f"{name!r}, which {owner} does not have")

    def _call(self, node: ast.Call) -> None:
        match node.func:
            case ast.Name(id="getattr"):
                if len(node.args) != 2 or not isinstance(node.args[1], ast.Constant):
                    raise refused(self.place, node, excerpt(node))
                self._member(node, self._type(node.args[0]), str(node.args[1].value))
            case ast.Name(id=name):
                if name not in CALLS and self.types.get(name) not in self.names.functions:
                    raise refused(self.place, node, f"{name}(), which is not on the list of allowed operators")
            case ast.Attribute():
                self._attribute(node.func)
            case _:
                raise refused(self.place, node, excerpt(node))
        for part in [*node.args, *node.keywords]:
            self.expression(part)

    def _type(self, node: ast.AST) -> str:
        """The class in the file that the value surely is of, or the function that it is; else ""."""
        path = dotted(node)
        match node:
            case _ if path in self.names.functions:
                return path
            case ast.Name(id=name):
                return self.types.get(name, "")
            case ast.Attribute(value=value, attr=name) if not path:
                return self._member_type(self._type(value), name)
            case ast.Call(func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(name))]):
                return self._member_type(self._type(value), name)
            case ast.Call(func=ast.Name(id="annotate" | "unchecked_cast"), args=[kind, _]):
                return dotted(kind) if dotted(kind) in self.names.classes else ""
            case ast.Call(func=ast.Name(id=name)):
                return self.names.functions.get(self.types.get(name, ""), "")
            case ast.Call(func=ast.Attribute(value=value, attr=name) as function):
                whole = dotted(function)
                if whole:
                    return whole if whole in self.names.classes else self.names.functions.get(whole, "")
                found = self.names.classes.get(self._type(value))
                return found.methods.get(name, "") if found else ""
            case _:
                return ""

    def _member_type(self, owner: str, name: str) -> str:
        found = self.names.classes.get(owner)
        return found.attributes.get(name, "") if found else ""
