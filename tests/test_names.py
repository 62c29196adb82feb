"""A package's names are what they seem: none of them hides a module."""

import importlib
import inspect
import pkgutil

import pytest

import autograd
import npformer
import train

PACKAGES = [
    importlib.import_module(found.name)
    for root in (autograd, npformer, train)
    for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}.")
    if found.ispkg
] + [autograd, npformer, train]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_no_name_hides_a_module(package):
    """Where a function has a module's name, `import package.name as m` gives the function."""
    for module in pkgutil.iter_modules(package.__path__):
        found = getattr(package, module.name, None)
        assert found is None or inspect.ismodule(found), f"{package.__name__}.{module.name}"


def test_what_the_packages_export_is_there():
    for package in (autograd, autograd.ops, npformer):
        for name in package.__all__:
            assert hasattr(package, name), name
