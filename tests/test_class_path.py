"""Classes by their full names."""

import pytest

from mmcam.class_path import import_class
from mmcam.errors import UserError


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "needy_module.py").write_text("import absent_package.inner")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"needy_module needs the package 'absent_package'.*pip install absent_package"):
        import_class("needy_module.Thing", "task.class_path")
