"""Print what pyproject.toml asks for, one requirement a line: `requirements.py [EXTRA ...]`.

The image installs the dependencies in a layer of their own, before the code is copied; so they
are read from the one place where they stand.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
requirements = list(project["dependencies"])
for extra in sys.argv[1:]:
    requirements += project["optional-dependencies"][extra]
print("\n".join(requirements))
