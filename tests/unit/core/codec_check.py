"""Golden bytes against the codec that this process has. Run as a program it forces betterproto's pure Python one.

Files: golden/events_v1.json, one example of every event type, sealed, as hexadecimal. They are never changed: what
a release wrote, every later one reads. A new version of an event gets a new file and an upcaster.
"""

import json
import sys
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden" / "events_v1.json"


def golden() -> dict[str, bytes]:
    return {name: bytes.fromhex(text) for name, text in json.loads(GOLDEN.read_text()).items()}


def check() -> None:
    """Every golden event is read as the example it was made from, written as the same bytes, and by betterproto too."""
    from core.log.codec import RECORDS, decode, encode, type_of
    from schema.envelope import unseal
    from schema.gen.darkroom import v1 as gen
    from tests.core_events import EXAMPLES

    stored = golden()
    assert list(stored) == [type_of(event) for event in EXAMPLES]
    for event, data in zip(EXAMPLES, stored.values(), strict=True):
        assert decode(data) == event, event
        assert encode(event) == data, event
        payload = unseal(data).payload
        reference = getattr(gen, RECORDS[type(event)].kind.DESCRIPTOR.name)
        assert bytes(reference().parse(payload)) == payload, event


def cut_short() -> None:
    """Every prefix of every golden payload, sealed again, is an event or a BadEvent; nothing else is raised."""
    from core.log.codec import BadEvent, decode
    from schema.envelope import Envelope, seal, unseal

    for data in golden().values():
        whole = unseal(data)
        for length in range(len(whole.payload)):
            cut = Envelope(type=whole.type, version=whole.version, payload=whole.payload[:length])
            try:
                decode(seal(cut))
            except BadEvent:
                continue


if __name__ == "__main__":
    sys.modules["betterproto_rust_codec"] = None  # type: ignore[assignment]  # importing it now fails, as if absent
    import betterproto

    assert betterproto.Message.parse.__name__ == "parse", "this is not the Python codec"
    check()
    cut_short()
    print("checked with the Python codec")
