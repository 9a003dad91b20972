"""The code and the pickles of a model file, read as text against the allow-list of operators. Nothing is run.

Members come in; a ModelError that names file and line goes out for anything that is not on the list.
"""

import ast
import pickletools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from transom.errors import ModelError
from transom.runtimes.operators import CALLS, OPS, PICKLED, SPECIAL_METHODS, TORCH, TYPES

MAX_CODE = 4 << 20  # bytes of all source; parsing costs about 100 bytes of memory a byte
MAX_PICKLE = 16 << 20

_UNSAFE = "do not load this file; if you trust where it comes from, train it again with `transom train`"
_REPLACE = "a model may only compute on tensors (runtimes/operators.py lists the operators)"

# Beside names, attributes and calls: expressions that only join their parts.
_PLAIN = (
    ast.keyword, ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.Dict, ast.BinOp, ast.UnaryOp, ast.BoolOp,
    ast.Compare, ast.IfExp, ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
_STRING = re.compile(r'"(?:[^"\\\n]|\\[ -~])*"')
_ROOTS = ("torch", "ops", "__torch__", "CONSTANTS")


@dataclass(frozen=True, slots=True)
class _Class:
    """A class in the file: of each attribute, and of what each method returns, the class in the file, or ""."""

    attributes: dict[str, str] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Names:
    """What the file itself defines, by dotted name; functions with the class that they return, or ""."""

    classes: dict[str, _Class] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)


def scan(members: Mapping[str, bytes], place: str) -> None:
    """Raises ModelError for code or a pickle that could do more than compute on tensors.

    members: name within the archive -> bytes. `place`: the file, for the message.
    """
    sources = {n: d for n, d in members.items() if n.startswith("code/")}
    if sum(map(len, sources.values())) > MAX_CODE:
        raise ModelError(place, f"the model's code is longer than {MAX_CODE:,} bytes", _UNSAFE)
    trees = {name: _parse(data, f"{place}, {name}") for name, data in sources.items()}
    names = _defined(trees)
    for name, tree in trees.items():
        try:
            _scan_module(tree, names, f"{place}, {name}")
        except RecursionError as error:
            raise ModelError(f"{place}, {name}", "the code is nested too deeply", _UNSAFE) from error
    for name in ("data.pkl", "constants.pkl"):
        if name in members:
            _scan_pickle(members[name], names, f"{place}, {name}")


def _parse(data: bytes, place: str) -> ast.Module:
    """The tree of one source. Only text that Python and TorchScript cut into the same words passes."""
    try:
        text = data.decode("ascii")
        bare = _STRING.sub("\0", text)
        odd = re.search(r"[^\n -~\0]|[\"'\\#;`$?]|\w\0|\0\s*\0", bare)
        if odd:
            line = bare.count("\n", 0, odd.start()) + 1
            raise ModelError(f"{place}:{line}", f"{odd.group()!r} is nothing that torch writes into code", _UNSAFE)
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ModelError(place, f"the code cannot be read ({type(error).__name__}: {error})", _UNSAFE) from error


def _defined(trees: Mapping[str, ast.Module]) -> _Names:
    names = _Names()
    for member, tree in trees.items():
        module = member.removeprefix("code/").removesuffix(".py").replace("/", ".")
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                names.classes[f"{module}.{node.name}"] = found = _Class()
                for part in node.body:
                    if isinstance(part, ast.FunctionDef):
                        found.methods[part.name] = _path(part.returns)
                    elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                        found.attributes[part.target.id] = _path(part.annotation)
                    elif isinstance(part, ast.Assign):
                        for target in part.targets:  # __annotations__["0"] = a class, or an enumeration's NAME = 1
                            if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                                found.attributes[str(target.slice.value)] = _path(part.value)
                            elif isinstance(target, ast.Name):
                                found.attributes[target.id] = ""
            elif isinstance(node, ast.FunctionDef):
                names.functions[f"{module}.{node.name}"] = _path(node.returns)
    return names


def _path(node: ast.AST | None) -> str:
    """ "__torch__.m.Net" for that chain of names; "" for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) and node.id in _ROOTS else ""


def _scan_module(tree: ast.Module, names: _Names, place: str) -> None:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                if not isinstance(base, ast.Name) or base.id not in TYPES:
                    raise _refused(place, base, f"the class {node.name} is a {ast.unparse(base)}")
            if node.keywords or node.decorator_list:
                raise _refused(place, node, f"the class {node.name} is decorated")
            for part in node.body:
                _scan_class_part(part, names, place)
        elif isinstance(node, ast.FunctionDef):
            _Function(names, place).scan(node)
        else:
            raise _refused(place, node, f"{_excerpt(node)} outside of a function")


def _scan_class_part(node: ast.stmt, names: _Names, place: str) -> None:
    if isinstance(node, ast.FunctionDef):
        if node.name.startswith("__") and node.name not in SPECIAL_METHODS:
            when = "while it loads" if "state" in node.name else "unseen"
            raise _refused(place, node, f"the method {node.name}, which would run {when}", _UNSAFE)
        _Function(names, place).scan(node)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        _scan_annotation(node.annotation, names, place)
        if node.value is not None:
            _Function(names, place).expression(node.value)
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
        _scan_annotation(node.value, names, place)
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        hidden = node.targets[0].id
        if hidden.startswith("__") and hidden not in ("__parameters__", "__buffers__"):
            raise _refused(place, node, f"{_excerpt(node)} in a class")
        _Function(names, place).expression(node.value)
    elif not isinstance(node, ast.Pass):
        raise _refused(place, node, f"{_excerpt(node)} in a class")


def _scan_annotation(node: ast.AST, names: _Names, place: str) -> None:
    """A type: names of the language's types, and classes of the file. Classes that a library registers are refused."""
    path = _path(node)
    if path:
        if path not in names.classes:
            raise _refused(place, node, f"the type {path}, which the file does not define")
    elif isinstance(node, ast.Subscript):
        _scan_annotation(node.value, names, place)
        _scan_annotation(node.slice, names, place)
    elif isinstance(node, ast.Tuple):
        for part in node.elts:
            _scan_annotation(part, names, place)
    elif not (
        (isinstance(node, ast.Name) and node.id in TYPES) or (isinstance(node, ast.Constant) and node.value is None)
    ):
        raise _refused(place, node, f"the type {_excerpt(node)}")


def _scan_pickle(data: bytes, names: _Names, place: str) -> None:
    if len(data) > MAX_PICKLE:
        raise ModelError(place, f"the pickle is longer than {MAX_PICKLE:,} bytes", _UNSAFE)
    end = None
    try:
        for opcode, argument, position in pickletools.genops(data):
            end = position
            if opcode.name == "GLOBAL":
                if argument not in PICKLED and str(argument).replace(" ", ".") not in names.classes:
                    raise ModelError(place, f"the pickle names {str(argument).replace(' ', '.')!r}", _UNSAFE)
            elif opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "PERSID", "EXT1", "EXT2", "EXT4"):
                raise ModelError(place, f"the pickle uses {opcode.name}, which torch does not write", _UNSAFE)
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise ModelError(place, f"the pickle cannot be read ({error})", _UNSAFE) from error
    if end is None or end + 1 != len(data):
        raise ModelError(place, "the pickle goes on after its end", _UNSAFE)


def _refused(place: str, node: ast.AST, what: str, remedy: str = _REPLACE) -> ModelError:
    return ModelError(f"{place}:{getattr(node, 'lineno', 1)}", f"the model's code uses {what}", remedy)


def _excerpt(node: ast.AST) -> str:
    text = ast.unparse(node).splitlines()[0]
    return repr(text if len(text) <= 60 else text[:57] + "...")


class _Function:
    """Reads one function's statements in order and remembers which names hold objects of the file's classes.

    A method of the file may have any name, also that of an operator that is not allowed; so a call is taken for a
    method only where the object's class is known, and for an operator everywhere else.
    """

    def __init__(self, names: _Names, place: str) -> None:
        self.names, self.place = names, place
        self.types: dict[str, str] = {}  # of local names: a class or, for another name of a function, that function

    def scan(self, node: ast.FunctionDef) -> None:
        arguments = node.args
        if node.decorator_list or arguments.posonlyargs or arguments.vararg or arguments.kwarg:
            raise _refused(self.place, node, f"the function {node.name} in a form that torch does not write")
        for argument in [*arguments.args, *arguments.kwonlyargs]:
            self._assign_name(argument, argument.arg, _path(argument.annotation))
            if argument.annotation is not None:
                _scan_annotation(argument.annotation, self.names, self.place)
        for default in [*arguments.defaults, *arguments.kw_defaults]:
            if default is not None:
                self.expression(default)
        if node.returns is not None:
            _scan_annotation(node.returns, self.names, self.place)
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
                _scan_annotation(annotation, self.names, self.place)
                if maybe is not None:
                    self.expression(maybe)
                self._target(target, _path(annotation))
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
                raise _refused(self.place, node, f"{_excerpt(node)}, a statement that torch does not write")

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
                raise _refused(
                    self.place, node, f"{_excerpt(node)} as a variable", "a model may not carry state from call to call"
                )
            case _:
                raise _refused(self.place, node, f"{_excerpt(node)} as a variable")

    def _assign_name(self, node: ast.AST, name: str, kind: str) -> None:
        if name in _ROOTS or name in CALLS:
            raise _refused(self.place, node, f"{name!r} as a variable")
        if self.types.setdefault(name, kind) != kind:
            self.types[name] = ""  # in doubt a plain value, of which only operators may be called

    def expression(self, node: ast.AST) -> None:
        match node:
            case ast.Constant(value=value):
                if not isinstance(value, str | int | float | complex | None):
                    raise _refused(self.place, node, f"the constant {_excerpt(node)}")
            case ast.Name(id=name):
                if name in _ROOTS:
                    raise _refused(self.place, node, f"the whole of {name!r} as a value")
            case ast.Attribute():
                self._attribute(node)
            case ast.Call():
                self._call(node)
            case _ if isinstance(node, _PLAIN):
                for part in ast.iter_child_nodes(node):
                    self.expression(part)
            case _:
                raise _refused(self.place, node, f"{_excerpt(node)}, an expression that torch does not write")

    def _attribute(self, node: ast.Attribute) -> None:
        path = _path(node)
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
                raise _refused(self.place, node, f"{path}, which is not on the list of allowed operators")
            return
        self.expression(node.value)
        self._member(node, self._type(node.value), node.attr)

    def _member(self, node: ast.AST, owner: str, name: str) -> None:
        found = self.names.classes.get(owner)
        if found is None and name not in TORCH:
            raise _refused(self.place, node, f"{name!r} of a value, which is not on the list of allowed operators")
        if found is not None and name not in found.attributes and name not in found.methods:
            raise _refused(self.place, node, f"{name!r}, which {owner} does not have")

    def _call(self, node: ast.Call) -> None:
        match node.func:
            case ast.Name(id="getattr"):
                if len(node.args) != 2 or not isinstance(node.args[1], ast.Constant):
                    raise _refused(self.place, node, _excerpt(node))
                self._member(node, self._type(node.args[0]), str(node.args[1].value))
            case ast.Name(id=name):
                if name not in CALLS and self.types.get(name) not in self.names.functions:
                    raise _refused(self.place, node, f"{name}(), which is not on the list of allowed operators")
            case ast.Attribute():
                self._attribute(node.func)
            case _:
                raise _refused(self.place, node, _excerpt(node))
        for part in [*node.args, *node.keywords]:
            self.expression(part)

    def _type(self, node: ast.AST) -> str:
        """The class in the file that the value surely is of, or the function that it is; else ""."""
        path = _path(node)
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
                return _path(kind) if _path(kind) in self.names.classes else ""
            case ast.Call(func=ast.Name(id=name)):
                return self.names.functions.get(self.types.get(name, ""), "")
            case ast.Call(func=ast.Attribute(value=value, attr=name) as function):
                whole = _path(function)
                if whole:
                    return whole if whole in self.names.classes else self.names.functions.get(whole, "")
                found = self.names.classes.get(self._type(value))
                return found.methods.get(name, "") if found else ""
            case _:
                return ""

    def _member_type(self, owner: str, name: str) -> str:
        found = self.names.classes.get(owner)
        return found.attributes.get(name, "") if found else ""
