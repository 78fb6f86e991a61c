"""Generate and compile the package's ROS interfaces without CMake.

`build()` turns msg/, srv/ and action/ into Python modules, C libraries, one Python extension and the
files that `ros2 interface show` reads.  It drives the generators of rosidl, in the order CMake would:

    .msg -> .idl -> type hashes -> C structures and type supports -> Python modules -> libraries

Only setup.py uses this module.  Everything is kept in one folder below build/, and a second call does
nothing while the interface files, the generators, the Python and the compiler flags are the same; after
a change only what the change touches is compiled again.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.metadata
import json
import keyword
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

KINDS = ("msg", "srv", "action")
# Packages that rosidl itself adds to every service and action.
IMPLIED = ("builtin_interfaces", "service_msgs", "action_msgs", "unique_identifier_msgs")


CPP_KEYWORDS = frozenset(
    """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl const const_cast
    constexpr continue decltype default delete do double dynamic_cast else enum explicit export extern false
    float for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or
    or_eq private protected public register reinterpret_cast return short signed sizeof static static_assert
    static_cast struct switch template this thread_local throw true try typedef typeid typename union
    unsigned using virtual void volatile wchar_t while xor xor_eq
""".split()
)


class BuildError(Exception):
    """The interfaces cannot be built; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Generator:
    """One rosidl generator: the module, its function, and the library its sources make."""

    name: str
    function: str
    dispatches_to: tuple[str, ...] = ()  # type supports that a dispatching generator chooses from
    links: tuple[str, ...] = ()  # libraries of ROS itself
    uses: tuple[str, ...] = ()  # libraries of this package


C_GENERATORS = (
    Generator("rosidl_generator_c", "generate_c", links=("rosidl_runtime_c", "rcutils")),
    Generator(
        "rosidl_typesupport_fastrtps_c",
        "generate_typesupport_fastrtps_c",
        links=(
            "rosidl_typesupport_fastrtps_c",
            "rosidl_typesupport_fastrtps_cpp",
            "fastcdr",
            "rmw",
            "rosidl_runtime_c",
            "rcutils",
        ),
        uses=("rosidl_generator_c",),
    ),
    Generator(
        "rosidl_typesupport_introspection_c",
        "generate_c",
        links=("rosidl_typesupport_introspection_c", "rosidl_runtime_c", "rcutils"),
        uses=("rosidl_generator_c",),
    ),
    Generator(
        "rosidl_typesupport_c",
        "generate_c",
        dispatches_to=("rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c"),
        links=("rosidl_typesupport_c", "rosidl_runtime_c", "rcutils"),
        uses=("rosidl_generator_c",),
    ),
    Generator(
        "rosidl_generator_py",
        "generate_py",
        dispatches_to=("rosidl_typesupport_c",),
        links=("rosidl_runtime_c", "rcutils"),
        uses=("rosidl_generator_c", "rosidl_typesupport_c"),
    ),
)
# What C++ tools need that subscribe to any type (rosbag2, foxglove_bridge): built beside a ROS install.
CPP_GENERATORS = (
    Generator("rosidl_generator_cpp", "generate_cpp"),
    Generator(
        "rosidl_typesupport_fastrtps_cpp",
        "generate_cpp",
        links=("rosidl_typesupport_fastrtps_cpp", "fastcdr", "rmw", "rosidl_runtime_c", "rcutils"),
        uses=("rosidl_generator_c",),
    ),
    Generator(
        "rosidl_typesupport_introspection_cpp",
        "generate_cpp",
        links=("rosidl_typesupport_introspection_cpp", "rosidl_runtime_c", "rcutils"),
        uses=("rosidl_generator_c",),
    ),
    Generator(
        "rosidl_typesupport_cpp",
        "generate_cpp",
        dispatches_to=("rosidl_typesupport_fastrtps_cpp", "rosidl_typesupport_introspection_cpp"),
        links=("rosidl_typesupport_cpp", "rosidl_runtime_c", "rcutils"),
        uses=("rosidl_generator_c",),
    ),
)


@dataclass
class Interfaces:
    """What `build()` made: absolute paths of files in the build folder, and where each belongs."""

    modules: dict[str, Path] = field(default_factory=dict)  # path below the Python package -> file
    extension: Path = Path()
    libraries: list[Path] = field(default_factory=list)
    share: dict[str, Path] = field(default_factory=dict)  # path below share/<package> -> file
    headers: dict[str, Path] = field(default_factory=dict)  # path below include/<package>/<package> -> file
    index: Path = Path()  # entry for ament_index/resource_index/rosidl_interfaces


def ros_prefixes() -> list[Path]:
    """The ament prefixes to take interfaces, headers and libraries from, nearest first."""
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    try:
        adapter = importlib.import_module("rosidl_adapter")
    except ImportError:
        raise BuildError(
            "ROS 2 Jazzy is missing for " + sys.executable + ": source the setup file of a ROS install, or "
            "install the packages of requirements.lock (`make setup` does)."
        ) from None
    prefixes.append(_prefix_of(adapter))
    return list(dict.fromkeys(p.resolve() for p in prefixes if p.is_dir()))


def system_ros() -> Path | None:
    """The prefix of a ROS install that did not come from PyPI (a sourced apt or source install), or None."""
    for text in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        prefix = Path(text)
        from_pypi = any(prefix.glob("lib/python3*/site-packages/ros_rclpy-*.dist-info"))
        if text and (prefix / "share/rclpy/package.xml").is_file() and not from_pypi:
            return prefix
    return None


def dependencies(package: str, descriptions: Iterable[Path]) -> list[str]:
    """Other interface packages whose types ours contain, from the JSON type descriptions of ours."""
    names: set[str] = set(IMPLIED)
    for file in descriptions:
        names |= {t["type_name"].split("/")[0] for t in json.loads(file.read_text())["type_hashes"]}
    return sorted(names - {package})


def build(package: str, source: Path, folder: Path) -> Interfaces:
    """Build the interfaces of `package` found in source/{msg,srv,action} inside `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # two installs at once take turns
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _Build(package, source.resolve(), folder.resolve()).run()


class _Build:
    def __init__(self, package: str, source: Path, folder: Path) -> None:
        self.package = package
        self.source = source
        self.folder = folder
        self.files = [f for kind in KINDS for f in sorted((source / kind).glob(f"*.{kind}"))]
        if not self.files:
            raise BuildError(f"No interface files in {source}/msg, srv or action.")
        self.compilers = {
            ".c": _compiler("CC", ("cc", "gcc", "clang")),
            ".cpp": _compiler("CXX", ("c++", "g++", "clang++")),
        }
        self.prefixes = ros_prefixes()
        cpp = system_ros() is not None or os.environ.get("ROBOT_CHARGER_CPP_TYPESUPPORT") == "1"
        self.generators = C_GENERATORS + (CPP_GENERATORS if cpp else ())
        self.jobs = len(os.sched_getaffinity(0))

    def run(self) -> Interfaces:
        stamp, tools = self.folder / "stamp.json", self.folder / "toolchain"
        toolchain = self._toolchain()
        key = _digest([toolchain, *[f.name for f in self.files], *[f.read_bytes() for f in self.files]])
        before = json.loads(stamp.read_text()) if stamp.is_file() else {}
        if before.get("key") == key:
            product = _from_json(before["product"])
            if all(f.exists() for f in _all_files(product)):
                return product
        stamp.unlink(missing_ok=True)
        self._check_names()
        if not tools.is_file() or tools.read_text() != toolchain:
            for name in ("idl", "hash", "generated", "objects", "lib"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            tools.write_text(toolchain)

        print(f"generating {len(self.files)} interfaces of {self.package}", flush=True)
        idl = self._convert_to_idl()
        hashes = self._type_hashes(idl)
        generated = self._generate(idl, hashes)
        product = self._compile(generated, hashes)
        self._collect(product, idl, hashes, generated)
        stamp.write_text(json.dumps({"key": key, "product": _to_json(product)}))
        return product

    def _check_names(self) -> None:
        """rosidl accepts field names that its generated C++ or Python then cannot hold; we do not."""
        for file in self.files:
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                words = line.partition("#")[0].split()
                if len(words) > 1 and (words[1] in CPP_KEYWORDS or keyword.iskeyword(words[1])):
                    raise BuildError(
                        f"{file}:{number}: the field name `{words[1]}` is a reserved word of "
                        "C++ or Python; choose another."
                    )

    def _toolchain(self) -> str:
        """What, besides the interface files, decides the result."""
        import numpy

        generators = [Path(importlib.import_module(g.name).__file__ or "").stat().st_mtime_ns for g in self.generators]
        return _digest(
            [
                Path(__file__).read_bytes(),
                sys.version,
                numpy.__version__,
                sys.platform,
                platform.machine(),
                *[" ".join(c) for c in self.compilers.values()],
                *map(str, self.prefixes),
                str(self.folder),
                *[g.name for g in self.generators],
                *map(str, generators),
            ]
        )

    # --- generation -----------------------------------------------------------------------------------

    def _convert_to_idl(self) -> list[str]:
        """Write every interface as .idl; returns paths relative to the idl folder."""
        out = self.folder / "idl"
        shutil.rmtree(out, ignore_errors=True)
        with ProcessPoolExecutor(1) as child:
            trouble = child.submit(_convert_all, self.package, self.source, self.files, out).result()
        if trouble:
            raise BuildError(trouble)
        return [f"{file.suffix[1:]}/{file.stem}.idl" for file in self.files]

    def _arguments(self, name: str, idl: list[str], hashes: Path | None) -> tuple[Path, Path]:
        """Write the JSON file a generator reads; returns it and the generator's output folder.

        Every generator has a folder of its own, because names of their files collide.
        `target_dependencies` is empty on purpose: then a file whose text is unchanged is not rewritten.
        """
        out = self.folder / ("hash" if hashes is None else f"generated/{name}/{self.package}")
        out.mkdir(parents=True, exist_ok=True)
        arguments = {
            "package_name": self.package,
            "output_dir": str(out),
            "template_dir": str(_resources(name)),
            "idl_tuples": [f"{self.folder / 'idl'}:{path}" for path in idl],
            "ros_interface_files": [str(f) for f in self.files],
            "ros_interface_dependencies": [],
            "target_dependencies": [],
            "include_paths": [
                f"{share.name}:{share}"
                for prefix in reversed(self.prefixes)
                for share in sorted((prefix / "share").iterdir())
                if any((share / kind).is_dir() for kind in KINDS)
            ],
        }
        if hashes is not None:
            arguments["type_description_tuples"] = [
                f"{path}:{hashes / Path(path).with_suffix('.json')}" for path in idl
            ]
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(arguments, indent=1))
        return file, out

    def _type_hashes(self, idl: list[str]) -> Path:
        """Write the JSON type description of every interface; returns their folder."""
        from rosidl_generator_type_description import generate_type_hash

        shutil.rmtree(self.folder / "hash", ignore_errors=True)
        arguments, out = self._arguments("rosidl_generator_type_description", idl, None)
        try:
            generate_type_hash(str(arguments))
        except KeyError as error:
            raise BuildError(
                f"An interface uses {error}, which is in none of the ROS prefixes "
                f"({', '.join(map(str, self.prefixes))})."
            ) from error
        except FileNotFoundError as error:
            raise BuildError(f"An interface uses a type that is not installed: {error.filename}.") from error
        return out

    def _generate(self, idl: list[str], hashes: Path) -> dict[str, list[Path]]:
        """Run the generators side by side; returns the files that each wrote."""
        with ProcessPoolExecutor(self.jobs) as pool:
            futures = {}
            for generator in self.generators:
                arguments, out = self._arguments(generator.name, idl, hashes)
                futures[generator.name] = pool.submit(_run_generator, generator, arguments), out
            generated = {}
            for name, (future, out) in futures.items():
                generated[name] = [Path(f) for f in future.result()]
                for template in _resources(name).glob(f"{name}__visibility_control.*.in"):
                    header = out / "msg" / template.name.removesuffix(".in")
                    text = template.read_text().replace("@PROJECT_NAME@", self.package)
                    _write(header, text.replace("@PROJECT_NAME_UPPER@", self.package.upper()))
                    generated[name].append(header)
        return generated

    # --- compilation ----------------------------------------------------------------------------------

    def _compile(self, generated: dict[str, list[Path]], hashes: Path) -> Interfaces:
        """Compile five libraries (eight with C++) and the Python extension."""
        sources = {name: [f for f in files if f.suffix in self.compilers] for name, files in generated.items()}
        entry = f"_{self.package}_s.ep.rosidl_typesupport_c.c"
        every = [source for files in sources.values() for source in files]
        print(f"compiling {len(every)} files on {self.jobs} cores", flush=True)
        with ThreadPoolExecutor(self.jobs) as pool:
            objects = dict(zip(every, pool.map(self._object, every), strict=True))

        lib = self.folder / "lib"
        shutil.rmtree(lib, ignore_errors=True)
        lib.mkdir()
        product = Interfaces()
        others = dependencies(self.package, hashes.rglob("*.json"))
        for generator in self.generators:
            mine = [objects[s] for s in sources[generator.name] if s.name != entry]
            if not mine:
                continue
            output = lib / f"lib{self.package}__{generator.name}.so"
            needs = [
                *[f"{self.package}__{name}" for name in generator.uses],
                *generator.links,
                *[f"{dependency}__{generator.name}" for dependency in others],
                *[f"{dependency}__rosidl_generator_c" for dependency in others],
            ]
            self._link(output, mine, needs, ["-Wl,--as-needed", "-Wl,-rpath,$ORIGIN"])
            product.libraries.append(output)

        # The dispatching type support opens the two others by name, which works once they are loaded:
        # so the extension is bound to them even though it uses none of their symbols.
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        product.extension = lib / f"{self.package}_s__rosidl_typesupport_c{suffix}"
        bound = [f"{self.package}__{g.name}" for g in C_GENERATORS]
        self._link(
            product.extension,
            [objects[s] for s in every if s.name == entry],
            [*bound, "rosidl_typesupport_c", "rosidl_runtime_c"],
            ["-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN/_lib:$ORIGIN/../../.."],
        )
        return product

    def _object(self, source: Path) -> Path:
        """Compile one file, unless it and the generated headers it includes are older than its object."""
        target = self.folder / "objects" / source.relative_to(self.folder / "generated").with_suffix(".o")
        depfile = target.with_suffix(".d")
        if target.exists() and depfile.exists():
            needed = shlex.split(depfile.read_text().replace("\\\n", " ").partition(": ")[2])
            made = target.stat().st_mtime_ns
            if all(Path(f).exists() and Path(f).stat().st_mtime_ns < made for f in needed):
                return target
        target.parent.mkdir(parents=True, exist_ok=True)
        standard = "-std=c++17" if source.suffix == ".cpp" else "-std=gnu11"
        _call(
            [
                *self.compilers[source.suffix],
                standard,
                "-O1",
                "-fPIC",
                "-w",
                "-MMD",
                "-MF",
                str(depfile),
                *self._includes(),
                "-c",
                str(source),
                "-o",
                str(target),
            ],
            f"compile {source.name}",
        )
        return target

    def _includes(self) -> list[str]:
        import numpy

        own = [f"-I{self.folder / 'generated' / g.name}" for g in self.generators]
        # The packages of one prefix lie in include/<package>/<package> or in include/<package>.
        folders = [
            folder
            for prefix in self.prefixes
            if (prefix / "include").is_dir()
            for folder in (prefix / "include", *sorted((prefix / "include").iterdir()))
            if folder.is_dir() and not folder.name.startswith("python")
        ]
        folders += [Path(sysconfig.get_path("include")), Path(numpy.get_include())]
        return own + [part for folder in folders for part in ("-isystem", str(folder))]

    def _link(self, output: Path, objects: list[Path], libraries: Iterable[str], flags: list[str]) -> None:
        folders = [output.parent, *[p / "lib" for p in self.prefixes]]
        present = [
            name for name in dict.fromkeys(libraries) if any((folder / f"lib{name}.so").exists() for folder in folders)
        ]
        # rpath-link: libraries of ROS name each other without a path.
        _call(
            [
                *self.compilers[".cpp"],
                "-shared",
                "-s",
                f"-Wl,-soname,{output.name}",
                "-o",
                str(output),
                *map(str, objects),
                *flags,
                *[f"-L{f}" for f in folders],
                *[f"-Wl,-rpath-link,{f}" for f in folders],
                *[f"-l{name}" for name in present],
            ],
            f"link {output.name}",
        )

    def _collect(self, product: Interfaces, idl: list[str], hashes: Path, generated: dict[str, list[Path]]) -> None:
        python = self.folder / "generated/rosidl_generator_py" / self.package
        for file in generated["rosidl_generator_py"]:
            if file.suffix == ".py":
                product.modules[str(file.relative_to(python))] = file
        for kind in {Path(path).parent.name for path in idl}:
            product.modules[f"{kind}/__init__.py"] = python / kind / "__init__.py"
        for file in self.files:
            product.share[str(file.relative_to(self.source))] = file
        for path in idl:
            product.share[path] = self.folder / "idl" / path
            described = Path(path).with_suffix(".json")
            product.share[str(described)] = hashes / described
        for name, files in generated.items():
            root = self.folder / "generated" / name / self.package
            for file in files:
                if file.suffix in (".h", ".hpp"):
                    product.headers[str(file.relative_to(root))] = file
        names = sorted(path for path in product.share if not path.endswith(".json"))
        product.index = self.folder / "rosidl_interfaces"
        _write(product.index, "\n".join(names) + "\n")


def _run_generator(generator: Generator, arguments: Path) -> list[str]:
    module = importlib.import_module(generator.name)
    function = getattr(module, generator.function)
    rest = [list(generator.dispatches_to)] if generator.dispatches_to else []
    return [str(f) for f in function(str(arguments), *rest)]


def _resources(name: str) -> Path:
    return _prefix_of(importlib.import_module(name)) / "share" / name / "resource"


def _prefix_of(module: object) -> Path:
    """<prefix> of a module in <prefix>/lib/python3.x/site-packages/<module>/__init__.py."""
    return Path(module.__file__).resolve().parents[4]  # type: ignore[attr-defined]


def _compiler(variable: str, candidates: tuple[str, ...]) -> list[str]:
    if os.environ.get(variable):
        candidates = (os.environ[variable],)
    for candidate in candidates:
        command = shlex.split(candidate)
        if command and shutil.which(command[0]):
            return command
    raise BuildError(
        f"No {'C' if variable == 'CC' else 'C++'} compiler found (looked for "
        f"{', '.join(candidates)}): install one, for example `apt install g++`."
    )


def _call(command: list[str], task: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = re.search(r".*(?:error|undefined).*", done.stderr)
        if reason and "Python.h" in reason.group():
            raise BuildError(
                "Python.h is missing: install the headers of this Python, for example `apt install python3-dev`."
            )
        raise BuildError(f"Cannot {task}: {reason.group() if reason else done.stderr.strip()}")


def _convert_all(package: str, source: Path, files: list[Path], out: Path) -> str:
    """Convert every interface file to .idl; why that failed, or an empty text. Runs in a process of its own.

    empy 3 replaces sys.stdout for the rest of its process and stops when somebody else does (empy 4 does not).
    The adapter also prints a line per file, so this process gives up its standard output.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from rosidl_adapter import convert_to_idl

    for file in files:
        try:
            convert_to_idl(source, package, file.relative_to(source), out)
        except (Exception, SystemExit) as error:
            return f"{file}: {str(error) or type(error).__name__}"
    return ""


def _write(file: Path, text: str) -> None:
    """Write a file only if that changes it, so that what depends on it is not compiled again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists() or file.read_text() != text:
        file.write_text(text)


def _digest(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _all_files(product: Interfaces) -> list[Path]:
    return [
        *product.modules.values(),
        product.extension,
        *product.libraries,
        *product.share.values(),
        *product.headers.values(),
        product.index,
    ]


def _to_json(product: Interfaces) -> dict:
    def text(value: object) -> object:
        if isinstance(value, dict):
            return {key: str(file) for key, file in value.items()}
        return [str(f) for f in value] if isinstance(value, list) else str(value)

    return {name: text(value) for name, value in vars(product).items()}


def _from_json(saved: dict) -> Interfaces:
    def paths(value: dict | list | str) -> object:
        if isinstance(value, dict):
            return {key: Path(file) for key, file in value.items()}
        return [Path(f) for f in value] if isinstance(value, list) else Path(value)

    return Interfaces(**{name: paths(value) for name, value in saved.items()})
