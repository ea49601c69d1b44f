"""What a client's trace context may be: what it sends goes into the log and to the exporter (W3C Trace Context)."""

import pytest

from gateway.tracing import is_tracestate


@pytest.mark.parametrize(
    "text",
    [
        *("a=b", "rojo=00f067aa0ba902b7", "congo=t61rcWkgMzE,rojo=1", "a=b ,\tc=d", "a=b,,c=d", "0t@sys=1", "a*/_-=x"),
        *("a= b", ",".join(f"k{number}=v" for number in range(32)), "a=" + "x" * 256, "a=;:'\"!"),
    ],
)
def test_well_formed(text: str) -> None:
    assert is_tracestate(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ",",
            "a",
            "=b",
            "a=",
            "A=b",
            "a=b,a=c",
            "a=b=c",
            "a=é",
            "a=\x01",
            "a=b\n",
            "0a=b",
            "@a=b",
            "a@=b",
            "a@B=c",
        ),
        *("a b=c", "a=b,c", ",".join(f"k{number}=v" for number in range(33)), "a=" + "x" * 257),
        *("a" * 257 + "=b", "a@" + "b" * 15 + "=c", "a=b," + "x" * 509, "prompt: a red circle"),
    ],
)
def test_anything_else_is_dropped(text: str) -> None:
    assert not is_tracestate(text)
