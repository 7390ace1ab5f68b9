"""Settings: one TOML file into frozen types, read once at start.

The only reader of the configuration file and of the environment. Each part of the house receives
its own section and nothing else. Unknown keys are errors that name the nearest known key; secrets
are written as references (``file:PATH``, ``env:NAME``) and resolved where they are used.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from freehold.errors import Invalid

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Timeout = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Limit = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file."""


class Server(Section, frozen=True):
    """The HTTP front door.

    ``workers`` 0 picks by the number of cores: one for up to 8, one for every 8 above.
    ``body_limit``, ``head_limit`` (request line and headers) and ``url_limit`` are in bytes, all
    times in seconds. ``shutdown_grace`` is how long running requests may go on when their gateway
    stops; ``idle_timeout`` how long a connection may do nothing, and the head of a request take;
    ``body_timeout`` how long a body may take, plus a second for every 32 KiB; ``send_timeout`` how
    long a client may take nothing of an answer. ``connections`` is the most a gateway holds,
    ``connections_per_peer`` of them from one address (0 is no bound, trusted proxies have none):
    of more, idle ones are closed, and busy ones refused. ``streams`` is the most requests at a time
    on one connection of HTTP/2.

    ``tls_certificate`` and ``tls_key`` are PEM files, ``tls_key_password`` a reference;
    ``client_ca`` is a PEM file of the authorities whose client certificates are taken, which
    ``client_certificate`` makes ``required`` or ``optional``. ``insecure`` allows an address other
    machines reach without TLS. ``cors_origins`` are the origins whose pages may call, or ``*``.
    ``proxy_header`` is believed from ``trusted_proxies`` (networks as ``10.0.0.0/8``) only.
    """

    host: str = "127.0.0.1"
    port: Port = 8400
    workers: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    body_limit: Count = 16 * 1024 * 1024
    head_limit: Annotated[int, msgspec.Meta(ge=8192, le=1 << 20)] = 64 * 1024
    url_limit: Count = 8192
    shutdown_grace: Seconds = 10.0
    idle_timeout: Timeout = 30.0
    body_timeout: Timeout = 30.0
    send_timeout: Timeout = 30.0
    connections: Count = 2048
    connections_per_peer: Annotated[int, msgspec.Meta(ge=0)] = 512
    streams: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    tls_certificate: str = ""
    tls_key: str = ""
    tls_key_password: str = ""
    client_ca: str = ""
    client_certificate: Literal["required", "optional"] = "required"
    insecure: bool = False
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    proxy_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"


class Runtime(Section, frozen=True):
    """How engines are run.

    ``memory`` is the budget for all local engines in bytes, 0 for ``memory_share`` of the
    machine. Times are in seconds. ``idle_unload`` 0 keeps a loaded model until its room is
    needed. ``wait_limit`` caps how long a request may ask to wait for a load.

    Of the deadlines, ``connect_timeout``, ``headers_timeout`` and ``first_token_timeout`` count
    from when an engine is asked, ``token_timeout`` from the last sign of life of a stream, and
    ``total_timeout`` from the request, over all attempts. ``retries`` is how often everybody is
    asked again when nobody could answer, ``retry_wait`` how long at most it waits for that.

    ``build`` is which llama.cpp runs: ``wheel``, the id of a build, or ``auto`` for the fastest
    that was verified on a model's architecture.
    """

    memory: Annotated[int, msgspec.Meta(ge=0)] = 0
    memory_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    context: Count = 8192
    slots: Count = 4
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    load_timeout: Seconds = 300.0
    idle_unload: Seconds = 0.0
    drain_timeout: Seconds = 60.0
    wait_limit: Seconds = 600.0
    connect_timeout: Limit = 3.0
    headers_timeout: Limit = 300.0
    first_token_timeout: Limit = 300.0
    token_timeout: Limit = 60.0
    total_timeout: Limit = 1800.0
    build: str = "auto"
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2
    retry_wait: Seconds = 10.0


class Host(Section, frozen=True):
    """A registry or a Freehold: ``password`` (a reference) goes there and to ``token_host``."""

    username: str = ""
    password: str = ""
    token_host: str = ""
    plain_http: bool = False


class Bucket(Section, frozen=True):
    """A bucket as ``obstore`` opens it: its ``options``, and ``secrets``, each a reference."""

    options: dict[str, str] = {}
    secrets: dict[str, str] = {}
    plain_http: bool = False


class Sources(Section, frozen=True):
    """Where models come from.

    ``pypi_index`` empty means the index this machine's pip uses; ``hub_endpoint`` empty means the
    Hub's own default. ``ca_bundle`` is a PEM file trusted in addition to the built-in roots.
    ``hosts`` are registries by ``HOST[:PORT]``, ``buckets`` by ``s3://NAME``, ``gs://NAME`` and
    ``az://NAME``.
    """

    pypi_index: str = ""
    hub_endpoint: str = ""
    hub_token: str = ""
    ca_bundle: str = ""
    catalog: str = ""
    timeout: Seconds = 60.0
    hosts: dict[str, Host] = {}
    buckets: dict[str, Bucket] = {}


class Signing(Section, frozen=True):
    """Whose signatures of models count (PEM files); ``required`` takes and loads nothing else."""

    required: bool = False
    keys: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()


class Registry(Section, frozen=True):
    """How model bytes are kept, and our own OCI registry at ``/v2/`` (``enabled``).

    ``quota`` is how many bytes all of them may take on disk, ``quotas`` what those may take that
    each ``principal:NAME`` or ``team:NAME`` has brought in; 0 and nothing said are no limit.
    What nobody has used for ``pack_after`` seconds and shares bytes with others is kept as chunks,
    0 packs nothing by itself. Every ``verify_every`` seconds each file is read again and held
    against its digest, at ``verify_rate`` bytes a second at most; 0 is never. Downloads that
    nobody went on with for ``scratch_keep`` seconds are deleted.

    An upload of at most ``blob_limit`` bytes is kept ``upload_seconds`` after its last byte; with
    ``any_artifact`` what holds no model is taken too: stored, not scanned.
    """

    quota: Annotated[int, msgspec.Meta(ge=0)] = 0
    quotas: dict[str, Count] = {}
    pack_after: Seconds = 7 * 86400.0
    verify_every: Seconds = 7 * 86400.0
    verify_rate: Count = 32 * 1024 * 1024
    scratch_keep: Seconds = 7 * 86400.0
    enabled: bool = True
    blob_limit: Count = 1 << 40
    upload_seconds: Timeout = 86_400.0
    any_artifact: bool = False


class Scan(Section, frozen=True):
    """What looks at the files of a model before they are one.

    ``clamd`` is a ClamAV daemon, as ``unix:/run/clamav/clamd.ctl`` or ``tcp:127.0.0.1:3310``; files
    go to it in windows of ``clamd_window`` bytes, which must be below half of its limits.
    ``yara`` are files of YARA rules. Both are asked about every file once they are set, and nothing
    is taken in while they do not answer. ``seconds`` of processor time are what a second opinion
    may take, beside one for every 20 MiB, and ``template_seconds`` what rendering templates may.
    """

    clamd: str = ""
    clamd_window: Annotated[int, msgspec.Meta(ge=1 << 20, le=1 << 30)] = 16 * 1024 * 1024
    clamd_timeout: Timeout = 120.0
    yara: tuple[str, ...] = ()
    seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60
    template_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)] = 10


class Licences(Section, frozen=True):
    """Which licences of models may be used, by SPDX id or name (``gemma``, ``llama3.1``).

    ``deny`` are refused at import and deploy. ``ask`` are taken in, and deployed once somebody has
    accepted them (``freehold model accept``). Where ``allow`` names any, others are treated as
    ``others`` says, which is ``allow``, ``ask`` or ``deny``; ``unknown`` says the same of models
    whose licence nobody tells. A ``*`` stands for any letters: ``cc-by-nc-*``.
    """

    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    others: Literal["allow", "ask", "deny"] = "allow"
    unknown: Literal["allow", "ask", "deny"] = "allow"


class Audit(Section, frozen=True):
    """The durable record of every request.

    ``segment_bytes`` is the size at which a file of it rotates. Records are kept for ``keep_days``
    after they were written, 0 for ever; usage and spending always, of spending the days.
    """

    segment_bytes: Count = 64 * 1024 * 1024
    keep_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 0


class Log(Section, frozen=True):
    """The log of each process: one JSON object a line on standard error, never any content.

    ``level`` is the least that is written; an error answered is a warning, one of ours an error.
    ``access`` adds a line for every other request. Lines of gateways go to ``HOME/logs``.
    """

    level: Literal["debug", "info", "warning", "error"] = "warning"
    access: bool = False


class Telemetry(Section, frozen=True):
    """What is shown to the tools that watch Freehold.

    ``endpoint`` is where an OpenTelemetry collector takes OTLP over HTTP
    (``http://127.0.0.1:4318``); empty sends nothing. It needs ``pip install 'freehold[otel]'``.
    ``headers`` go with it, each a reference to a secret. ``sample_ratio`` of the traces that begin
    here are sent; a caller's own decision holds. Metrics are sent every ``metrics_interval``
    seconds, 0 is never; a collector that does not answer within ``timeout`` seconds misses them.
    ``metrics_without_key`` serves ``GET /metrics`` without a key to this machine's loopback.
    """

    endpoint: str = ""
    headers: dict[str, str] = {}
    sample_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    metrics_interval: Seconds = 60.0
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    metrics_without_key: bool = False


class Quotas(Section, frozen=True):
    """Budgets, and the line before deployments whose engines are full.

    ``unstated_answer`` is how many tokens are reserved for an answer that neither the request nor
    its deployment bounds. ``line`` is how many requests may wait for one deployment in a gateway,
    ``longest_wait`` how many seconds they do. ``weights`` are the shares of tenants in it, by
    ``team:NAME`` or ``principal:NAME``, 1 where nothing is said.
    """

    unstated_answer: Count = 4096
    line: Annotated[int, msgspec.Meta(ge=0)] = 512
    longest_wait: Seconds = 60.0
    weights: dict[str, Annotated[int, msgspec.Meta(ge=1, le=1000)]] = {}


class Cache(Section, frozen=True):
    """Answers kept in memory, for deployments that ask for it: so many ``bytes`` a gateway."""

    bytes: Count = 64 * 1024 * 1024


class Responses(Section, frozen=True):
    """Responses that the Responses API stores, under ``HOME/responses``.

    ``store`` false keeps none. ``keep`` is for how many seconds after its last use a response is
    kept, ``max_bytes`` how much all of them may take: then the longest unused go first.
    """

    store: bool = True
    keep: Seconds = 30 * 86400.0
    max_bytes: Count = 1024 * 1024 * 1024


class Compress(Section, frozen=True):
    """Compression. ``llmcompressor`` is a Python interpreter that has llm-compressor, for models
    in safetensors: its libraries do not go into the same one as ours.
    """

    llmcompressor: str = ""


class Plugins(Section, frozen=True):
    """Which plugins may be opened, by id. Built-in ones are allowed unless denied."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class Settings(Section, frozen=True):
    """Everything ``freehold.toml`` may say. Each field is a table of the same name."""

    server: Server = Server()
    runtime: Runtime = Runtime()
    sources: Sources = Sources()
    scan: Scan = Scan()
    licences: Licences = Licences()
    signing: Signing = Signing()
    registry: Registry = Registry()
    audit: Audit = Audit()
    log: Log = Log()
    telemetry: Telemetry = Telemetry()
    quotas: Quotas = Quotas()
    cache: Cache = Cache()
    responses: Responses = Responses()
    compress: Compress = Compress()
    plugins: Plugins = Plugins()


FILE = "HOME/freehold.toml"
IN_FORCE = f"{FILE}, then freehold down and freehold up"
"""Where a setting is written and how it comes into force, as errors say it."""
BY_GATEWAYS = ("server", "quotas", "cache", "responses")
"""Sections that gateways alone go by: replacing those puts them in force."""
BY_CONTROL = ("server.host", "server.port", "server.workers")


def waiting(before: Settings, now: Settings) -> list[str]:
    """Return what has changed and waits for ``freehold up``, after gateways were replaced."""
    names = [name for name in Settings.__struct_fields__ if name not in BY_GATEWAYS]
    found = [name for name in names if getattr(before, name) != getattr(now, name)]
    for name in BY_CONTROL:
        field = name.partition(".")[2]
        if getattr(before.server, field) != getattr(now.server, field):
            found.append(name)
    return found


def worker_count(settings: Server) -> int:
    """Return how many gateways to run: as told, else one for every eight cores."""
    return settings.workers or max(1, (os.cpu_count() or 1) // 8)


def environment() -> Mapping[str, str]:
    """Return the process environment: the one place that touches it."""
    return os.environ  # noqa: TID251 - this is the reader the rule names


def home_directory(given: str | None) -> Path:
    """Return FREEHOLD_HOME: what was given, else the environment's, else ``~/.freehold``."""
    chosen = given or environment().get("FREEHOLD_HOME") or "~/.freehold"
    return Path(chosen).expanduser().absolute()


def read_settings(home: Path) -> Settings:
    """Read ``HOME/freehold.toml``; defaults where it, or a key in it, is absent."""
    path = home / "freehold.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("invalid.settings", f"cannot read {path}: {error}") from error
    return parse_settings(text, str(path))


def parse_settings(text: str, name: str = "freehold.toml") -> Settings:
    """Parse the text of a settings file; ``name`` is used in errors only."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid("invalid.settings", f"{name}: not TOML: {error}") from error
    for where, key, known in _unknown_keys(table, Settings):
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
        raise Invalid("invalid.settings", f"{name}: unknown key {where}{key}: {hint}", param=key)
    try:
        return msgspec.convert(table, Settings)
    except msgspec.ValidationError as error:
        raise Invalid("invalid.settings", f"{name}: {error}") from error


def _unknown_keys(
    table: Mapping[str, Any], kind: type, where: str = ""
) -> Iterator[tuple[str, str, list[str]]]:
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in table.items():
        if key not in fields:
            yield where, key, sorted(fields)
        elif isinstance(value, dict) and isinstance(fields[key], type):
            yield from _unknown_keys(value, fields[key], f"{where}{key}.")
