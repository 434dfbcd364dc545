"""Puts the shared library and its header into the package.

MCPGW_C_LIBRARY names a library that is built; without it CMake builds one from the source tree that this directory is part of.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70 leaves it to the package wheel
    from wheel.bdist_wheel import bdist_wheel

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HEADER = ROOT / "bindings" / "c" / "include" / "mcpgw" / "mcpgw.h"


def built_library() -> Path:
    named = os.environ.get("MCPGW_C_LIBRARY")
    if named:
        return Path(named)
    if shutil.which("cmake") is None:
        sys.exit("CMake is missing; README.md names what building the library needs. Or set MCPGW_C_LIBRARY to a libmcpgw_c.so")
    # The preset says where it is built and of which parts; the Node.js package asks for the same.
    subprocess.run(["cmake", "--preset", "bindings"], cwd=ROOT, check=True)
    subprocess.run(["cmake", "--build", "--preset", "bindings", "-j", str(os.cpu_count() or 1)], cwd=ROOT, check=True)
    return ROOT / "build" / "bindings" / "bindings" / "c" / "libmcpgw_c.so"


class BuildWithLibrary(build_py):
    def run(self) -> None:
        if not HEADER.exists():
            sys.exit("This directory is built as a part of mcpgw's source tree: the header and the library come from there")
        super().run()
        package = Path(self.build_lib) / "mcpgw"
        package.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HEADER, package / "mcpgw.h")
        shutil.copyfile(built_library(), package / "libmcpgw_c.so")


class PlatformWheel(bdist_wheel):
    """One wheel for every Python 3 of a platform: the library knows nothing of Python."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple:
        return ("py3", "none", super().get_tag()[2])


class WithLibrary(Distribution):
    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": PlatformWheel}, distclass=WithLibrary)
