"""The parameter files of a station: where they lie, and whether they are right.

`robot-charger up`, `robot-charger doctor`, the launch files and every node check their files here, before anything
starts. Each fault is one line with file and line number. Nothing falls back to a default in silence: a file that is
missing, a section that no node reads and a misspelt name are faults.

Launch files run under the system's Python, so this module imports the standard library and PyYAML only. What the nodes'
parameters are called and which values they take is in parameters.json, written by ``robot_charger.operator.docs``.

ROS reads a parameter file in its own way (rcl_yaml_param_parser), and so does this module: a section's name may hold
``*`` (one name) and ``**`` (any number of names), there are no aliases, and ``on`` is a truth value.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from robot_charger.common.parameters import Meaning, ParameterError, converted

PARAMETERS = "ros__parameters"
TABLE = Path(__file__).with_name("parameters.json")
# Parameters that every ROS node has, with a value of their type.
EVERY_NODE: dict[str, Any] = {"use_sim_time": False, "start_type_description_service": True}
TRUE, FALSE = {"y", "yes", "true", "on"}, {"n", "no", "false", "off"}


def config_directory() -> Path:
    """config/ of the source tree, or in share/ of the installed package. Raises FileNotFoundError."""
    package = Path(__file__).resolve().parents[1]
    share = "share/robot_charger/config"
    candidates = [package.parent / "config", *(p / share for p in package.parents), Path(sys.prefix) / share]
    for candidate in candidates:
        if (candidate / "supervisor.yaml").exists():
            return candidate
    raise FileNotFoundError("config/supervisor.yaml is in none of: " + ", ".join(str(c) for c in candidates[:2]))


@dataclass(frozen=True, order=True)
class Trouble:
    """One fault of a parameter file. ``line`` counts from 1; 0 where it is the whole file's."""

    file: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


class Reader(Protocol):
    """A node and the parameter files that it reads, later ones win (station.NodeSpec is one)."""

    @property
    def name(self) -> str: ...  # fully qualified

    @property
    def executable(self) -> str: ...

    @property
    def files(self) -> Sequence[Path]: ...


@dataclass(frozen=True)
class Value:
    file: Path
    line: int
    value: Any


@dataclass
class Section:
    """What one ``ros__parameters`` block says, and to which nodes."""

    file: Path
    line: int
    pattern: str
    values: dict[str, Value] = field(default_factory=dict)

    def is_for(self, name: str) -> bool:
        """The node with this fully qualified name reads the section."""
        tokens = [{"**": r"(/\w+)*", "*": r"/\w+"}.get(t, "/" + re.escape(t)) for t in self.pattern.split("/") if t]
        return re.fullmatch("".join(tokens), name) is not None


@dataclass
class ParameterFile:
    """One file, read. ``troubles`` says what cannot be understood, whichever node reads it."""

    path: Path
    sections: list[Section] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)

    def trouble(self, node: yaml.Node | int, text: str) -> None:
        line = node if isinstance(node, int) else node.start_mark.line + 1
        self.troubles.append(Trouble(self.path, line, text))


def read(path: Path) -> ParameterFile:
    """Read one file. Never raises: what is wrong is in ``troubles``."""
    result = ParameterFile(path)
    try:
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 0
                result.trouble(line, f"ROS does not read aliases (*{event.anchor}): write it out")
        root = yaml.compose(text)
    except OSError as error:
        result.trouble(0, f"cannot be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        result.trouble(0, f"is no UTF-8 text (byte {error.start})")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        result.trouble(mark.line + 1 if mark else 0, f"is no YAML: {error.problem or error.context}")
    except yaml.YAMLError as error:
        result.trouble(0, f"is no YAML: {error}".splitlines()[0])
    else:
        if not result.troubles and root is not None:
            _sections(result, root, "")
    return result


def _pairs(file: ParameterFile, node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Keys and values of a mapping. A key that is written twice is a fault: one of the two would have no effect."""
    lines: dict[str, int] = {}
    for key, value in node.value:
        name = str(key.value)
        if name in lines:
            file.trouble(key, f"{name} is already in line {lines[name]}")
        lines[name] = key.start_mark.line + 1
        yield name, key, value


def _sections(file: ParameterFile, node: yaml.Node, prefix: str) -> None:
    if not isinstance(node, yaml.MappingNode):
        file.trouble(node, f"{prefix or 'the file'} must hold `{PARAMETERS}:` and below it NAME: VALUE")
        return
    found = False
    for name, key, value in _pairs(file, node):
        if name == PARAMETERS:
            found = True
            section = Section(file.path, key.start_mark.line + 1, prefix or "/**")
            _parameters(file, section, value, "")
            file.sections.append(section)
        elif difflib.get_close_matches(name, [PARAMETERS], 1, 0.85):
            found = True
            file.trouble(key, f"{name} is not read by ROS: write `{PARAMETERS}:`")
        elif isinstance(value, yaml.MappingNode):
            found = True
            _sections(file, value, f"{prefix}/{name.strip('/')}")
        else:
            file.trouble(key, f"{name} is outside `{PARAMETERS}:`, where ROS does not read it")
            found = True
    if not found:
        file.trouble(node, f"section {prefix or '(the file)'} is empty: it needs `{PARAMETERS}:`")


def _parameters(file: ParameterFile, section: Section, node: yaml.Node, prefix: str) -> None:
    if not isinstance(node, yaml.MappingNode):
        file.trouble(node, f"{prefix.rstrip('.') or PARAMETERS} must hold lines NAME: VALUE")
        return
    for name, key, value in _pairs(file, node):
        line = key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            _parameters(file, section, value, f"{prefix}{name}.")
            continue
        if isinstance(value, yaml.SequenceNode):
            content: Any = [scalar(item) for item in value.value if isinstance(item, yaml.ScalarNode)]
            if len(content) < len(value.value):
                file.trouble(key, f"parameter {prefix}{name} holds a list in a list, which ROS does not read")
                continue
            if len({type(item) for item in content}) > 1:
                file.trouble(key, f"parameter {prefix}{name} mixes kinds of values, which ROS does not read: {content}")
                continue
        else:
            content = scalar(value) if isinstance(value, yaml.ScalarNode) else None
        if content is None:
            file.trouble(key, f"parameter {prefix}{name} has no value")
            continue
        section.values[prefix + name] = Value(file.path, line, content)


def scalar(node: yaml.ScalarNode) -> bool | int | float | str | None:
    """The value of a scalar as ROS understands it."""
    text = str(node.value)
    if node.style:  # quoted, or a block of text
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("y", "Y", "n", "N") or text in {f(w) for w in TRUE | FALSE for f in (str, str.upper, str.capitalize)}:
        return text.lower() in TRUE
    if re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|[0-9]+)", text):
        digits = text.lstrip("+-")
        octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
        try:
            number = int(digits, 8 if octal else 0)
            return -number if text.startswith("-") else number
        except ValueError:  # 08: not octal, so a number with a point to ROS
            pass
    for word in (text, text.replace(".inf", "inf").replace(".nan", "nan")):
        if "_" not in word:
            try:
                return float(word)
            except ValueError:
                continue
    return text


@functools.cache
def table() -> dict[str, dict[str, tuple[Any, Meaning]]]:
    """Executable of a node -> parameter -> (default, meaning)."""

    def row(default: Any, choices: Sequence[str] = (), **meaning: Any) -> tuple[Any, Meaning]:
        return default, Meaning("", choices=tuple(choices), **meaning)

    nodes = json.loads(TABLE.read_text(encoding="utf-8"))
    return {
        executable: {name: row(**entry) for name, entry in parameters.items()}
        for executable, parameters in nodes.items()
    }


def check(readers: Iterable[Reader], whole: bool = True) -> list[Trouble]:
    """All faults in the parameter files of these nodes, in order of file and line.

    ``whole``: these are all nodes that read the files, so a section for none of them is a fault.
    """
    readers = list(readers)
    files = {path: read(path) for reader in readers for path in reader.files}
    found = {trouble for file in files.values() for trouble in file.troubles}
    for file in files.values():
        mine = [reader for reader in readers if file.path in reader.files]
        for section in file.sections:
            matching = [reader for reader in mine if section.is_for(reader.name)]
            if whole and not matching:
                found.add(Trouble(file.path, section.line, _no_node(section.pattern, mine)))
            found |= {t for reader in matching for t in _values(section, reader.executable)}
    for reader in readers:
        for path in reader.files:
            if not files[path].troubles and not any(s.is_for(reader.name) for s in files[path].sections):
                found.add(Trouble(path, 0, f"no section is for {reader.name}: it would run with its defaults"))
        found |= {
            Trouble(v.file, v.line, f"parameter {name} names {target}, which does not exist")
            for name, (v, target) in _named_files(reader, [files[p] for p in reader.files]).items()
            if not target.exists()
        }
    return sorted(found)


def _no_node(pattern: str, readers: Sequence[Reader]) -> str:
    names = [reader.name for reader in readers]
    close = difflib.get_close_matches(pattern, names, 1, 0.75)
    hint = f"did you mean {close[0]}?" if close else f"the file is read by {', '.join(names)}"
    return f"section {pattern} is for no node of this station: {hint}"


def _values(section: Section, executable: str) -> Iterator[Trouble]:
    """What is wrong with a section's values for this kind of node."""
    known = table()[executable]
    for name, value in section.values.items():
        if name in EVERY_NODE:
            default, meaning = EVERY_NODE[name], Meaning("")
        elif name in known:
            default, meaning = known[name]
        elif name.startswith("qos_overrides."):
            continue
        else:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else "docs/parameters.md lists them"
            yield Trouble(value.file, value.line, f"parameter {name} of {executable} is unknown: {hint}")
            continue
        try:
            reason = meaning.refuse(name, converted(name, value.value, default))
        except ParameterError as error:
            reason = str(error)
        if reason:
            yield Trouble(value.file, value.line, reason)


def _named_files(reader: Reader, files: Iterable[ParameterFile]) -> dict[str, tuple[Value, Path]]:
    """Parameters in force that name a file -> (where that is written, the path it means)."""
    values: dict[str, Value] = {}
    for file in files:
        for section in file.sections:
            if section.is_for(reader.name):
                values.update(section.values)
    named = {}
    for name, (_, meaning) in table().get(reader.executable, {}).items():
        value = values.get(name)
        if meaning.file and value is not None and isinstance(value.value, str) and value.value:
            named[name] = (value, value.file.parent / Path(value.value).expanduser())
    return named


@dataclass(frozen=True)
class Started:
    """This process as a reader: what its command line says."""

    name: str
    executable: str
    files: tuple[Path, ...]


def started(executable: str, arguments: Sequence[str]) -> Started:
    """The node of ``executable`` that ROS makes from these command-line arguments."""
    names: dict[str, str] = {}
    files = []
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "--params-file":
            files.append(Path(following))
        elif word in ("-r", "--remap") and ":=" in following:
            key, _, value = following.partition(":=")
            names[key.rpartition(":")[2]] = value  # a prefix NODE: names whom it is for
    node = names.get("__node", names.get("__name", executable))
    return Started(f"{names.get('__ns', '').rstrip('/')}/{node}", executable, tuple(files))


def named_files(reader: Reader) -> Mapping[str, str]:
    """Parameters of this node that name a file, as absolute paths: a relative one is beside the file that names it."""
    found = _named_files(reader, [read(path) for path in reader.files])
    return {name: str(path.absolute()) for name, (_, path) in found.items()}
