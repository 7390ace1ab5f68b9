"""Who serves adapters: a deployment of their base, else the first of them."""

from freehold.models.deploy import Guest, Plan
from freehold.models.deployment import Deployment
from freehold.models.sharing import share
from freehold.runtime.engine import Launch
from freehold.runtime.wish import Desired


def launch(name: str, weights: str) -> Launch:
    return Launch(deployment=name, engine="llamacpp", model=name, weights=weights, bytes=100)


def model(name: str, weights: str, replicas: int = 1) -> Plan:
    wish = Desired(deployment=name, launches=(launch(name, weights),) * replicas)
    return Plan(deployment=Deployment(name=name, model=name), desired=wish)


def adapter(name: str, *carriers: str, digest: str | None = None, replicas: int = 1) -> Plan:
    own = launch(name, carriers[0])
    guest = Guest(adapter=digest or f"{name}!", carriers=carriers, own=own, bytes=7)
    deployment = Deployment(name=name, model=name, replicas=replicas, idle_unload=60)
    return Plan(deployment=deployment, guest=guest)


def shared(*plans: Plan) -> dict[str, Plan]:
    return {plan.deployment.name: plan for plan in share(plans)}


def loads(plan: Plan) -> list[tuple[str, ...]]:
    assert plan.desired is not None
    return [each.adapters for each in plan.desired.launches]


def test_a_deployment_of_the_base_serves_all_its_adapters() -> None:
    found = shared(adapter("b", "w"), model("m", "w", 2), adapter("a", "w"), model("x", "other"))
    assert loads(found["m"]) == [("a!", "b!")] * 2
    assert loads(found["x"]) == [()]
    assert found["m"].launch is not None
    assert found["m"].launch.bytes == 114
    for name in "ab":
        assert found[name].host == "m"
        assert found[name].launch == found["m"].launch
        wish = found[name].desired
        assert wish == Desired(deployment=name, launches=(), follows="m")


def test_the_best_of_what_is_deployed_is_taken() -> None:
    plans = (model("old", "base"), model("new", "compressed"), adapter("a", "compressed", "base"))
    assert shared(*plans)["a"].host == "new"
    assert shared(plans[0], plans[2])["a"].host == "old"


def test_where_nobody_deployed_the_base_the_first_by_name_runs_it_for_all() -> None:
    found = shared(adapter("b", "w"), adapter("a", "w", replicas=2), adapter("z", "v"))
    assert (found["a"].host, found["b"].host, found["z"].host) == ("a", "a", "z")
    assert loads(found["a"]) == [("a!", "b!")] * 2
    assert found["a"].desired is not None
    assert found["a"].desired.idle_unload == 60
    assert loads(found["b"]) == []
    assert loads(found["z"]) == [("z!",)]


def test_one_adapter_under_two_names_is_loaded_once() -> None:
    found = shared(model("m", "w"), adapter("a", "w", digest="d"), adapter("b", "w", digest="d"))
    assert loads(found["m"]) == [("d",)]
    assert found["m"].launch is not None
    assert found["m"].launch.bytes == 107


def test_what_cannot_run_hosts_nobody() -> None:
    broken = Plan(deployment=Deployment(name="m", model="m"), reason="gone")
    found = shared(broken, adapter("a", "w"))
    assert found["a"].host == "a"
    assert found["m"] == broken
