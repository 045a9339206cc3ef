"""Where the shipped configurations and trained weights lie, in a checkout and in an installed wheel alike."""

from pathlib import Path

from mmcam.errors import UserError, unknown

_PACKAGE = Path(__file__).resolve().parent


def config_path(name: str | Path) -> Path:
    """Find a run's configuration.

    Args:
        name: A YAML file of the user's own, or a shipped one's name: ``captioning/scenes``, also written
            ``configs/captioning/scenes.yaml``. Or the folder of a model that knows its task, as `mmcam import` makes.

    Returns:
        The YAML file, or the folder's ``config.json``; the user's own wins over a shipped one of the same name.

    Raises:
        UserError: It is neither; the error names the nearest shipped ones.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if _holds_weights(path):
        return path / "config.json"
    shipped = shipped_configs()
    key = path.as_posix().removeprefix("configs/").removesuffix(".yaml")
    if key not in shipped:
        raise unknown("config file or name", key if path.suffix == ".yaml" else path.as_posix(), shipped)
    return shipped[key]


def weights_path(name: str | Path) -> Path:
    """Find the folder of a trained model: ``config.json`` and ``model.safetensors``.

    Args:
        name: A folder of the user's own, or the name of shipped weights.

    Returns:
        The folder; the user's own wins over a shipped one of the same name.

    Raises:
        UserError: It is neither, or a folder without both files; the error names the nearest shipped ones.
    """
    path = Path(name).expanduser()
    if _holds_weights(path):
        return path
    shipped = shipped_weights()
    if path.as_posix() in shipped:
        return shipped[path.as_posix()]
    if path.is_dir():
        raise UserError(
            f"a weights folder holds config.json and model.safetensors; {path} lacks one of them: "
            f"train into it, or name shipped weights ({', '.join(shipped) or 'none here'})"
        )
    raise unknown("weights folder or name", path.as_posix(), shipped)


def shipped_configs() -> dict[str, Path]:
    """List the shipped configurations: ``captioning/scenes`` to its YAML file."""
    # The wheel carries configs inside the package. Beside the package they are a checkout's; beside an installed
    # package, in site-packages, a folder of that name would be a stranger's.
    inside = _PACKAGE / "configs"
    folder = inside if inside.is_dir() else _PACKAGE.parent / "configs"
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.yaml"))}


def shipped_weights() -> dict[str, Path]:
    """List the shipped weights: a model's name to its folder."""
    folders = sorted(file.parent for file in (_PACKAGE / "weights").rglob("model.safetensors"))
    return {folder.relative_to(_PACKAGE / "weights").as_posix(): folder for folder in folders if _holds_weights(folder)}


def _holds_weights(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()
