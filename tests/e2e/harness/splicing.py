"""What the packet engine's counters must say. Under --driver veth, the dry run of the same tests on
the stream engine, there is nothing to check and these say so by returning."""
from harness import traffic


def stream_reasons(counters):
    """Why pairs stayed on the stream engine: {reason: pairs}."""
    return {name: value for name, value in counters.items() if name.startswith("stream_") and name.endswith("_total") and value}


def expect_spliced(sides, relay, pairs):
    """Exactly so many pairs were spliced and none was left to the stream engine."""
    if not sides.packets:
        return
    counters = relay.counters()
    assert not stream_reasons(counters), f"on the stream engine: {stream_reasons(counters)}"
    assert counters["handoffs_total"] == pairs, f"{counters['handoffs_total']} hand-offs of {pairs} pairs\n{relay.tail()}"
    assert counters["packet_spliced_total"] > 0


def expect_streamed(sides, relay, reason, pairs):
    """So many pairs stayed on the stream engine for this reason, and none was spliced."""
    if not sides.packets:
        return
    counters = relay.counters()
    assert stream_reasons(counters) == {f"stream_{reason}_total": pairs}, stream_reasons(counters)
    assert counters["handoffs_total"] == 0


def await_spliced(sides, relay, pairs):
    """Waits until so many hand-offs are done: what comes then goes through the splice."""
    if sides.packets:
        def state():
            counters = relay.counters()
            return (f"{counters['handoffs_total']} hand-offs instead of {pairs}, {counters['handoffs_under_way']} under way, "
                    f"streamed {stream_reasons(counters)}\n{relay.tail(10)}")

        traffic.eventually(lambda: relay.counters()["handoffs_total"] >= pairs, 5, state)
