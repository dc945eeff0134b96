"""How the tests are spread over processes: those that share a cluster stay together, and so do all that need Docker,
which build one image and load one engine. All others go wherever there is time. The longest come first, or they would
be what all others have to be waited for with."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("docker") is not None:
            item.add_marker(pytest.mark.xdist_group("docker"))
        elif item.get_closest_marker("system") is not None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if item.get_closest_marker("docker") is not None:
        return 0
    if "simulation" in item.path.parts:
        return 1
    return 3 - (item.get_closest_marker("system") is not None)
