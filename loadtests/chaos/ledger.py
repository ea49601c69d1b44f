"""What the clients asked for and how they were answered: in full on disk; in memory only what the checks need."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from types import TracebackType
from typing import Self, TextIO

from loadtests.checks import Accepted

OPEN = ""


@dataclass(slots=True, eq=False)
class Ledger:
    """`told` maps each accepted id to (tenant, terminal status), the status empty until a client has seen it.

    `wrong` counts complaints by reason.
    """

    path: Path
    told: dict[str, tuple[str, str]] = field(default_factory=dict)
    wrong: Counter[str] = field(default_factory=Counter)
    doubles: int = 0
    pictures: int = 0
    retries: int = 0
    _file: TextIO | None = None

    def __enter__(self) -> Self:
        self._file = self.path.open("w", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def accept(self, tenant: str, key: str, generation: Accepted) -> None:
        """Records a 202."""
        if generation.id in self.told:
            self.complain("two Idempotency-Keys gave one generation", generation.id)
            return
        self.told[generation.id] = (intern(tenant), OPEN)
        spec = {name: value for name, value in generation.asked.items() if name != "prompt"}
        self._line(accepted=generation.id, tenant=tenant, key=key, **spec)

    def again(self, first: Accepted, second: Accepted) -> None:
        """Records a 202 to a repeated call, which must name the same generation."""
        if first.id != second.id:
            self.doubles += 1
            self._line(double=second.id, of=first.id)

    def end(self, generation_id: str, status: str) -> None:
        """Records the terminal status that the client saw."""
        tenant, _ = self.told[generation_id]
        self.told[generation_id] = (tenant, intern(status))
        self._line(ended=generation_id, status=status)

    def complain(self, reason: str, generation_id: str = "") -> None:
        """Records a wrong answer or picture. `reason` names no id, so that equal complaints are counted together."""
        self.wrong[reason] += 1
        self._line(wrong=reason, id=generation_id)

    @property
    def open(self) -> list[str]:
        """Ids of accepted generations whose end no client has seen yet."""
        return [each for each, (_, status) in self.told.items() if status == OPEN]

    def count(self, status: str) -> int:
        """Generations with this end."""
        return sum(found == status for _, found in self.told.values())

    def _line(self, **fields: object) -> None:
        assert self._file is not None
        self._file.write(json.dumps(fields) + "\n")
