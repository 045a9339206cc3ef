"""Print the oldest direct dependencies that pyproject.toml allows, as a constraints file for pip."""

import re
import tomllib
from pathlib import Path

BOUND = re.compile(r"(?P<name>[\w.-]+)(\[[\w,-]+\])?>=(?P<version>[\d.]+)")


def main() -> None:
    """Turn every ``name>=version`` of the package and of its extras into ``name==version``."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (requirement for group in groups for requirement in group):
        if not requirement.startswith("mmcam["):
            bound = BOUND.match(requirement)
            if bound is None:
                raise SystemExit(f"a dependency states its lower bound first, as in 'numpy>=2.0'; got {requirement!r}")
            print(f"{bound['name']}=={bound['version']}")


if __name__ == "__main__":
    main()
