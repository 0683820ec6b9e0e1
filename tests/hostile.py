"""Names that would do something where a spreadsheet, a page, a shell or a path takes them for more than text."""

from __future__ import annotations

NAMES = (
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@x",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "＝1",
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror='window.hacked=1'>",
    "[click](javascript:alert(1))",
    "![x](//evil.example/x.png)",
    "`` ` ``<b>x</b>",
    "$(touch x)`touch x`",
    "a | b \\| c",
    "line\nbreak # heading",
    "../../etc/passwd",
    "%s %n ${HOME}",
    '"quoted" \\" \x7f',
)
