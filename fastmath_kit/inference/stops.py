r"""Where a completion may end besides `STOP`: conditions on what it has written so far.

    Sampling(max_tokens=512, **stop_at("box"))

An engine asks a condition only when a new piece of text holds one of its trigger characters.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fastmath_kit.errors import ConfigError, unknown_name
from fastmath_kit.problems.answers import extract_answer


@dataclass(frozen=True, slots=True)
class Until:
    """A condition that ends a completion.

    Attributes:
        triggers: Characters, one of which the newest piece of text must hold to be worth a look.
        is_complete: Whether the text so far is complete.
    """

    triggers: str
    is_complete: Callable[[str], bool]

    def ends(self, piece: str, text: Callable[[], str]) -> bool:
        """Whether the completion is complete now that `piece` was added to its text."""
        return any(trigger in piece for trigger in self.triggers) and self.is_complete(text())


def either(first: Until | None, second: Until | None) -> Until | None:
    """Returns the condition that holds when either does; None never holds."""
    if first is None or second is None:
        return first or second
    return Until(
        first.triggers + second.triggers,
        lambda text: first.is_complete(text) or second.is_complete(text),
    )


def _has_box_after_reasoning(text: str) -> bool:
    return extract_answer(text, inside="after") is not None


BOX_AFTER_REASONING = Until("}", _has_box_after_reasoning)
_STOPS: dict[str, dict] = {
    "reasoning": {"ends_at_stop": True, "until": None},
    "box": {"ends_at_stop": False, "until": BOX_AFTER_REASONING},
}


def stop_at(place: str) -> dict:
    """Returns `Sampling`'s fields that end a completion at a place.

    Args:
        place: `reasoning`, at `STOP`; `box`, at the first complete box after it.

    Raises:
        ConfigError: there is no such place.
    """
    if place not in _STOPS:
        raise ConfigError(unknown_name("place to stop", place, _STOPS))
    return _STOPS[place]
