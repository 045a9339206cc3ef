"""mmcam: where did the model look when it said that?

The public names are imported when they are first used, so that `import mmcam` and `mmcam --help` need no torch.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcam.dumps.reader import MapReader
    from mmcam.engine import explain, explain_all
    from mmcam.errors import UserError
    from mmcam.explanation import Explanation
    from mmcam.load import explain_image, load_task
    from mmcam.task import Batch, Sample, Targets, Task

_HOMES = {
    "Batch": "task",
    "Explanation": "explanation",
    "MapReader": "dumps.reader",
    "Sample": "task",
    "Targets": "task",
    "Task": "task",
    "UserError": "errors",
    "explain": "engine",
    "explain_all": "engine",
    "explain_image": "load",
    "load_task": "load",
}

__all__ = [
    "Batch",
    "Explanation",
    "MapReader",
    "Sample",
    "Targets",
    "Task",
    "UserError",
    "__version__",
    "explain",
    "explain_all",
    "explain_image",
    "load_task",
]

try:
    __version__ = version("mmcam")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOMES:
        raise AttributeError(f"module 'mmcam' has no attribute {name!r}")
    return getattr(import_module(f"mmcam.{_HOMES[name]}"), name)
