"""XMP without what it says of pictures and films that are gone: gain maps, motion photos, further eyes, thumbnails."""

from __future__ import annotations

from collections.abc import Iterator
from xml.dom import XMLNS_NAMESPACE, minidom

_OF_OTHERS = (
    "http://ns.adobe.com/hdr-gain-map/",
    "http://ns.apple.com/HDRGainMap/",
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/1.0/image/",
    "http://ns.google.com/photos/dd/",
)
"""Beginnings of the namespaces that describe other pictures of the file, or hold them."""
_OF_EXTENSION = (
    "http://ns.google.com/photos/1.0/depthmap/",
    "http://ns.google.com/photos/1.0/audio/",
    "http://ns.adobe.com/xmp/note/",
)
"""Of those that point to the extended XMP, which only a JPEG has."""
_WORDS = ("MotionPhoto", "MicroVideo", "Thumbnails")
"""What properties begin with, in any namespace, that are of films behind a picture or of previews."""


def without_others(xmp: bytes, with_extension: bool = True) -> bytes:
    """XMP without other pictures and films, and without what points to its extension if there is none.

    What says nothing of them stays as it is, byte for byte. Nothing is left of what cannot be read but mentions them.
    """
    leave = _OF_OTHERS if with_extension else (*_OF_OTHERS, *_OF_EXTENSION)
    if not any(word.encode() in xmp for word in (*leave, *_WORDS)):
        return xmp
    if b"<!" in xmp.replace(b"<!--", b"").replace(b"<![CDATA[", b""):  # entities, which XMP has not
        return b""
    try:
        document = minidom.parseString(xmp.rstrip(b"\0"))  # noqa: S318 - without entities
        root = document.documentElement
        if root is None or not _take_out(root, leave):
            return xmp
        return "".join(node.toxml() for node in document.childNodes).encode()
    except Exception:  # whatever came up in a damaged one
        return b""


def _take_out(root: minidom.Element, leave: tuple[str, ...]) -> int:
    """Take properties, and declarations of their namespaces, out of a tree; returns the number of the former."""
    count = 0
    for element in _elements(root):
        for attribute in list(element.attributes.values()):
            if attribute.namespaceURI == XMLNS_NAMESPACE:
                if str(attribute.nodeValue).startswith(leave):
                    element.removeAttributeNode(attribute)
            elif _is_left_out(attribute, leave):
                element.removeAttributeNode(attribute)
                count += 1
        for child in list(element.childNodes):
            if child.nodeType == child.ELEMENT_NODE and _is_left_out(child, leave):
                element.removeChild(child)
                count += 1
    return count


def _elements(element: minidom.Element) -> Iterator[minidom.Element]:
    """An element and all below it; what is taken out meanwhile is not entered."""
    yield element
    for child in list(element.childNodes):
        if child.nodeType == child.ELEMENT_NODE and child.parentNode is element:
            yield from _elements(child)


def _is_left_out(node: minidom.Attr | minidom.Element, leave: tuple[str, ...]) -> bool:
    return (node.namespaceURI or "").startswith(leave) or (node.localName or "").startswith(_WORDS)
