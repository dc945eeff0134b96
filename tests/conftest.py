"""How the tests are spread over processes: those that share a cluster stay together, and so do all that need Docker,
which build one image and load one engine. All others go wherever there is time."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("docker") is not None:
            item.add_marker(pytest.mark.xdist_group("docker"))
        elif item.get_closest_marker("system") is not None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
