"""Texts that would be obeyed if they were markup, and what shows that one was."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any, Final

from typing_extensions import override

MARK: Final = "xoilux"
"""In all of them, wherever something could be obeyed; in no id, which has none of these vowels."""

HOSTILE: Final = (
    f"<script>alert('{MARK}')</script>",
    f'"><img src={MARK} onerror=alert(1)>',
    f"'><svg/onload=alert('{MARK}')>",
    f"</pre></code></title></textarea></select><script src=//{MARK}.example></script>",
    f"<iframe srcdoc='<script>alert(`{MARK}`)</script>'></iframe>",
    f"<a href=javascript:alert('{MARK}')>click</a>",
    f"<div hx-get=/{MARK} hx-trigger=load hx-on:load=alert(1)>",
    f"<details open ontoggle=alert('{MARK}')>",
    f"<base href=//{MARK}.example/><meta http-equiv=refresh content='0;url=//{MARK}.example'>",
    f"{{{{ {MARK} }}}} {{% include '/etc/passwd' %}} ${{{MARK}}}",
    f"\u2028\u2029\u202e{MARK}\u0000\u001b[31m</script>",
    f"<!--{MARK}--><![CDATA[<b>]]><style>@import '//{MARK}.example'</style>",
    f"data: {MARK}\n\nevent: x\ndata: <b>\r\rid: 7\n\n",
    f"csrf-token-of-whoever-reads-this {MARK}",
)


def unescaped(html: str) -> list[str]:
    """The tags and attributes in a page that come from one of these texts."""
    finder = _Finder()
    finder.feed(html)
    finder.close()
    return finder.found


class _Finder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given: dict[str, Any] = dict(attrs)
        if tag in ("iframe", "base", "object", "embed", "style", "img"):
            self.found.append(tag)
        if tag == "script" and not str(given.get("src", "")).endswith(".js"):
            self.found.append(str(self.get_starttag_text()))
        for name, value in given.items():
            if name.startswith(("on", "hx-on", "hx-get")) or MARK in name or name == "srcdoc":
                self.found.append(f"{tag} {name}")
            if name in ("href", "src", "action") and not str(value or "").startswith(("/", "#")):
                self.found.append(f"{tag} {name}={value}")

    @override
    def handle_comment(self, data: str) -> None:
        self.found.append(f"comment {data[:40]}")
