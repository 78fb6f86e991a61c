"""Write the CMake package configuration of the interfaces that rosidl_build.py compiled.

With it, a C++ package says `find_package(robot_charger REQUIRED)` and links `${robot_charger_TARGETS}`, and another
interface package says `rosidl_generate_interfaces(... DEPENDENCIES robot_charger)`.  The variables and target names
are those that rosidl's own CMake functions export, because its generators read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rosidl_build

# What a user of one library of ours must link besides it: CMake packages that are looked for, and their targets.
RUNTIME = {
    "rosidl_generator_c": ("rosidl_runtime_c", "rosidl_typesupport_interface", "rcutils"),
    "rosidl_generator_cpp": ("rosidl_runtime_cpp",),
    "rosidl_generator_py": (),
    "rosidl_typesupport_c": ("rosidl_runtime_c", "rosidl_typesupport_c"),
    "rosidl_typesupport_cpp": ("rosidl_runtime_cpp", "rosidl_typesupport_c", "rosidl_typesupport_cpp"),
    "rosidl_typesupport_fastrtps_c": (
        "fastcdr", "rmw", "rosidl_runtime_c", "rosidl_typesupport_fastrtps_c", "rosidl_typesupport_fastrtps_cpp",
    ),
    "rosidl_typesupport_fastrtps_cpp": ("fastcdr", "rmw", "rosidl_runtime_cpp", "rosidl_typesupport_fastrtps_cpp"),
    "rosidl_typesupport_introspection_c": ("rosidl_runtime_c", "rosidl_typesupport_introspection_c"),
    "rosidl_typesupport_introspection_cpp": ("rosidl_runtime_cpp", "rosidl_typesupport_introspection_cpp"),
}  # fmt: skip

CONFIG = """\
# CMake configuration of {package}, written by rosidl_export.py when the package was built.

if(_{package}_CONFIG_INCLUDED)
  return()
endif()
set(_{package}_CONFIG_INCLUDED TRUE)

set({package}_FOUND_AMENT_PACKAGE TRUE)
set({package}_IDL_FILES "{idl}")
set({package}_INTERFACE_FILES "{interfaces}")

set({package}_DEPENDENCIES "{dependencies}")
set({package}_RECURSIVE_DEPENDENCIES ${{{package}_DEPENDENCIES}})
include(CMakeFindDependencyMacro)
foreach(_dependency ${{{package}_DEPENDENCIES}})
  find_dependency(${{_dependency}})
  list(APPEND {package}_RECURSIVE_DEPENDENCIES ${{${{_dependency}}_RECURSIVE_DEPENDENCIES}})
endforeach()
list(REMOVE_DUPLICATES {package}_RECURSIVE_DEPENDENCIES)

get_filename_component(_{package}_prefix "${{CMAKE_CURRENT_LIST_DIR}}/../../.." ABSOLUTE)
set({package}_INCLUDE_DIRS "${{_{package}_prefix}}/include/{package}")
set({package}_LIBRARIES "")
set({package}_TARGETS "")
"""

TARGET = """
add_library({target} {kind} IMPORTED)
set_target_properties({target} PROPERTIES
{location}  INTERFACE_INCLUDE_DIRECTORIES "${{{package}_INCLUDE_DIRS}}"
  INTERFACE_LINK_LIBRARIES "{links}")
list(APPEND {package}_TARGETS {target})
list(APPEND {package}_TARGETS__{generator} {target})
"""

LOCATION = """\
  IMPORTED_LOCATION "${{_{package}_prefix}}/lib/lib{package}__{generator}.so"
  IMPORTED_SONAME "lib{package}__{generator}.so"
"""

VERSION = """\
# A package of this version serves whoever looks for it or for an older one.
set(PACKAGE_VERSION "{version}")
if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
else()
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
  if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
  endif()
endif()
"""


def write(product: rosidl_build.Interfaces, package: str, version: str, folder: Path) -> list[Path]:
    """Write the two files of `package`, and return them. They belong into share/<package>/cmake."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        f"{package}Config.cmake": config(product, package),
        f"{package}Config-version.cmake": VERSION.format(version=version),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]


def config(product: rosidl_build.Interfaces, package: str) -> str:
    """Text of the configuration: C++ targets are in it only when C++ was built."""
    built = [library.stem.removeprefix(f"lib{package}__") for library in product.libraries]
    if any(name.endswith("_cpp") for name in built):
        built.insert(1, "rosidl_generator_cpp")  # headers only
    types = rosidl_build.dependencies(package, (f for name, f in product.share.items() if name.endswith(".json")))
    runtime = sorted({name for generator in built for name in RUNTIME[generator]})
    text = CONFIG.format(
        package=package,
        idl=";".join(sorted(name for name in product.share if name.endswith(".idl"))),
        interfaces=";".join(sorted(name for name in product.share if not name.endswith((".idl", ".json")))),
        dependencies=";".join([*types, *runtime]),
    )
    return text + "".join(_target(package, generator, types, built) for generator in built)


def _target(package: str, generator: str, types: Sequence[str], built: Sequence[str]) -> str:
    """One imported library: it brings the same library of every package whose types ours contain."""
    own = {"c": ("rosidl_generator_c",), "cpp": ("rosidl_generator_c", "rosidl_generator_cpp")}
    language = generator.rpartition("_")[2]
    links = [f"{package}::{package}__{name}" for name in own.get(language, ()) if name != generator and name in built]
    links += [name if name == "fastcdr" else f"{name}::{name}" for name in RUNTIME[generator]]
    links += [f"${{{dependency}_TARGETS__{generator}}}" for dependency in types]
    headers_only = generator == "rosidl_generator_cpp"
    return TARGET.format(
        package=package,
        generator=generator,
        target=f"{package}::{package}__{generator}",
        kind="INTERFACE" if headers_only else "SHARED",
        location="" if headers_only else LOCATION.format(package=package, generator=generator),
        links=";".join(links),
    )
