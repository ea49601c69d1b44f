"""What `bench submit` makes of its rounds."""

import json
import re
from array import array

from loadtests.bench.client import Round, Target
from loadtests.bench.submit import ACCEPTED, BODY, ECHOED, SubmitFigures


def rounds(*per_s: int) -> list[Round]:
    return [Round(seconds=2.0, latencies_ms=array("d", [1.0] * (2 * rate))) for rate in per_s]


def test_the_ratio_is_the_median_of_the_alternations_not_the_ratio_of_medians() -> None:
    figures = SubmitFigures(
        accepted=rounds(100, 400, 300),
        echoed=rounds(1000, 1000, 2000),
        accepted_cpu_us=[1000.0, 800.0, 900.0],
        echo_cpu_us=[100.0, 90.0, 300.0],
    )
    result = figures.result()
    assert result["ratios"] == [0.1, 0.4, 0.15]
    assert result["ratio"] == 0.15
    assert result["accepted_per_s"] == 300.0
    assert result["echo_per_s"] == 1000.0
    assert result["cpu_ratio"] == round(100 / 900, 4)
    assert (result["p50_ms"], result["p99_ms"]) == (1.0, 1.0)


def test_each_request_is_whole_and_its_number_is_in_the_prompt_and_the_seed() -> None:
    target = Target(host="h", port=1, path="/p", body=BODY.encode(), keys=["k"], status=202, unique=ACCEPTED)
    head, _, body = b"1234567890".join(target.pieces("k")).partition(b"\r\n\r\n")
    assert b"Authorization: Bearer k" in head
    assert int(re.findall(rb"Content-Length: (\d+)", head)[0]) == len(body)
    sent = json.loads(body)
    assert sent["seed"] == 1234567890
    assert sent["prompt"].endswith("1234567890")


def test_ids_are_found_in_both_kinds_of_answer() -> None:
    identifier = "gen_" + "0" * 26
    for text in (json.dumps({"id": identifier}), json.dumps({"id": identifier}, separators=(",", ":"))):
        found = ACCEPTED.search(text.encode())
        assert found is not None
        assert found.group(1).decode() == identifier
    assert ECHOED.search(json.dumps({"seed": 1234567890}).encode()) is not None
