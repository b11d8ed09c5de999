"""The list of packages: those below ``dpcontrol/``, and ``problems/`` under the name ``dpcontrol.problems``."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["dpcontrol", "dpcontrol.*"]),
        "dpcontrol.problems",
        *(f"dpcontrol.problems.{name}" for name in find_packages("problems")),
    ],
    package_dir={"dpcontrol.problems": "problems"},
)
