"""What deployments mean for engines: launches, as far as the registry has what they want."""

from functools import partial

import msgspec

from freehold.errors import Broken, FreeholdError, Invalid
from freehold.models.adapter import carriers
from freehold.models.deployment import Deployment
from freehold.models.manifest import memory_needed
from freehold.models.registry import LaunchSettings, Registry, Version
from freehold.runtime.builds import AUTO, Builds
from freehold.runtime.engine import Launch
from freehold.runtime.wish import Desired
from freehold.settings import Runtime
from freehold.store.snapshot import Deadlines, Trust

LOCAL_ENGINE = "llamacpp"
REMOTE_ENGINE = "openai"


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter's deployment before it is known whose replicas it is served by.

    ``own`` is what it would run for itself: its base. ``carriers`` are the digests of weights that
    it can be added to, the best first; ``bytes`` is what the adapter takes.
    """

    adapter: str
    carriers: tuple[str, ...]
    own: Launch
    bytes: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment and what it comes to now: its version, its launches, or why it cannot run.

    An adapter's deployment is a ``guest``: of the replicas of ``host``, which may be its own name,
    and which run as ``shared`` says. ``note`` is what is to be known though it runs.
    """

    deployment: Deployment
    version: Version | None = None
    desired: Desired | None = None
    reason: str | None = None
    deadlines: Deadlines = Deadlines()
    guest: Guest | None = None
    host: str | None = None
    shared: Launch | None = None
    note: str | None = None

    @property
    def launch(self) -> Launch | None:
        """What it runs, or what runs for it."""
        if self.desired is not None and self.desired.launches:
            return self.desired.launches[0]
        return self.shared


def plan(
    deployment: Deployment, registry: Registry, settings: Runtime, builds: Builds | None = None
) -> Plan:
    """Work out what a deployment comes to with the registry as it is now."""
    limits = deadlines(deployment, settings)
    idle = deployment.idle_unload if deployment.idle_unload is not None else settings.idle_unload
    if deployment.model is None and not deployment.urls:
        return Plan(deployment=deployment, reason="what is stored of it is wrong: deploy it again")
    if deployment.model is None:
        weights = deployment.weights or (1.0,) * len(deployment.urls)
        launches = tuple(map(partial(_remote, deployment), deployment.urls, weights))
        return Plan(
            deployment=deployment,
            desired=Desired(deployment=deployment.name, launches=launches),
            deadlines=limits,
        )
    try:
        version = registry.resolve(deployment.model)
        _check_format(version)
        if version.manifest.adapter is not None:
            guest = _guest(deployment, version, registry, settings, builds)
            return Plan(deployment=deployment, version=version, guest=guest, deadlines=limits)
        if deployment.scale is not None:
            raise Invalid("invalid.deployment", f"{deployment.name}: only adapters have a scale")
        launch = local_launch(deployment, version, registry, settings, builds)
    except FreeholdError as error:
        return Plan(deployment=deployment, reason=error.message)
    except (ArithmeticError, ValueError, msgspec.MsgspecError) as error:
        return Plan(deployment=deployment, reason=f"what is stored of it is wrong: {error}"[:300])
    desired = Desired(
        deployment=deployment.name, launches=(launch,) * deployment.replicas, idle_unload=idle
    )
    note = None if launch.native else _passed_over(deployment, version, settings, builds)
    return Plan(
        deployment=deployment, version=version, desired=desired, deadlines=limits, note=note
    )


def is_free(deployment: Deployment, default: str) -> bool:
    """Say whether nobody named its engine, so that the runtime chooses. Pure."""
    return (deployment.build or default) == AUTO


def avoided(build: str, reason: str) -> str:
    """Return what is said of a deployment that runs on the wheel for want of a build. Pure."""
    return (
        f"the wheel is used in place of the engine {build}, which does not start ({reason}); "
        "freehold engine pick tries it again"
    )


def _passed_over(
    deployment: Deployment, version: Version, settings: Runtime, builds: Builds | None
) -> str | None:
    if builds is None or not is_free(deployment, settings.build):
        return None
    build = builds.passed_over(version.manifest.architecture)
    return avoided(build.id, build.failing.reason) if build and build.failing else None


def deadlines(deployment: Deployment, settings: Runtime) -> Deadlines:
    """Return the deadlines of a deployment: its own, else the settings'."""

    def pick(own: float | None, common: float) -> float:
        return common if own is None else own

    # One of our engines may read a long prompt between two tokens of another request, and is killed
    # by its health check when it hangs; an endpoint has nothing but this deadline.
    local = deployment.model is not None
    token = max(settings.token_timeout, settings.first_token_timeout if local else 0.0)
    return Deadlines(
        connect=pick(deployment.connect_timeout, settings.connect_timeout),
        headers=pick(deployment.headers_timeout, settings.headers_timeout),
        first_token=pick(deployment.first_token_timeout, settings.first_token_timeout),
        token=pick(deployment.token_timeout, token),
        total=pick(deployment.total_timeout, settings.total_timeout),
    )


def _check_format(version: Version) -> None:
    if version.row.format != "gguf":
        name = f"{version.row.model}:{version.row.number}"
        raise Invalid(
            "invalid.format",
            f"{name} is {version.row.format}, and the engine here runs GGUF: freehold model "
            f"convert {name} makes a version that it runs",
            param="model",
        )


def _guest(
    deployment: Deployment,
    version: Version,
    registry: Registry,
    settings: Runtime,
    builds: Builds | None,
) -> Guest:
    fit = carriers(version, registry)
    registry.admit(fit[0])
    return Guest(
        adapter=version.row.digest,
        carriers=tuple(each.row.digest for each in fit),
        own=local_launch(deployment, fit[0], registry, settings, builds),
        bytes=version.row.bytes,
    )


def local_launch(
    deployment: Deployment,
    version: Version,
    registry: Registry,
    settings: Runtime,
    builds: Builds | None,
) -> Launch:
    """Return how a replica of a version runs here; raises what stands in the way."""
    if version.damage is not None:
        name = f"{version.row.model}:{version.row.number}"
        raise Broken(
            "broken.version",
            f"{name} is damaged and not loaded: import it again (freehold model show tells more)",
        )
    _check_format(version)
    manifest, own = version.manifest, version.settings
    wanted = deployment.context or own.context
    longest = manifest.context
    context = wanted or min(settings.context, longest or settings.context)
    if longest is not None and context > longest:
        raise Invalid(
            "invalid.context",
            f"{deployment.name}: context {context} is over the {longest} the model was trained for",
            param="context",
        )
    slots = deployment.slots or own.slots or settings.slots
    draft = draft_of(deployment, version, registry)
    cache_type = deployment.cache_type or _own_cache(deployment, own)
    wanted_build = deployment.build or settings.build
    needed = memory_needed(manifest, version.row.bytes, context, slots, cache_type)
    if draft is not None:
        needed += memory_needed(draft.manifest, draft.row.bytes, context, slots, cache_type)
    return Launch(
        deployment=deployment.name,
        engine=LOCAL_ENGINE,
        model=deployment.name,
        task=manifest.task,
        weights=version.artifacts[0].digest,
        version=version.row.number,
        context=context,
        slots=slots,
        threads=deployment.threads or own.threads or settings.threads,
        bytes=needed,
        native=builds.choose(wanted_build, manifest.architecture) if builds else None,
        batch=deployment.batch or 0,
        cache_type=cache_type,
        flash=deployment.flash,
        draft=draft.artifacts[0].digest if draft else None,
        drafted=(deployment.drafted or own.drafted or 0) if draft else 0,
    )


def draft_of(deployment: Deployment, version: Version, registry: Registry) -> Version | None:
    """Return what guesses ahead: as the deployment says, else as the version is launched.

    What a deployment names must be there. What a version was measured with is left out where it
    cannot be used: it made things faster and nothing else.
    """
    if deployment.draft is not None:
        return _draft(deployment.draft, version, registry) if deployment.draft else None
    if version.settings.draft is None:
        return None
    try:
        return _draft(version.settings.draft, version, registry)
    except FreeholdError:
        return None


def _own_cache(deployment: Deployment, own: LaunchSettings) -> str:
    """Return the cache that a version is launched with; a coarse one needs fused attention."""
    return "" if deployment.flash is False else own.cache_type or ""


def _draft(reference: str, version: Version, registry: Registry) -> Version:
    found = registry.resolve(reference)
    if found.damage is not None:
        raise Broken("broken.version", f"the draft {reference} is damaged: import it again")
    ours, its = version.manifest.tokenizer, found.manifest.tokenizer
    if ours is None or its is None or ours.sha256 != its.sha256:
        raise Invalid(
            "invalid.draft",
            f"{reference} has another vocabulary than {version.row.model}: it cannot guess for it",
            param="draft",
        )
    return found


def _remote(deployment: Deployment, url: str, weight: float) -> Launch:
    return Launch(
        deployment=deployment.name,
        engine=REMOTE_ENGINE,
        model=deployment.upstream_model or deployment.name,
        task=deployment.task or "chat",
        url=url,
        upstream_key=deployment.upstream_key,
        weight=weight,
        trust=_trust(deployment),
    )


def _trust(deployment: Deployment) -> Trust | None:
    found = Trust(
        deployment.upstream_ca,
        deployment.upstream_certificate,
        deployment.upstream_certificate_key,
    )
    return found if found != Trust() else None
