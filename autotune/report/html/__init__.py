"""Pages for people: one self-contained HTML file each, readable offline and on paper.

Nothing is re-exported: words and verdicts serve the terminal too, without the template engine that pages need.
"""
