"""HTML as a reader of it takes it."""

from html.parser import HTMLParser

VOID = {"img", "br", "meta"}


class Page(HTMLParser):
    """The text and the pictures of HTML; fails where an element is not closed."""

    def __init__(self, html):
        super().__init__()
        self.text, self.pictures, self.names, self._open = "", [], set(), []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] != ["style"]:
            self.text += f"{data} "
