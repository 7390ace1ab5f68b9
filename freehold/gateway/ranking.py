"""``POST /v1/rerank``: whether the deployment asked for is a reranker, its task says."""

from freehold.gateway.exchange import Exchange, Last
from freehold.gateway.parts import Parts
from freehold.gateway.pipeline import complete
from freehold.gateway.wire.rerank import Ranking
from freehold.record.entry import Entry
from freehold.routing.choose import AUTO


async def rerank(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
    """Answer one request."""
    routes = parts.follower.snapshot.routes
    rerankers = {name for name, route in routes.items() if route.task == "rerank"}

    def reranks(model: str) -> bool:
        return bool(rerankers) if model == AUTO else model in rerankers

    return await complete(exchange, Ranking(reranks).dialect, parts, entry)
