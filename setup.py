"""The list of packages: those below ``dpcontrol/``, and ``problems/`` under the name ``dpcontrol.problems``.

Folders of data count as packages (of no modules), as setuptools wants it.
"""

from setuptools import find_namespace_packages, setup

NO_CACHE = ["*__pycache__*"]

setup(
    packages=[
        *find_namespace_packages(include=["dpcontrol", "dpcontrol.*"], exclude=NO_CACHE),
        "dpcontrol.problems",
        *(f"dpcontrol.problems.{name}" for name in find_namespace_packages("problems", exclude=NO_CACHE)),
    ],
    package_dir={"dpcontrol.problems": "problems"},
)
