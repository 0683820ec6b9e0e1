"""The type of fields of a study file that name an engine: those that are known when the file is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from autotune.engines import ANY, ENGINES, listed


@dataclass(frozen=True, slots=True)
class _Name:
    """Validates like a `Literal` of the names."""

    more: tuple[str, ...] = ()
    """Words that the field takes beside them."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": [*ENGINES, *self.more], "type": "string"}

    def _checked(self, value: Any) -> str:
        known = (*ENGINES, *self.more)
        if isinstance(value, str) and value in known:
            return value
        raise PydanticKnownError("literal_error", {"expected": listed([repr(name) for name in known], "or")})


EngineName = Annotated[str, _Name()]
EngineOrAny = Annotated[str, _Name((ANY,))]
