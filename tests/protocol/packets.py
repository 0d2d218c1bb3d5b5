"""Random packets of any type, for both codecs."""

from __future__ import annotations

from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st
from msgspec import Meta, Raw

from tidewire.protocol.packets import Packet

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
# valid in both codecs: what is embedded in JSON must be JSON, in one line
RAWS = st.sampled_from([b"{}", b"0", b'"x"', b'{"a":[1,null]}', '"ä€😀"'.encode()]).map(Raw)


def packets(kind: type[Packet]) -> st.SearchStrategy[Any]:
    """Packets of type ``kind``, each field there or not."""
    hints = get_type_hints(kind, include_extras=True)
    return (
        st.builds(kind)
        if not hints
        else st.fixed_dictionaries({}, optional={name: _values(hints[name]) for name in kind.__struct_fields__}).map(
            lambda values: kind(**values)
        )
    )


def _values(hint: Any) -> st.SearchStrategy[Any]:
    said, bounds = get_args(hint)[0], [meta for meta in hint.__metadata__ if isinstance(meta, Meta)]
    parts = get_args(said)
    if get_origin(said) is dict:
        return st.dictionaries(TEXTS, _plain(parts[1]), max_size=2)
    if get_origin(said) is list:
        return st.lists(_plain(parts[0]), max_size=2)
    if NoneType in parts:
        (said,) = (part for part in parts if part is not NoneType)
    if said is int:
        low = next(meta.ge for meta in bounds if meta.ge is not None)
        high = next(meta.le for meta in bounds if meta.le is not None)
        return st.integers(int(low), int(high)) | st.sampled_from([int(low), int(high)])
    return _plain(said)


def _plain(said: Any) -> st.SearchStrategy[Any]:
    if said is str:
        return TEXTS
    if said is bool:
        return st.booleans()
    if said is Raw:
        return RAWS
    return st.deferred(lambda: packets(said))
