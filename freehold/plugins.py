"""Find, allow, check and open plugins.

A plugin is an entry point in the group ``freehold.plugins`` named ``KIND.NAME``. Built-in ones use
the same door. A plugin from another distribution is opened only when the administrator allows its
id in the settings.
"""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from freehold.errors import Invalid, Missing
from freehold.settings import Plugins

GROUP = "freehold.plugins"
OURS = "freehold"


def known() -> dict[str, EntryPoint]:
    """Return every installed plugin by id; two distributions may not claim one id."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in found and found[point.name].value != point.value:
            raise Invalid("invalid.plugin", f"two installed packages claim the plugin {point.name}")
        found[point.name] = point
    return found


def allowed(settings: Plugins, found: Iterable[EntryPoint]) -> dict[str, EntryPoint]:
    """Return the plugins the administrator lets in: ours unless denied, others when allowed."""
    return {
        point.name: point
        for point in found
        if point.name not in settings.deny and (_is_ours(point) or point.name in settings.allow)
    }


def open_kind(kind: str, settings: Plugins) -> dict[str, type]:
    """Return the classes of all allowed plugins of one kind, by name without the kind."""
    points = allowed(settings, known().values())
    return {
        name.partition(".")[2]: _load(point)
        for name, point in sorted(points.items())
        if name.partition(".")[0] == kind
    }


def _is_ours(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == OURS


def _load(point: EntryPoint) -> type:
    try:
        loaded = point.load()
    except (ImportError, AttributeError) as error:
        raise Missing("missing.plugin", f"plugin {point.name} cannot be loaded: {error}") from error
    if not isinstance(loaded, type):
        raise Invalid("invalid.plugin", f"plugin {point.name} is not a class")
    return loaded
