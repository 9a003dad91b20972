"""The code and the pickles of a model file, read as text against the allow-list of operators. Nothing is run.

Members come in; a ModelError that names file and line goes out for anything that is not on the list.
"""

import ast
import pickletools
import re
from collections.abc import Mapping

from transom.errors import ModelError
from transom.runtimes.functions import UNSAFE, Class, Function, Names, dotted, excerpt, refused, scan_annotation
from transom.runtimes.operators import PICKLED, SPECIAL_METHODS, TYPES

MAX_CODE = 4 << 20  # bytes of all source; parsing costs about 100 bytes of memory a byte
MAX_PICKLE = 16 << 20

_LIBRARY = "__torch__.torch.classes"  # what C++ libraries register; a class of the file there would only look like one
_STRING = re.compile(r'"(?:[^"\\\n]|\\[ -~])*"')


def scan(members: Mapping[str, bytes], place: str) -> None:
    """Raises ModelError for code or a pickle that could do more than compute on tensors.

    members: name within the archive -> bytes. `place`: the file, for the message.
    """
    sources = {n: d for n, d in members.items() if n.startswith("code/")}
    if sum(map(len, sources.values())) > MAX_CODE:
        raise ModelError(place, f"the model's code is longer than {MAX_CODE:,} bytes", UNSAFE)
    trees = {name: _parse(data, f"{place}, {name}") for name, data in sources.items()}
    names = _defined(trees, place)
    for name, tree in trees.items():
        try:
            _scan_module(tree, names, f"{place}, {name}")
        except RecursionError as error:
            raise ModelError(f"{place}, {name}", "the code is nested too deeply", UNSAFE) from error
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
            raise ModelError(f"{place}:{line}", f"{odd.group()!r} is nothing that torch writes into code", UNSAFE)
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ModelError(place, f"the code cannot be read ({type(error).__name__}: {error})", UNSAFE) from error


def _defined(trees: Mapping[str, ast.Module], place: str) -> Names:
    """All classes and functions. A name that is defined twice is refused: torch might read the other definition."""
    names = Names()
    for member, tree in trees.items():
        module = member.removeprefix("code/").removesuffix(".py").replace("/", ".")
        for node in tree.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                continue
            path = f"{module}.{node.name}"
            if path in names.classes or path in names.functions or f"{path}.".startswith(f"{_LIBRARY}."):
                raise refused(f"{place}, {member}", node, f"the name {path} for something else", UNSAFE)
            if isinstance(node, ast.FunctionDef):
                names.functions[path] = dotted(node.returns)
            else:
                names.classes[path] = _class(node, f"{place}, {member}")
    return names


def _class(node: ast.ClassDef, place: str) -> Class:
    found = Class()
    for part in node.body:
        match part:
            case ast.FunctionDef(name=name, returns=kind):
                members, kind_of = found.methods, dotted(kind)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                members, kind_of = found.attributes, dotted(annotation)
            case ast.Assign(targets=[ast.Subscript(slice=ast.Constant(value=str(name)))], value=value):
                members, kind_of = found.attributes, dotted(value)  # __annotations__["0"] = a class
            case ast.Assign(targets=[ast.Name(id=name)]):
                members, kind_of = found.attributes, ""
            case _:
                continue
        if name in found.attributes or name in found.methods:
            raise refused(place, part, f"the name {node.name}.{name} twice", UNSAFE)
        members[name] = kind_of
    return found


def _scan_module(tree: ast.Module, names: Names, place: str) -> None:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                if not isinstance(base, ast.Name) or base.id not in TYPES:
                    raise refused(place, base, f"the class {node.name} is a {ast.unparse(base)}")
            if node.keywords or node.decorator_list:
                raise refused(place, node, f"the class {node.name} is decorated")
            for part in node.body:
                _scan_class_part(part, names, place)
        elif isinstance(node, ast.FunctionDef):
            Function(names, place).scan(node)
        else:
            raise refused(place, node, f"{excerpt(node)} outside of a function")


def _scan_class_part(node: ast.stmt, names: Names, place: str) -> None:
    if isinstance(node, ast.FunctionDef):
        if node.name.startswith("__") and node.name not in SPECIAL_METHODS:
            when = "while it loads" if "state" in node.name else "unseen"
            raise refused(place, node, f"the method {node.name}, which would run {when}", UNSAFE)
        Function(names, place).scan(node)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        scan_annotation(node.annotation, names, place)
        if node.value is not None:
            Function(names, place).expression(node.value)
    elif isinstance(node, ast.Assign) and re.fullmatch(r"__annotations__\['[^']*'\]", ast.unparse(node.targets[0])):
        scan_annotation(node.value, names, place)
    elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        hidden = node.targets[0].id
        if hidden.startswith("__") and hidden not in ("__parameters__", "__buffers__"):
            raise refused(place, node, f"{excerpt(node)} in a class")
        Function(names, place).expression(node.value)
    elif not isinstance(node, ast.Pass):
        raise refused(place, node, f"{excerpt(node)} in a class")


def _scan_pickle(data: bytes, names: Names, place: str) -> None:
    if len(data) > MAX_PICKLE:
        raise ModelError(place, f"the pickle is longer than {MAX_PICKLE:,} bytes", UNSAFE)
    end = None
    try:
        for opcode, argument, position in pickletools.genops(data):
            end = position
            if opcode.name == "GLOBAL":
                if argument not in PICKLED and str(argument).replace(" ", ".") not in names.classes:
                    raise ModelError(place, f"the pickle names {str(argument).replace(' ', '.')!r}", UNSAFE)
            elif opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "PERSID", "EXT1", "EXT2", "EXT4"):
                raise ModelError(place, f"the pickle uses {opcode.name}, which torch does not write", UNSAFE)
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise ModelError(place, f"the pickle cannot be read ({error})", UNSAFE) from error
    if end is None or end + 1 != len(data):
        raise ModelError(place, "the pickle goes on after its end", UNSAFE)
