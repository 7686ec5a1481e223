"""What all sections of a recipe have in common: keys with values, and what is refused."""

from typing import TYPE_CHECKING, Any, ClassVar, Dict, Literal, Optional, Tuple, Type, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationInfo,
    conint,
    field_validator,
    model_serializer,
    model_validator,
)

if TYPE_CHECKING:
    Count = int
else:
    Count = conint(gt=0, le=10**9)
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]
Library = Literal["cv2", "pillow"]
Share = Tuple[float, float]


class Section(BaseModel):
    """Keys and values; an unknown key is refused, and so is one that another kind alone has.

    ``_kind`` names the key that chooses the kind, ``_of_kind`` the kinds that each of the other
    keys belongs to; a key that is not in it belongs to all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    _kind: ClassVar[str] = "type"
    _of_kind: ClassVar[Dict[str, Tuple[str, ...]]] = {}
    _newer: ClassVar[Tuple[str, ...]] = ()  # not written at their defaults: older runs lack them

    @classmethod
    def foreign(cls, kind: str) -> Tuple[str, ...]:
        """The keys that ``kind`` does not have."""
        return tuple(key for key, kinds in cls._of_kind.items() if kind not in kinds)

    @field_validator("*", mode="before")
    @classmethod
    def _no_word_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's yes and no would pass for 1 and 0."""
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and wanted in (int, float, Optional[float]):
            raise ValueError("input should be a number")
        return value

    @model_validator(mode="after")
    def _has_only_its_own(self) -> "Section":
        if self._of_kind:
            kind = getattr(self, self._kind)
            for key in self.foreign(kind):
                if key in self.model_fields_set:
                    kinds = " and ".join(self._of_kind[key])
                    raise ValueError(
                        f"{key!r} belongs to {self._kind} {kinds}, and {self._kind} is {kind}"
                    )
        return self

    @model_serializer(mode="wrap")
    def _write_only_its_own(self, write: Any) -> Dict[str, Any]:
        foreign = self.foreign(getattr(self, self._kind)) if self._of_kind else ()
        return {
            key: value
            for key, value in write(self).items()
            if key not in foreign and not self._is_usual(key, value)
        }

    @classmethod
    def _is_usual(cls, key: str, value: Any) -> bool:
        return key in cls._newer and value == cls.model_fields[key].default


def sections(section: Type[Section]) -> Dict[str, Type[Section]]:
    """The keys that hold sections, those that may be off included."""
    found = {}
    for name, field in section.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Section):
                found[name] = kind
    return found
