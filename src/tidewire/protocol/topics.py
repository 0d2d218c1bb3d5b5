"""Topic names, and the templates that declarations give them (DESIGN 7, CONTRACTS 6)."""

from __future__ import annotations

import re

from tidewire.errors import BadTopic, DeclarationError

NAME_BYTES_MAX = 255
_ALLOWED = re.compile(r"[A-Za-z0-9_\-.:/@=,+~#$]*\Z")
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([A-Za-z_]+))?\}")
# The converters of Starlette's routes that a topic may use: what a segment may look like.
_CONVERTERS = {None: "[^/]+", "str": "[^/]+", "path": ".+", "int": "[0-9]+"}


def validate_topic(name: str) -> str:
    """Return ``name`` when it may name a topic, else raise ``BadTopic`` saying why."""
    if not name:
        raise BadTopic(name, "it is empty")
    if len(name) > NAME_BYTES_MAX:
        raise BadTopic(name, f"it has {len(name)} characters and {NAME_BYTES_MAX} are allowed")
    if "*" in name:
        raise BadTopic(name, "wildcards subscribe to patterns, and this topic does not offer them")
    if not _ALLOWED.match(name):
        raise BadTopic(name, "only ASCII letters, digits and _ - . : / @ = , + ~ # $ are allowed")
    segments = name.split("/")
    if "" in segments:
        raise BadTopic(name, "a segment between slashes is empty")
    if "." in segments or ".." in segments:
        raise BadTopic(name, "the segments . and .. are not allowed")
    if segments[0] == "-":
        raise BadTopic(name, "names beginning with -/ are Tidewire's own URLs")
    return name


class Template:
    """A declared name such as ``quotes/{symbol}`` or ``files/{path:path}``.

    ``fields`` are the parameters in order. Matching is on whole names; ``$`` names match only a
    template whose first character is ``$`` itself, so that nobody opens the system's topics by accident.
    """

    __slots__ = ("_format", "_pattern", "fields", "text")

    def __init__(self, text: str) -> None:
        # what was declared, for messages
        self.text = text
        self.fields: tuple[str, ...] = ()
        self._pattern, self._format = self._compile(text)

    def _compile(self, text: str) -> tuple[re.Pattern[str], str]:
        pattern, form, at = "", "", 0
        for field in _FIELD.finditer(text):
            name, converter = field.group(1), field.group(2)
            if converter not in _CONVERTERS:
                raise DeclarationError(f"topic {text!a}: use {{{name}}} or {{{name}:path}}, not :{converter}")
            if name in self.fields:
                raise DeclarationError(f"topic {text!a}: the parameter {name} stands there twice")
            literal = text[at : field.start()]
            pattern += f"{re.escape(literal)}(?P<{name}>{_CONVERTERS[converter]})"
            form += f"{literal}{{{name}}}"
            self.fields += (name,)
            at = field.end()
        rest = text[at:]
        sample = _FIELD.sub("x", text)
        if "{" in sample or "}" in sample:
            raise DeclarationError(f"topic {text!a}: a brace is not closed, or a parameter is no Python name")
        try:
            validate_topic(sample)
        except BadTopic as error:
            raise DeclarationError(f"topic {text!a} can match no name: {error.why}") from None
        return re.compile(pattern + re.escape(rest) + r"\Z"), form + rest

    def parameter(self, name: str) -> str:
        """A parameter as it is declared: ``{name}`` or ``{name:path}``."""
        return next(field.group(0) for field in _FIELD.finditer(self.text) if field.group(1) == name)

    def match(self, topic: str) -> dict[str, str] | None:
        """The parameters of ``topic`` by name, or None when it does not match."""
        if topic.startswith("$") and not self.text.startswith("$"):
            return None
        found = self._pattern.match(topic)
        return None if found is None else found.groupdict()

    def format(self, **values: object) -> str:
        """The topic name for these parameters; raises ``DeclarationError`` when one lacks or is too many."""
        if set(values) != set(self.fields):
            wanted = ", ".join(f"{field}=..." for field in self.fields) or "no parameters"
            raise DeclarationError(f"the topic {self.text!a} takes {wanted}")
        name = validate_topic(self._format.format(**values))
        if self.match(name) != {field: str(value) for field, value in values.items()}:
            raise BadTopic(name, f"it does not read back as {self.text!a}: a parameter holds a slash or is empty")
        return name
