"""Which works a run consists of, what targets are called, how they are started."""

import pytest
from borebench import metrics, plan, relays

PROGRAMS = relays.Programs("/x/server", "/x/client", "/x/load", "/x/peers")


def test_every_target_has_a_name_that_reads_back_and_can_be_launched():
    for name in relays.names():
        spec = relays.Spec.parse(name)
        assert str(spec) == name and spec.text and "load" in spec.needs
        launch = relays.launch(spec, PROGRAMS, relays.Place("/folder", limit_mbit=80))
        assert (launch.relay is None) == (spec.relay == "direct")
        assert launch.own_service == (spec.client != "plain")
        for word in launch.relay or []:
            assert isinstance(word, str)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ours",
        "rust",
        "ours+",
        "nginx+bore",
        "ours:fast+bore",
        "squid",
        "ours+bore+plain",
        "direct:x",
    ],
)
def test_what_is_no_target_is_refused_with_those_that_are(name):
    with pytest.raises(ValueError, match="is no target; such are .*rathole"):
        relays.Spec.parse(name)


def test_a_bandwidth_limit_reaches_every_relay_that_has_one():
    for relay, said in relays.RELAYS.items():
        if said.limits_bandwidth:
            spec = relays.Spec.parse(f"{relay}+{said.clients[0]}" if said.clients[0] else relay)
            with_limit = relays.launch(spec, PROGRAMS, relays.Place("/f", limit_mbit=80))
            without = relays.launch(spec, PROGRAMS, relays.Place("/f"))
            assert with_limit != without, relay


def test_frp_variants_differ_by_what_they_say():
    text = {
        name: "".join(
            relays.launch(relays.Spec.parse(name), PROGRAMS, relays.Place("/f")).files.values()
        )
        for name in ("frp", "frp:tls", "frp:nomux")
    }
    assert "tls.enable = true" in text["frp:tls"] and "tls.enable = false" in text["frp"]
    assert text["frp:nomux"].count("tcpMux = false") == 2
    assert text["frp"].count("tcpMux = true") == 2


def test_every_work_names_what_exists():
    options = plan.Options(scenarios=tuple(plan.SCENARIOS))
    for work in [*plan.works(options), *plan.published()]:
        assert work.scenario in plan.SCENARIOS
        for name in work.metrics:
            assert name in metrics.METRICS
        for target in work.targets:
            spec = relays.Spec.parse(target)
            if work.scenario not in plan.EXTERNAL and options.targets == ():
                assert isinstance(plan.unfit(spec, work.scenario), str)


def test_works_have_a_name_of_their_own():
    for works in (plan.works(plan.Options(scenarios=tuple(plan.SCENARIOS))), plan.published()):
        names = [work.name for work in works]
        assert len(set(names)) == len(names)


def test_the_published_plan_measures_only_what_fits_and_compares_in_every_work():
    for work in plan.published():
        assert not [
            one for one in work.targets if plan.unfit(relays.Spec.parse(one), work.scenario)
        ], work.name
        assert any(one.startswith("ours") for one in work.targets)
        if work.scenario not in ("limits", "tunnels"):
            assert set(plan.REFERENCES) <= set(work.targets), work.name


def test_options_make_the_load():
    options = plan.Options(
        scenarios=("bulk", "rr"),
        directions=("both",),
        streams=(3,),
        verify=True,
        sizes=("64/20000",),
        connections=(2,),
        targets=("nginx",),
    )
    bulk, requests = plan.works(options)
    assert bulk.load == ("bulk", "--direction", "both", "--streams", 3, "--verify")
    assert requests.load == ("rr", "--size", 64, "--connections", 2, "--response-size", 20000)
    assert bulk.targets == ("nginx",)


def test_an_unknown_scenario_is_refused():
    with pytest.raises(ValueError, match="no scenario bulky"):
        plan.works(plan.Options(scenarios=("bulky",)))


def test_many_pairs_need_descriptors():
    few, many = (
        plan.works(plan.Options(scenarios=("idle",), pairs=pairs))[0] for pairs in (10, 50_000)
    )
    assert plan.descriptors(few) < 1000 and 100_000 <= plan.descriptors(many) < 110_000
    assert plan.descriptors(plan.works(plan.Options(scenarios=("crr",)))[0]) == 0


def test_what_a_target_cannot_do_has_a_reason():
    nginx, ours = relays.Spec.parse("nginx"), relays.Spec.parse("ours+bore")
    assert plan.unfit(nginx, "tunnels") and plan.unfit(None, "tunnels")
    assert plan.unfit(relays.Spec.parse("rust+rust"), "limits")
    for scenario in plan.SCENARIOS:
        assert plan.unfit(ours, scenario) == ""
